"""What /metrics tells about deliveries."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from django.test import Client

from conftest import Cast
from conversations.models import Event
from core import loops
from core.clock import held_at, now
from core.models import Slot
from webhooks.engine.leases import Leases
from webhooks.signals import LOOP
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

PREFIXES = ("webio_deliveries", "webio_attempt", "webio_events", "webio_loop")

pytestmark = pytest.mark.django_db


def told(client: Client) -> dict[str, float]:
    """Figures by name with labels."""
    lines = client.get("/metrics").content.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(PREFIXES))
    return {name: float(value) for name, value in pairs}


def test_waiting_and_held_deliveries_and_served_webhooks_are_counted(acme: Cast, client: Client) -> None:
    webhook = make_webhook(acme)
    make_delivery(acme, webhook)
    make_delivery(acme, webhook, next_attempt_at=now() + timedelta(hours=1))
    Leases(7).take([webhook.pk])
    make_delivery(acme, webhook, state="held")
    figures = told(client)
    assert figures["webio_deliveries_due"] == 1
    assert figures["webio_deliveries_oldest_due_seconds"] >= 3600
    assert figures["webio_deliveries_served_webhooks"] == 1
    assert figures["webio_deliveries_held"] == 1


def test_attempts_of_the_last_minute_are_counted_by_outcome(acme: Cast, client: Client, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    make_delivery(acme, webhook)
    deliver()
    figures = told(client)
    assert figures['webio_attempts_last_minute{outcome="delivered"}'] == 1
    assert figures['webio_attempts_last_minute{outcome="failed"}'] == 0


def test_without_an_engine_the_waiting_events_and_the_silence_show_it(acme: Cast, client: Client) -> None:
    recorded = Event.objects.filter(position=None).count()
    assert recorded > 0
    assert told(client)['webio_loop_silent_seconds{loop="deliveries"}'] == math.inf
    loops.ensure(LOOP)
    Slot.objects.update(lease_until=now())
    with held_at(now() + timedelta(minutes=10)):
        figures = told(client)
    assert figures["webio_events_waiting"] == recorded
    assert 600 <= figures["webio_events_oldest_waiting_seconds"] < 700
    assert 600 <= figures['webio_loop_silent_seconds{loop="deliveries"}'] < 700
    assert figures["webio_deliveries_oldest_due_seconds"] == 0
    # One is at work.
    deliver()
    Slot.objects.update(lease_until=now() + timedelta(seconds=10))
    figures = told(client)
    assert figures["webio_events_waiting"] == figures["webio_events_oldest_waiting_seconds"] == 0
    assert figures['webio_loop_silent_seconds{loop="deliveries"}'] == 0
