"""The design everybody starts with: one task per delivery, `requests`, the outcome saved row by row."""

from __future__ import annotations

import time

import requests

from core.clock import now
from core.signing import Signer
from webhooks.engine.outgoing import fixed_headers, signed_headers
from webhooks.models import Attempt, Delivery
from webhooks.payloads import message_id, render


def prepared(delivery: Delivery) -> tuple[list[str], bytes]:
    """The header lines and the body that the engine would post."""
    body = render(delivery.event, delivery.format)
    identifier = message_id(delivery.event_id, delivery.webhook_id)
    signed = signed_headers(Signer([delivery.webhook.secret]), identifier, body, int(time.time()))
    return fixed_headers(delivery.webhook, "") + signed, body


def deliver(delivery_id: int, url: str) -> int:
    """Send one delivery and write its attempt down. Returns the status."""
    delivery = Delivery.objects.select_related("event", "webhook").get(pk=delivery_id)
    lines, body = prepared(delivery)
    headers = dict(line.split(": ", 1) for line in lines)
    began = now()
    answer = requests.post(url, data=body, headers=headers, timeout=15)
    Attempt.objects.create(
        organisation_id=delivery.organisation_id,
        delivery=delivery,
        number=1,
        attempted_at=began,
        status_code=answer.status_code,
        duration_ms=int(answer.elapsed.total_seconds() * 1000),
    )
    delivery.state = Delivery.State.DELIVERED
    delivery.finished_at = now()
    delivery.save(update_fields=["state", "finished_at"])
    return answer.status_code
