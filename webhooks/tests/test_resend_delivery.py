"""Sending an event once more: one delivery, or all that failed since a moment."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict
from organisations.models import AuditEntry
from webhooks.actions import (
    archive_webhook,
    disable_webhook,
    failed_since,
    pause_webhook,
    resend_delivery,
    resend_failed_since,
    update_webhook,
)
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook


@pytest.mark.parametrize("state", ["delivered", "failed", "cancelled", "pending", "held"])
def test_a_resend_is_a_new_delivery_of_the_same_event(acme: Cast, webhook: Webhook, state: str) -> None:
    first = make_delivery(acme, webhook, state=state, attempt_count=3, last_status_code=500, last_error="http")
    update_webhook(webhook=webhook, actor=SYSTEM, format="standard")
    again = resend_delivery(delivery=first, actor=SYSTEM)
    again.refresh_from_db()
    assert again.pk != first.pk
    assert (again.kind, again.state, again.attempt_count, again.outstanding.blocks) == ("resend", "pending", 0, False)
    assert (again.last_status_code, again.last_error, again.finished_at) == (None, "", None)
    assert again.next_attempt_at is not None
    assert again.next_attempt_at <= now()
    same = ("event_id", "webhook_id", "organisation_id", "event_type", "conversation_id", "seq", "format")
    assert [getattr(again, name) for name in same] == [getattr(first, name) for name in same]
    first.refresh_from_db()
    assert (first.state, first.attempt_count) == (state, 3)
    assert AuditEntry.objects.get(action="delivery.resend").data["resend"] == str(again.pk)


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        (pause_webhook, "webhook_paused"),
        (disable_webhook, "webhook_disabled"),
        (archive_webhook, "webhook_archived"),
    ],
)
def test_nothing_is_resent_to_a_webhook_that_takes_nothing(acme: Cast, webhook: Webhook, verb: Any, code: str) -> None:
    delivery = make_delivery(acme, webhook, state="failed")
    verb(webhook=webhook, actor=SYSTEM)
    for call in (
        lambda: resend_delivery(delivery=delivery, actor=SYSTEM),
        lambda: resend_failed_since(webhook=webhook, actor=SYSTEM, since=now() - timedelta(days=1)),
    ):
        with pytest.raises(Conflict) as refusal:
            call()
        assert refusal.value.code == code
    assert Delivery.objects.count() == 1


def test_every_failed_event_is_resent_once(acme: Cast, webhook: Webhook) -> None:
    failed = make_delivery(acme, webhook, state="failed", last_error="timeout", attempt_count=10)
    make_delivery(acme, make_webhook(acme), state="failed")
    since = now() - timedelta(hours=2)
    assert list(failed_since(webhook, since)) == [failed]
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=since) == 1
    again = Delivery.objects.exclude(pk=failed.pk).get(webhook=webhook)
    assert (again.kind, again.state, again.attempt_count, again.last_error) == ("resend", "pending", 0, "")
    assert (again.event_id, again.seq) == (failed.event_id, failed.seq)
    assert again.next_attempt_at is not None
    assert again.created_at > failed.created_at
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=since) == 0
    assert AuditEntry.objects.get(action="webhook.resend_failed").data["made"] == 1


@pytest.mark.parametrize("later", ["delivered", "pending", "held"])
def test_what_is_delivered_or_under_way_is_left_alone(acme: Cast, webhook: Webhook, later: str) -> None:
    make_delivery(acme, webhook, state="failed")
    make_delivery(acme, webhook, state=later)
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=now() - timedelta(days=1)) == 0
    assert Delivery.objects.count() == 2


def test_an_event_that_failed_twice_is_resent_once(acme: Cast, webhook: Webhook) -> None:
    make_delivery(acme, webhook, state="failed")
    make_delivery(acme, webhook, state="failed")
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=now() - timedelta(days=1)) == 1


def test_only_the_asked_period_is_resent(acme: Cast, webhook: Webhook) -> None:
    made_at = make_delivery(acme, webhook, state="failed").created_at
    second = timedelta(seconds=1)
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=made_at + second) == 0
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=made_at - second, until=made_at) == 0
    assert resend_failed_since(webhook=webhook, actor=SYSTEM, since=made_at, until=made_at + second) == 1
