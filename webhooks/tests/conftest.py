"""Webhooks and deliveries for the tests of this app."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models import QuerySet

from conftest import Cast
from conversations.models import Event
from core.actors import SYSTEM
from core.clock import now
from webhooks.actions import create_webhook
from webhooks.models import Attempt, Delivery, Outstanding, Webhook
from webhooks.outstanding import of
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.running import own_database

#: Where a webhook's requests go unless told otherwise; nothing answers there.
URL = "https://hooks.example.com/in"


def make_webhook(cast: Cast, **changes: Any) -> Webhook:
    """A webhook of the cast that wants inbound messages and payments."""
    values: dict[str, Any] = {
        "name": "orders",
        "callback_url": URL,
        "events": ["inboundMessage", "payment"],
        **changes,
    }
    return create_webhook(organisation=cast.organisation, actor=SYSTEM, **values)[0]


def make_delivery(cast: Cast, webhook: Webhook, **changes: Any) -> Delivery:
    """A delivery of the cast's first inbound message, pending unless told otherwise.

    Every one after the first for the same webhook is a resend: the event itself is delivered once.
    """
    event = Event.objects.filter(organisation=cast.organisation, type="inboundMessage").earliest("id")
    again = Delivery.objects.filter(webhook=webhook, event=event, kind="event").exists()
    moment = now() - timedelta(hours=1)
    values: dict[str, Any] = {
        "kind": "resend" if again else "event",
        "copy": secrets.randbits(62) if again else 0,
        "state": "pending",
        "created_at": moment,
        **changes,
    }
    due = values.pop("next_attempt_at", moment if values["state"] == "pending" else None)
    blocks = values.pop("blocks", False)
    delivery = Delivery.objects.create(
        organisation=cast.organisation,
        webhook=webhook,
        event=event,
        event_type=event.type,
        conversation_id=event.conversation_id,
        seq=event.seq,
        format=webhook.format,
        **values,
    )
    if delivery.state in ("pending", "held"):
        of(delivery, due, blocks=blocks).save(force_insert=True)
    return delivery


def make_attempt(delivery: Delivery, number: int, **changes: Any) -> Attempt:
    """An attempt of a delivery, made now unless told otherwise."""
    values: dict[str, Any] = {
        "attempted_at": now(),
        "duration_ms": 12,
        "timings": {"dns": 1, "connect": 2, "tls": 0, "firstByte": 11, "total": 12},
        **changes,
    }
    return Attempt.objects.create(organisation_id=delivery.organisation_id, delivery=delivery, number=number, **values)


def finish(deliveries: QuerySet[Delivery], **changes: Any) -> None:
    """Let deliveries have come to an end, however they did."""
    Outstanding.objects.filter(delivery__in=deliveries).delete()
    deliveries.update(**{"finished_at": now(), **changes})


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of processes that have an empty database to themselves, of the kind the tests run on."""
    with own_database(tmp_path) as found:
        yield found


@pytest.fixture
def webhook(acme: Cast) -> Webhook:
    """A webhook of acme."""
    return make_webhook(acme)


@pytest.fixture
def endpoint(settings: Any) -> Iterator[Endpoint]:
    """A customer's endpoint on this machine, which may be dialled."""
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with running_endpoint() as running:
        yield running
