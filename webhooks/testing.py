"""Try a webhook: one real request at once, built and sent as the engine would, and everything that came back."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from django.utils.translation import gettext as _

from conversations.events import EVENT_TYPES
from core import outbound
from core.actors import Actor
from core.clock import now
from core.errors import Conflict, Invalid
from organisations.audit import record_audit
from webhooks import custom_values
from webhooks.engine.outgoing import DEADLINE
from webhooks.models import Webhook
from webhooks.payloads import render
from webhooks.samples import sample_event
from webhooks.single import TEST_HEADER, header_pairs, send_single, single_request

#: The test that is no event.
CUSTOM_VALUE = "customValue"


@dataclass(frozen=True, slots=True)
class Result:
    """What was sent and what came back. `status_code` is None when no answer came; then `error` says which step failed.

    `error` is a class of `core.outbound.ERRORS`, `error_detail` its sentence. `values` and `missing` are of a custom
    value request, `problem` says what was wrong with its answer.
    """

    method: str
    request_url: str
    request_headers: list[tuple[str, str]]
    request_body: str
    status_code: int | None
    duration_ms: int
    timings: dict[str, int]
    response_headers: list[tuple[str, str]]
    response_body: str
    response_truncated: bool
    error: str
    error_detail: str
    values: dict[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    problem: str = ""

    @property
    def accepted(self) -> bool:
        """A delivery like this would count as delivered: a whole 2xx answer in time."""
        return not self.error and self.status_code is not None and 200 <= self.status_code < 300


def try_webhook(
    *,
    webhook: Webhook,
    actor: Actor,
    event: str,
    fields: Sequence[str] | None = None,
    customer_uid: str = "",
    address: str = "",
) -> Result:
    """Send a sample of `event` to `webhook` now, or ask it for `fields` when `event` is "customValue".

    Works for paused and disabled webhooks too; nothing is retried, logged or held. Blocks up to the deadline, so it
    must not run inside a transaction. Raises `Invalid` for an unknown event or bad field names, `Conflict`
    `webhook_archived` and `custom_values_not_served`.
    """
    if webhook.archived_at is not None:
        raise Conflict("webhook_archived", _("The webhook has been deleted."))
    if event == CUSTOM_VALUE:
        if not webhook.custom_values:
            raise Conflict("custom_values_not_served", _("The webhook does not serve custom values."))
        asked = custom_values.clean_fields("fields", list(fields) if fields is not None else None)
        result = _ask(webhook, asked, customer_uid, address)
    elif event in EVENT_TYPES:
        result = _send(webhook, event)
    else:
        choices = ", ".join([*EVENT_TYPES, CUSTOM_VALUE])
        raise Invalid.field("event", _("Must be one of: %(choices)s.") % {"choices": choices})
    facts = {"event": event, "statusCode": result.status_code, "error": result.error}
    record_audit(actor, "webhook.test", webhook, data=facts)
    return result


def _send(webhook: Webhook, name: str) -> Result:
    body = render(sample_event(webhook.organisation, name, now()), webhook.format)
    identifier = f"msg_test_{uuid.uuid4().hex}"
    request = single_request(
        webhook, "POST", webhook.callback_url, body, identifier=identifier, deadline=DEADLINE, extra=[TEST_HEADER]
    )
    return _result(request, send_single(webhook, request))


def _ask(webhook: Webhook, fields: list[str], customer_uid: str, address: str) -> Result:
    lookup = custom_values.ask(webhook, fields=fields, customer_uid=customer_uid, address=address, extra=[TEST_HEADER])
    answer = lookup.answer
    return replace(
        _result(lookup.request, lookup.outcome),
        values=dict(answer.values),
        missing=answer.missing,
        problem=answer.problem,
    )


def _result(request: outbound.Request, outcome: outbound.Outcome) -> Result:
    return Result(
        method=request.method,
        request_url=request.url,
        request_headers=header_pairs(request),
        request_body=request.body.decode(),
        status_code=outcome.status,
        duration_ms=outcome.duration_ms,
        timings=outcome.timings,
        response_headers=list(outcome.headers),
        response_body=outcome.body.decode("utf-8", "replace"),
        response_truncated=outcome.truncated,
        error=outcome.error,
        error_detail=outcome.detail,
    )
