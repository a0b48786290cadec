"""Prometheus hears what is due, held and failing."""

from __future__ import annotations

from datetime import timedelta

from django.test import Client

from conftest import Cast
from conversations.models import Event
from core.clock import now
from webhooks.models import Delivery, Webhook


def gauge(client: Client, name: str) -> float:
    """The value of a gauge in the answer of /metrics."""
    lines = client.get("/metrics").content.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def make(cast: Cast, webhook: Webhook, event: Event, **values: object) -> Delivery:
    """A delivery in some state."""
    return Delivery.objects.create(
        organisation=cast.organisation,
        webhook=webhook,
        event=event,
        kind="resend",
        event_type=event.type,
        format="webio",
        **values,
    )


def test_gauges_follow_the_rows(client: Client, acme: Cast) -> None:
    event = Event.objects.filter(organisation=acme.organisation).order_by("id")[0]
    webhook = Webhook.objects.create(
        organisation=acme.organisation,
        name="w",
        callback_url="https://example.com",
        secret="whsec_x",
    )
    moment = now()
    make(acme, webhook, event, next_attempt_at=moment - timedelta(seconds=90))
    make(acme, webhook, event, next_attempt_at=moment + timedelta(hours=1))
    make(acme, webhook, event, next_attempt_at=moment + timedelta(seconds=30), lease_token=7)
    make(acme, webhook, event, state="held")
    assert gauge(client, "webio_deliveries_due") == 1
    assert 90 <= gauge(client, "webio_deliveries_oldest_due_seconds") < 120
    assert gauge(client, "webio_deliveries_in_flight") == 1
    assert gauge(client, "webio_deliveries_held") == 1
