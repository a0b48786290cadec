"""The request of a delivery as it is sent, for people to read."""

from __future__ import annotations

import json
from dataclasses import dataclass

from webhooks.custom_headers import headers_of
from webhooks.engine.outgoing import DEADLINE
from webhooks.models import Delivery
from webhooks.panel.curl import mask_headers
from webhooks.payloads import message_id, render
from webhooks.single import header_pairs, single_request


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """A POST with its secrets masked; `body` is what goes over the wire, `pretty` the same with line breaks."""

    url: str
    message_id: str
    headers: list[tuple[str, str]]
    body: str
    pretty: str


def pretty_json(body: str) -> str:
    """JSON with line breaks and indentation; anything else unchanged."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body


def request_of(delivery: Delivery) -> ShownRequest:
    """What `delivery` sends, built as the engine builds it. The timestamp and signature are made anew at each try."""
    webhook = delivery.webhook
    body = render(delivery.event, delivery.format, delivery.format_version)
    identifier = message_id(delivery.event_id, delivery.webhook_id)
    request = single_request(webhook, "POST", webhook.callback_url, body, identifier=identifier, deadline=DEADLINE)
    text = body.decode()
    return ShownRequest(
        url=request.url,
        message_id=identifier,
        headers=mask_headers(header_pairs(request), headers_of(webhook)),
        body=text,
        pretty=pretty_json(text),
    )
