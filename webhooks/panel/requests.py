"""The request of a delivery as it is sent, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from core.trace import new_traceparent
from webhooks.custom_headers import headers_of
from webhooks.engine.outgoing import DEADLINE
from webhooks.models import Delivery, Webhook
from webhooks.panel.curl import MASK, mask_headers
from webhooks.payloads import message_id, render
from webhooks.single import header_pairs, single_request

#: What the authorization of each kind begins with.
SCHEMES = {Webhook.Auth.BASIC: "Basic", Webhook.Auth.BEARER: "Bearer", Webhook.Auth.OAUTH2: "Bearer"}


@dataclass(frozen=True, slots=True)
class ShownRequest:
    """A POST with its secrets masked; `body` is what goes over the wire, `pretty` the same with line breaks."""

    url: str
    message_id: str
    headers: list[tuple[str, str]]
    body: str
    pretty: str
    client_certificate: bool


def pretty_json(body: str) -> str:
    """JSON with line breaks and indentation; anything else unchanged."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body


def shown_headers(webhook: Webhook, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A request's headers and its authorization; proofs and the customer's own values are masked."""
    shown = mask_headers(headers, headers_of(webhook))
    if webhook.auth_kind != Webhook.Auth.NONE:
        shown.append(("authorization", f"{SCHEMES[Webhook.Auth(webhook.auth_kind)]} {MASK}"))
    return shown


def request_of(delivery: Delivery) -> ShownRequest:
    """What `delivery` sends, built as the engine builds it from the webhook as it is now.

    The timestamp, the signature and the parent id of a trace are made anew at each try.
    """
    webhook = delivery.webhook
    trace = delivery.event.data.get("trace")
    body = render(delivery.event, delivery.format, delivery.format_version)
    identifier = message_id(delivery.event_id, delivery.webhook_id)
    request = single_request(
        webhook,
        "POST",
        webhook.callback_url,
        body,
        identifier=identifier,
        deadline=DEADLINE,
        extra=[("traceparent", new_traceparent(trace))] if trace else [],
    )
    text = body.decode()
    return ShownRequest(
        url=request.url,
        message_id=identifier,
        headers=shown_headers(webhook, header_pairs(request)),
        body=text,
        pretty=pretty_json(text),
        client_certificate=bool(webhook.client_certificate),
    )
