"""What /metrics tells about deliveries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client

from conftest import Cast
from core.clock import now
from webhooks.engine.leases import Leases
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

pytestmark = pytest.mark.django_db


def told(client: Client) -> dict[str, float]:
    """Figures by name with labels."""
    lines = client.get("/metrics").content.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(("webio_deliveries", "webio_attempt")))
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
