"""A clock that is put back by an hour stops nothing: neither loops nor leases nor deliveries wait for the old time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection

from conftest import Cast
from conversations import actions as conversation_actions
from core import loops
from core.clock import held_at, now
from webhooks.engine import dispatch
from webhooks.engine.leases import Leases, ask
from webhooks.models import Delivery, Webhook
from webhooks.stranded import settle_stranded
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
SOON = timedelta(minutes=1)


def test_a_slot_is_free() -> None:
    loops.ensure("deliveries")
    later = now() + HOUR
    with held_at(later):
        assert loops._acquire("deliveries")
        assert loops.alive("deliveries") == 1
    with held_at(later - HOUR + SOON):
        assert loops.alive("deliveries") == 0
        assert loops._acquire("deliveries")


def test_a_start_is_queued_again() -> None:
    later = now() + HOUR
    with held_at(later):
        assert loops.ensure("deliveries")
    with held_at(later - HOUR + SOON):
        assert loops.ensure("deliveries")


@pytest.mark.skipif(connection.vendor != "sqlite", reason="leases go by the server's clock")
def test_a_dead_engines_lease_ends(webhook: Webhook) -> None:
    later = now() + HOUR
    with held_at(later):
        ask(1, [webhook.pk])
    with held_at(later - HOUR + SOON):
        theirs = Leases(2)
        theirs.add(ask(theirs.token, [webhook.pk]))
        assert webhook.pk in theirs


def test_an_event_of_a_new_webhook_is_delivered(acme: Cast, endpoint: Endpoint) -> None:
    later = now() + HOUR
    with held_at(later):
        make_webhook(acme, callback_url=endpoint.url)
    with held_at(later - HOUR):
        conversation_actions.receive_message(channel=acme.channel, address="447717472699", body="x")
    deliver(later - HOUR + SOON)
    assert len(endpoint.asked) == 1


def test_what_was_due_is_sent_after_the_next_sweep(acme: Cast, endpoint: Endpoint) -> None:
    later = now() + HOUR
    make_webhook(acme, callback_url=endpoint.url)
    with held_at(later):
        conversation_actions.receive_message(channel=acme.channel, address="447717472699", body="x")
        dispatch.dispatch()
    with held_at(later - HOUR + SOON):
        assert settle_stranded() == 1
    deliver(later - HOUR + SOON)
    assert len(endpoint.asked) == 1


def test_a_retry_is_made_after_the_next_sweep(acme: Cast, endpoint: Endpoint) -> None:
    later = now() + 100 * HOUR
    make_webhook(acme, callback_url=endpoint.url)
    conversation_actions.receive_message(channel=acme.channel, address="447717472699", body="x")
    endpoint.status = 500
    deliver(later)
    endpoint.status = 200
    with held_at(later - 100 * HOUR + SOON):
        assert settle_stranded() == 1
    deliver(later - 100 * HOUR + SOON)
    assert (len(endpoint.asked), Delivery.objects.get().state) == (2, "delivered")


def test_an_open_breaker_probes_after_the_next_sweep(acme: Cast, endpoint: Endpoint) -> None:
    later = now() + HOUR
    make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.update(breaker_until=later, breaker_level=8)
    conversation_actions.receive_message(channel=acme.channel, address="447717472699", body="x")
    deliver(later - HOUR + SOON)
    assert endpoint.asked == []
    with held_at(later - HOUR + SOON):
        settle_stranded()
    deliver(later - HOUR + SOON)
    assert Delivery.objects.get().state == "delivered"


def test_a_rate_limit_begins_anew_after_the_next_sweep(acme: Cast, endpoint: Endpoint) -> None:
    later = now() + HOUR
    make_webhook(acme, callback_url=endpoint.url, rate_limit={"limit": 1, "per": "second"})
    Webhook.objects.update(last_success_at=later)
    conversation_actions.receive_message(channel=acme.channel, address="447717472699", body="x")
    with held_at(later - HOUR + SOON):
        settle_stranded()
    deliver(later - HOUR + SOON)
    assert Delivery.objects.get().state == "delivered"
