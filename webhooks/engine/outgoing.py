"""From a due delivery to the request that is sent: body, headers, signature."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from django.db.models import Max

from core.clock import now
from core.outbound import Request, header_line, together
from core.signing import Signer
from core.trace import new_traceparent
from organisations.models import WebioToken
from webhooks.custom_headers import headers_of
from webhooks.endpoint_auth import Authentication, authentication_of
from webhooks.engine import sql
from webhooks.engine.breaker import Health
from webhooks.engine.due import Due
from webhooks.models import Webhook
from webhooks.payloads import message_id

log = logging.getLogger("webio.deliveries")

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
    #: Lines that are the same on every request, together.
    headers: str
    authentication: Authentication = field(default_factory=Authentication)
    certificate: str = ""


def signing_secrets(webhook: Webhook) -> list[str]:
    """The secrets in force: the present one, and the one before it while a rotation lasts."""
    return [webhook.secret] if webhook.overlap_until is None else [webhook.secret, webhook.previous_secret]


def fixed_headers(webhook: Webhook, token: str) -> list[str]:
    """Header lines that are the same on every request to a webhook. `token` is the x-webio-token, "" for none.

    The content-type comes first (`together`).
    """
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
    return {owner: row.token for owner, row in _tokens(organisation_ids).items()}


def _tokens(organisation_ids: Iterable[int]) -> dict[int, WebioToken]:
    """The same, still sealed."""
    newest = WebioToken.objects.filter(organisation_id__in=set(organisation_ids)).values("organisation_id")
    rows = WebioToken.objects.filter(pk__in=newest.annotate(newest=Max("id")).values("newest"))
    return {row.organisation_id: row for row in rows}


#: What an endpoint is made of: all that a webhook's row holds but for what engines write with outcomes.
_WRITTEN = {one.name for one in fields(Health)} | {"last_success_at", "last_failure_at", "failing_told"}
_SETTINGS = ", ".join(
    f"webhook.{one.column}" for one in Webhook._meta.concrete_fields if one.name not in _WRITTEN and not one.primary_key
)
_VERSIONS = f"""
SELECT webhook.id, {_SETTINGS}, webhook.previous_secret_expires_at > %s, organisation.suspended_at,
       (SELECT MAX(token.id) FROM {{token}} AS token WHERE token.organisation_id = webhook.organisation_id)
FROM {{webhook}} AS webhook JOIN {{organisation}} AS organisation ON organisation.id = webhook.organisation_id
WHERE {{chosen}}
"""


@dataclass(slots=True)
class _Known:
    """An endpoint, the columns it was made of, and when these were last looked at, by `time.monotonic`."""

    endpoint: Endpoint | None
    version: tuple[Any, ...]
    looked_at: float


class Directory:
    """Endpoints by webhook: looked at again when older than a moment, made anew when something in them has changed."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def endpoints(self, webhook_ids: Iterable[int]) -> dict[int, Endpoint | None]:
        """The endpoint of each webhook, None where it cannot be made."""
        wanted = set(webhook_ids)
        if not wanted:
            return {}
        moment = time.monotonic()
        known = self._known
        stale = {pk for pk in wanted if pk not in known or moment - known[pk].looked_at >= SETTINGS_SECONDS}
        if stale:
            statement = _VERSIONS.replace("{chosen}", sql.among("webhook.id"))
            rows = sql.run(statement, [sql.moment(now()), sql.numbers(stale)])
            versions = {row[0]: row for row in rows}
            changed = [pk for pk, row in versions.items() if pk not in known or known[pk].version != row]
            for pk, endpoint in _read(changed).items() if changed else ():
                known[pk] = _Known(endpoint, versions[pk], moment)
            for pk in versions:
                known[pk].looked_at = moment
        return {pk: known[pk].endpoint for pk in wanted}

    def forget(self, webhook_ids: Iterable[int]) -> None:
        """Look at the settings of these anew before they are asked for."""
        for pk in webhook_ids:
            self._known.pop(pk, None)


def _read(webhook_ids: Collection[int]) -> dict[int, Endpoint | None]:
    """The endpoints of webhooks as they are now; None where one cannot be made, as of secrets sealed with a key that
    this process does not have: those of others can."""
    webhooks = list(Webhook.objects.select_related("organisation").filter(pk__in=webhook_ids))
    known = _tokens(webhook.organisation_id for webhook in webhooks)
    found: dict[int, Endpoint | None] = {}
    for webhook in webhooks:
        try:
            found[webhook.pk] = _endpoint(webhook, known.get(webhook.organisation_id))
        except Exception:
            log.exception("a webhook's settings cannot be read", extra={"facts": {"webhook": webhook.pk}})
            found[webhook.pk] = None
    return found


def _endpoint(webhook: Webhook, token: WebioToken | None) -> Endpoint:
    return Endpoint(
        webhook_id=webhook.pk,
        url=webhook.callback_url,
        strict=webhook.ordering == Webhook.Ordering.STRICT,
        active=webhook.state == Webhook.State.ACTIVE and not webhook.organisation.suspended,
        signer=Signer(signing_secrets(webhook)),
        headers=together(fixed_headers(webhook, token.token if token is not None else "")),
        authentication=authentication_of(webhook),
        certificate=webhook.client_certificate,
    )


def build(delivery: Due, endpoint: Endpoint) -> Request:
    """The request of one attempt, signed now, but for its authorization.

    Raises `BodyTooLarge`, and `ValueError` when there is no body.
    """
    body = delivery.body
    if body is None:
        raise ValueError("Its body could not be made.")
    if len(body) > BODY_MAX:
        raise BodyTooLarge
    identifier = message_id(delivery.event_id, delivery.webhook_id)
    own = signed_headers(endpoint.signer, identifier, body, int(time.time()))
    if delivery.trace:
        own.append(f"traceparent: {new_traceparent(delivery.trace)}")
    headers = [endpoint.headers, together(own)]
    return Request("POST", endpoint.url, headers, body, DEADLINE, certificate=endpoint.certificate)
