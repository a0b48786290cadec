"""What was fanned out beside a change of the webhook's state is settled by the sweep."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import DatabaseError, connection, connections, transaction
from django_q.models import Schedule

from conftest import Cast
from conversations.actions import receive_message
from core.actors import SYSTEM
from core.clock import held_at, now
from webhooks import outstanding, tasks
from webhooks.actions import pause_webhook, resume_webhook
from webhooks.engine import dispatch
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.stranded import settle_stranded
from webhooks.tests.conftest import make_delivery, make_webhook

only_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time")


@pytest.mark.parametrize(
    ("webhook_state", "deleted", "suspended", "before", "after"),
    [
        ("active", False, False, "held", "pending"),
        ("active", False, False, "pending", "pending"),
        ("active", False, False, "failed", "failed"),
        ("active", False, True, "held", "held"),
        ("paused", False, False, "held", "held"),
        ("disabled", False, False, "held", "held"),
        ("active", True, False, "pending", "cancelled"),
        ("paused", True, False, "held", "cancelled"),
        ("active", True, False, "delivered", "delivered"),
    ],
)
def test_each_delivery_ends_in_the_state_its_webhook_gives_it(
    acme: Cast, webhook: Webhook, webhook_state: str, deleted: bool, suspended: bool, before: str, after: str
) -> None:
    delivery = make_delivery(acme, webhook, state=before)
    Webhook.objects.update(state=webhook_state, archived_at=now() if deleted else None)
    if suspended:
        type(acme.organisation).objects.update(suspended_at=now())
    assert settle_stranded() == (before != after)
    delivery.refresh_from_db()
    assert delivery.state == after
    assert (delivery.next_attempt_at is not None) == (after == "pending")
    assert settle_stranded() == 0


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_nothing_stays_held_that_is_fanned_out_beside_a_resume(acme: Cast) -> None:
    # What was there before: the very first makes the counter that is held.
    dispatch.dispatch()
    webhook = make_webhook(acme)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    receive_message(channel=acme.channel, address=acme.contact.address, body="first")
    saw_it_paused, commit = threading.Event(), threading.Event()

    def fan_out() -> None:
        try:
            with transaction.atomic():
                assert dispatch.dispatch().events
                saw_it_paused.set()
                commit.wait(20)
        finally:
            connections.close_all()

    def resume() -> None:
        try:
            resume_webhook(webhook=webhook, actor=SYSTEM)
        finally:
            connections.close_all()

    both = [threading.Thread(target=fan_out), threading.Thread(target=resume)]
    try:
        both[0].start()
        assert saw_it_paused.wait(20)
        both[1].start()
        both[1].join(0.5)
        assert both[1].is_alive()
    finally:
        commit.set()
        for one in both:
            one.join()
    assert Delivery.objects.get(webhook=webhook, event_type="inboundMessage").state == "pending"
    assert settle_stranded() == 0


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_who_freezes_while_it_resumes_keeps_nobody_from_fanning_out_for_long(
    acme: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outstanding, "IDLE_SECONDS", 1)

    def freeze() -> None:
        with transaction.atomic():
            outstanding.release_all(Outstanding.objects.none())
            time.sleep(2)
            Outstanding.objects.exists()

    with pytest.raises(DatabaseError, match="idle-in-transaction"):
        freeze()


def test_the_sweep_is_scheduled_once_and_settles(acme: Cast, webhook: Webhook) -> None:
    for _ in range(2):
        tasks.install_schedules(sender=apps.get_app_config("django_q"), using="default")
    assert Schedule.objects.get(func="webhooks.tasks.sweep").minutes == 1
    make_delivery(acme, webhook, state="held")
    assert tasks.sweep()["settled"] == 1


@pytest.mark.parametrize(
    ("attempts", "ahead", "due"),
    [
        (0, timedelta(minutes=9), False),
        (0, timedelta(minutes=11), True),
        (1, timedelta(hours=52), False),
        (1, timedelta(hours=53), True),
        (9, timedelta(days=400), True),
    ],
)
def test_what_is_due_later_than_it_can_be_is_due_at_once(
    acme: Cast, webhook: Webhook, attempts: int, ahead: timedelta, due: bool
) -> None:
    moment = now()
    before = make_delivery(acme, webhook, next_attempt_at=moment + timedelta(minutes=1))
    delivery = make_delivery(acme, webhook, attempt_count=attempts, next_attempt_at=moment + ahead)
    make_delivery(acme, webhook, state="failed")
    with held_at(moment):
        assert settle_stranded() == due
    assert Delivery.objects.get(pk=before.pk).next_attempt_at == moment + timedelta(minutes=1)
    assert Delivery.objects.get(pk=delivery.pk).next_attempt_at == (moment if due else moment + ahead)


@pytest.mark.parametrize(
    ("column", "most"),
    [
        ("breaker_until", timedelta(minutes=17.5)),
        ("failing_since", timedelta(minutes=1)),
        ("last_failure_at", timedelta(minutes=1)),
        ("last_success_at", timedelta(minutes=1)),
    ],
)
def test_a_webhooks_time_that_lies_too_far_ahead_is_now(webhook: Webhook, column: str, most: timedelta) -> None:
    moment = now()
    for ahead, after in ((most, most), (most + timedelta(seconds=1), timedelta(0))):
        Webhook.objects.update(**{column: moment + ahead})
        with held_at(moment):
            settle_stranded()
        assert getattr(Webhook.objects.get(), column) == moment + after


def test_settling_costs_four_statements(acme: Cast, webhook: Webhook, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(4):
        settle_stranded()
