"""An endpoint that fails is left alone, without using up attempts, and taken up again by itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from core.actors import SYSTEM
from core.clock import held_at, now
from webhooks.actions import disable_webhook, enable_webhook, pause_webhook, resume_webhook
from webhooks.engine.breaker import FAILURES, PAUSE, PAUSE_MOST, Health
from webhooks.engine.lane import WINDOW_LEAST
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain, step

NOON = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


def say(cast: Cast, count: int) -> None:
    """Inbound messages of as many contacts."""
    for number in range(count):
        conversation_actions.receive_message(channel=cast.channel, address=f"44771747{number:04}", body=str(number))


def health(**values: Any) -> Health:
    """A webhook that does well, but for `values`."""
    return Health(
        **{
            "pk": 1,
            "consecutive_failures": 0,
            "failing_since": None,
            "breaker_until": None,
            "breaker_level": 0,
            **values,
        }
    )


def pause(values: dict[str, Any]) -> float:
    """Seconds for which the breaker opened."""
    return float((values["breaker_until"] - NOON).total_seconds())


def test_failures_in_a_row_open_it() -> None:
    before = health(consecutive_failures=FAILURES - 2, failing_since=NOON - timedelta(hours=1))
    once = before.after([False], False, NOON)
    assert "breaker_until" not in once
    assert (once["consecutive_failures"], once["failing_since"]) == (FAILURES - 1, NOON - timedelta(hours=1))
    twice = before.after([False, False], False, NOON)
    assert PAUSE * 0.9 <= pause(twice) <= PAUSE * 1.1
    assert twice["breaker_level"] == 1


def test_a_share_of_failures_opens_it_though_some_succeed() -> None:
    values = health().after([True, False], True, NOON)
    assert values["breaker_level"] == 1
    assert (values["consecutive_failures"], values["failing_since"], values["last_success_at"]) == (1, NOON, NOON)
    assert "breaker_until" not in health().after([False, True], True, NOON)


def test_a_failed_probe_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    before = health(consecutive_failures=12, breaker_until=NOON - timedelta(seconds=1), breaker_level=1)
    values = before.after([False], False, NOON)
    assert PAUSE * 2 * 0.9 <= pause(values) <= PAUSE * 2 * 1.1
    assert values["breaker_level"] == 2
    longest = health(consecutive_failures=12, breaker_until=NOON - timedelta(seconds=1), breaker_level=40)
    assert pause(longest.after([False], False, NOON)) <= PAUSE_MOST * 1.1


def test_what_was_under_way_when_it_opened_neither_closes_nor_lengthens_it() -> None:
    before = health(consecutive_failures=12, breaker_until=NOON + timedelta(seconds=20), breaker_level=1)
    assert "breaker_until" not in before.after([False, False], True, NOON)
    assert "breaker_until" not in before.after([True], False, NOON)


def test_a_successful_probe_closes_it() -> None:
    before = health(consecutive_failures=12, failing_since=NOON, breaker_until=NOON, breaker_level=3)
    values = before.after([True], False, NOON)
    assert (values["breaker_until"], values["breaker_level"], values["failing_since"]) == (None, 0, None)


@pytest.mark.django_db
def test_what_is_due_waits_without_using_attempts_and_goes_out_when_the_endpoint_heals(
    acme: Cast, endpoint: Endpoint
) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, 40)
    deliver()
    webhook.refresh_from_db()
    asked = len(endpoint.asked)
    assert FAILURES <= asked < 40
    assert webhook.breaker_level == 1
    assert webhook.breaker_until is not None
    untried = Delivery.objects.filter(attempt_count=0)
    assert untried.count() == 40 - asked
    assert set(untried.values_list("state", flat=True)) == {"pending"}
    deliver(webhook.breaker_until - timedelta(seconds=1))
    assert len(endpoint.asked) == asked

    at = webhook.breaker_until
    deliver(at)
    webhook.refresh_from_db()
    # One probe, and nothing more.
    assert len(endpoint.asked) == asked + 1
    assert webhook.breaker_level == 2

    endpoint.status = 200
    assert webhook.breaker_until is not None
    deliver(webhook.breaker_until + timedelta(hours=1))
    webhook.refresh_from_db()
    assert (webhook.breaker_level, webhook.breaker_until, webhook.failing_since) == (0, None, None)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


@pytest.mark.django_db
@pytest.mark.parametrize(("share", "attempts", "opens"), [(2, WINDOW_LEAST, True), (3, WINDOW_LEAST + 1, False)])
def test_who_fails_half_of_the_time_is_left_alone_though_never_twice_in_a_row(
    acme: Cast, endpoint: Endpoint, share: int, attempts: int, opens: bool
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    moment = now()
    # What failed is not due again meanwhile.
    with held_at(moment), running_drain() as drain:
        for number in range(1, attempts + 1):
            webhook.refresh_from_db()
            assert (webhook.breaker_level, webhook.breaker_until) == (0, None)
            endpoint.status = 200 if number % share else 500
            say(acme, 1)
            step(drain)
        webhook.refresh_from_db()
        assert webhook.consecutive_failures <= 1
        assert (webhook.breaker_level, webhook.breaker_until is not None) == (opens, opens)
        endpoint.status = 200
        say(acme, 1)
        step(drain)
        assert len(endpoint.asked) == attempts + (not opens)
    # The retries that are due by then, too.
    deliver(moment + timedelta(seconds=PAUSE * 1.1))
    webhook.refresh_from_db()
    assert (webhook.breaker_level, webhook.breaker_until) == (0, None)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


@pytest.mark.django_db
def test_one_webhooks_breaker_does_not_concern_another(acme: Cast, endpoint: Endpoint) -> None:
    broken = make_webhook(acme, callback_url=endpoint.url + "/broken")
    well = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.filter(pk=broken.pk).update(breaker_until=now() + timedelta(hours=1), breaker_level=3)
    say(acme, 3)
    with held_at(now()):
        deliver(now())
    assert Delivery.objects.filter(webhook=well, state="delivered").count() == 3
    assert Delivery.objects.filter(webhook=broken, state="pending", attempt_count=0).count() == 3


@pytest.mark.django_db
@pytest.mark.parametrize("verbs", [(pause_webhook, resume_webhook), (disable_webhook, enable_webhook)])
def test_whoever_switches_a_webhook_on_need_not_wait_for_the_breaker(
    acme: Cast, endpoint: Endpoint, verbs: tuple[Any, Any]
) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.filter(pk=webhook.pk).update(
        breaker_until=now() + timedelta(hours=1), breaker_level=3, failing_since=now(), consecutive_failures=20
    )
    say(acme, 3)
    for verb in verbs:
        verb(webhook=webhook, actor=SYSTEM)
    assert (webhook.breaker_until, webhook.breaker_level, webhook.failing_since) == (None, 3, None)
    deliver()
    webhook.refresh_from_db()
    assert len(endpoint.asked) == 1
    assert webhook.breaker_level == 4
    assert webhook.failing_since is not None
