"""Two verbs on one webhook at once: each takes its locks in the same order, so that neither is a victim."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections

from conftest import make_cast
from conversations.models import Event
from core.actors import SYSTEM
from core.clock import now
from core.errors import Refusal
from webhooks.actions import (
    archive_webhook,
    disable_webhook,
    enable_webhook,
    pause_webhook,
    resend_delivery,
    resend_failed_since,
    rotate_secret,
    update_webhook,
)
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.outstanding import of
from webhooks.tests.conftest import make_webhook

pytestmark = pytest.mark.django_db(transaction=True)

#: So many that the statements that write them overlap.
DELIVERIES = 3000


def at_once(*calls: Callable[[], Any]) -> list[Exception]:
    """What `calls`, each in a thread and connection of its own, raised besides refusals."""
    barrier = threading.Barrier(len(calls))
    raised: list[Exception] = []

    def run(call: Callable[[], Any]) -> None:
        try:
            barrier.wait(20)
            call()
        except Refusal:
            pass
        except Exception as error:
            raised.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


def fill(webhook: Webhook, state: str) -> None:
    """Many unsent deliveries of the webhook."""
    event = Event.objects.filter(type="inboundMessage").earliest("id")
    Delivery.objects.bulk_create(
        Delivery(
            organisation_id=webhook.organisation_id,
            webhook=webhook,
            event=event,
            kind="resend",
            copy=number + 1,
            event_type=event.type,
            format=webhook.format,
            state=state,
        )
        for number in range(DELIVERIES)
    )
    due = now() if state == "pending" else None
    unfinished = Delivery.objects.filter(state__in=["pending", "held"])
    Outstanding.objects.bulk_create(of(delivery, due) for delivery in unfinished)


@pytest.mark.parametrize(
    ("state", "verb"), [("pending", pause_webhook), ("pending", disable_webhook), ("held", enable_webhook)]
)
def test_a_webhook_is_deleted_while_it_is_stopped_or_started(state: str, verb: Callable[..., Any]) -> None:
    webhook = make_webhook(make_cast("acme"))
    if state == "held":
        pause_webhook(webhook=webhook, actor=SYSTEM)
    fill(webhook, state)
    first, second = (Webhook.objects.select_related("organisation").get() for _ in range(2))
    raised = at_once(lambda: archive_webhook(webhook=first, actor=SYSTEM), lambda: verb(webhook=second, actor=SYSTEM))
    assert raised == []
    assert Webhook.objects.get().archived_at is not None
    assert set(Delivery.objects.values_list("state", flat=True)) == {"cancelled"}


def test_everything_that_is_done_to_a_webhook_is_done_at_once() -> None:
    webhook = make_webhook(make_cast("acme"))
    fill(webhook, "failed")
    delivery = Delivery.objects.select_related("webhook__organisation").earliest("id")
    since = now() - timedelta(minutes=1)
    verbs: list[Callable[[Webhook], Any]] = [
        lambda own: pause_webhook(webhook=own, actor=SYSTEM),
        lambda own: enable_webhook(webhook=own, actor=SYSTEM),
        lambda own: disable_webhook(webhook=own, actor=SYSTEM),
        lambda own: update_webhook(webhook=own, actor=SYSTEM, events=["payment"]),
        lambda own: rotate_secret(webhook=own, actor=SYSTEM),
        lambda own: resend_delivery(delivery=delivery, actor=SYSTEM),
        lambda own: resend_failed_since(webhook=own, actor=SYSTEM, since=since),
    ]

    def repeat(verb: Callable[[Webhook], Any]) -> None:
        for _ in range(5):
            with suppress(Refusal):
                verb(Webhook.objects.select_related("organisation").get())

    assert at_once(*(lambda verb=verb: repeat(verb) for verb in verbs)) == []  # type: ignore[misc]
    enable_webhook(webhook=webhook, actor=SYSTEM)
    assert not Delivery.objects.filter(state="held").exists()
