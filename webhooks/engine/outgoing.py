"""From a due delivery to the request that is sent: body, headers, signature."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.db.models import Max

from core.outbound import Request, header_line
from core.signing import Signer
from core.trace import new_traceparent
from organisations.models import WebioToken
from webhooks.custom_headers import headers_of
from webhooks.endpoint_auth import Authentication, authentication_of
from webhooks.engine.due import Due
from webhooks.models import Webhook
from webhooks.payloads import message_id, render

USER_AGENT = "Webio/1.0 (+webhooks)"
#: Seconds for the whole request.
DEADLINE = 15.0
#: A webhook's settings and an organisation's token are read again after this many seconds.
SETTINGS_SECONDS = 0.5
#: Bytes of a body at most.
BODY_MAX = 256 * 1024


class BodyTooLarge(Exception):
    """An event whose body no receiver has to take."""


@dataclass(slots=True)
class Endpoint:
    """What sending to one webhook takes, read and decrypted once."""

    webhook_id: int
    url: str
    strict: bool
    #: Something may be sent to it at all.
    active: bool
    signer: Signer
    headers: list[str]
    authentication: Authentication = field(default_factory=Authentication)
    certificate: str = ""


def signing_secrets(webhook: Webhook) -> list[str]:
    """The secrets in force: the present one, and the one before it while a rotation lasts."""
    return [webhook.secret] if webhook.overlap_until is None else [webhook.secret, webhook.previous_secret]


def fixed_headers(webhook: Webhook, token: str) -> list[str]:
    """Header lines that are the same on every request to a webhook. `token` is the x-webio-token, "" for none."""
    lines = [header_line("content-type", "application/json"), header_line("user-agent", USER_AGENT)]
    if token:
        lines.append(header_line("x-webio-token", token))
    return lines + [header_line(name, value) for name, value in headers_of(webhook).items()]


def signed_headers(signer: Signer, identifier: str, body: bytes, timestamp: int) -> list[str]:
    """The three headers of Standard Webhooks."""
    return [
        f"webhook-id: {identifier}",
        f"webhook-timestamp: {timestamp}",
        f"webhook-signature: {signer.sign(identifier, timestamp, body)}",
    ]


def tokens(organisation_ids: Iterable[int]) -> dict[int, str]:
    """The newest x-webio-token of each organisation that has one."""
    newest = WebioToken.objects.filter(organisation_id__in=set(organisation_ids)).values("organisation_id")
    rows = WebioToken.objects.filter(pk__in=newest.annotate(newest=Max("id")).values("newest"))
    return {row.organisation_id: row.token for row in rows}


class Directory:
    """Endpoints by webhook, read again when they are older than a moment."""

    def __init__(self) -> None:
        self._endpoints: dict[int, tuple[float, Endpoint]] = {}

    def endpoints(self, webhook_ids: Iterable[int]) -> dict[int, Endpoint]:
        """The endpoint of each webhook."""
        wanted = set(webhook_ids)
        if not wanted:
            return {}
        moment = time.monotonic()
        stale = {
            pk for pk in wanted if pk not in self._endpoints or moment - self._endpoints[pk][0] >= SETTINGS_SECONDS
        }
        if stale:
            webhooks = list(Webhook.objects.select_related("organisation").filter(pk__in=stale))
            known = tokens(webhook.organisation_id for webhook in webhooks)
            for webhook in webhooks:
                endpoint = Endpoint(
                    webhook_id=webhook.pk,
                    url=webhook.callback_url,
                    strict=webhook.ordering == Webhook.Ordering.STRICT,
                    active=webhook.state == Webhook.State.ACTIVE and not webhook.organisation.suspended,
                    signer=Signer(signing_secrets(webhook)),
                    headers=fixed_headers(webhook, known.get(webhook.organisation_id, "")),
                    authentication=authentication_of(webhook),
                    certificate=webhook.client_certificate,
                )
                self._endpoints[webhook.pk] = (moment, endpoint)
        return {pk: self._endpoints[pk][1] for pk in wanted}


def build(delivery: Due, endpoint: Endpoint) -> Request:
    """The request of one attempt, signed now, but for its authorization. Raises `BodyTooLarge`."""
    body = render(delivery.event, delivery.format, delivery.format_version)
    if len(body) > BODY_MAX:
        raise BodyTooLarge
    identifier = message_id(delivery.event_id, delivery.webhook_id)
    headers = endpoint.headers + signed_headers(endpoint.signer, identifier, body, int(time.time()))
    if trace := delivery.event.data.get("trace"):
        headers.append(f"traceparent: {new_traceparent(trace)}")
    return Request("POST", endpoint.url, headers, body, DEADLINE, certificate=endpoint.certificate)
