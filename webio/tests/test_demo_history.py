"""The past that the demo gives its webhooks."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event
from core.clock import held_at, now
from core.outbound import Request, fetch
from webhooks.incidents import Kind, kind_of
from webhooks.models import Attempt, Delivery, Outstanding, Tally, Webhook
from webhooks.tallies import PERIODS, history, total
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import running_endpoint
from webhooks.tests.engine import deliver
from webio.demo import history as demo_history
from webio.demo.receiver import Receiver
from webio.tests.test_demo import free_port


@pytest.fixture
def week(acme: Cast) -> Cast:
    """A cast whose contacts wrote every other hour of the last week, one of them during the outage."""
    for number in range(1, 7 * 12):
        with held_at(now() - timedelta(minutes=120 * number + 30)):
            conversation_actions.receive_message(channel=acme.channel, address=f"4477174{number:05}", body="Hello")
    return acme


def outcomes(webhook: Webhook) -> list[tuple[Any, ...]]:
    rows = Delivery.objects.filter(webhook=webhook).order_by("event_id")
    return list(rows.values_list("event_id", "state", "attempt_count", "last_status_code", "last_error"))


@pytest.mark.once
def test_an_endpoint_that_is_up_has_mostly_delivered(week: Cast) -> None:
    webhook = make_webhook(week)
    made = demo_history.make(webhook, down=False)
    assert made == Event.objects.filter(organisation=week.organisation, type="inboundMessage").count()
    states = Counter(Delivery.objects.filter(webhook=webhook).values_list("state", flat=True))
    assert states["delivered"] > 0.95 * made
    assert Delivery.objects.filter(webhook=webhook, state="delivered", attempt_count__gt=1).exists()
    webhook.refresh_from_db()
    assert kind_of(webhook) is None
    assert webhook.last_success_at is not None


def test_an_endpoint_that_is_down_retries_and_has_failed(week: Cast) -> None:
    webhook = make_webhook(week)
    moment = now()
    with held_at(moment):
        demo_history.make(webhook, down=True)
    states = Counter(Delivery.objects.filter(webhook=webhook).values_list("state", flat=True))
    assert set(states) == {"delivered", "pending", "failed"}
    webhook.refresh_from_db()
    assert kind_of(webhook) == Kind.BREAKER
    due = Outstanding.objects.filter(webhook=webhook, next_attempt_at__lte=moment)
    assert not due.exists()


@pytest.mark.once
@pytest.mark.parametrize("down", [False, True])
def test_tallies_are_what_the_attempts_come_to(week: Cast, down: bool) -> None:
    webhook = make_webhook(week)
    demo_history.make(webhook, down=down)
    attempts = list(Attempt.objects.filter(delivery__webhook=webhook))
    figures = total(history(webhook, PERIODS["30d"]))
    accepted = sum(attempt.accepted for attempt in attempts)
    assert (figures.delivered, figures.attempts) == (accepted, len(attempts)) == (accepted, sum(figures.classes))
    milliseconds = sum(Tally.objects.filter(webhook=webhook).values_list("duration_ms", flat=True))
    assert milliseconds == sum(attempt.duration_ms for attempt in attempts)
    counted = Counter(attempt.delivery_id for attempt in attempts)
    rows = Delivery.objects.filter(webhook=webhook).values_list("pk", "attempt_count")
    assert {pk: count for pk, count in rows if count} == counted


@pytest.mark.once
def test_it_is_the_same_every_time(week: Cast) -> None:
    with held_at(now()):
        one, two = make_webhook(week), make_webhook(week)
        for webhook in (one, two):
            demo_history.make(webhook, down=True)
    assert outcomes(one) == outcomes(two)


@pytest.mark.once
def test_the_engine_sends_none_of_it_again(week: Cast, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with running_endpoint() as endpoint:
        webhook = make_webhook(week, callback_url=endpoint.url)
        made = demo_history.make(webhook, down=True)
        deliver()
    assert endpoint.asked == []
    assert Delivery.objects.count() == made


@pytest.mark.once
def test_the_receiver_is_down_for_the_warehouse_only(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    said: list[str] = []
    receiver = Receiver(free_port(), said.append)
    receiver.start()
    try:
        asked = [
            fetch(Request("POST", f"http://127.0.0.1:{receiver.port}{path}", body=b"{}", deadline=5)).status
            for path in ("/acme", "/acme/warehouse")
        ]
    finally:
        receiver.stop()
    assert asked == [200, 503]
    assert "answered 503" in said[1]
