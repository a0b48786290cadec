"""One request to a webhook outside the engine's stream, with the headers the engine would send."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from core.clock import now
from core.outbound import Outcome, Request, fetch, header_line, no_answer
from core.signing import Signer
from core.trace import current_trace, new_traceparent
from webhooks.endpoint_auth import Authentication, Tokens, authentication_of
from webhooks.engine.outgoing import fixed_headers, signed_headers, signing_secrets, tokens
from webhooks.models import Webhook

#: Marks what no real event caused.
TEST_HEADER = ("x-webio-test", "true")


def single_request(
    webhook: Webhook,
    method: str,
    url: str,
    body: bytes = b"",
    *,
    identifier: str,
    deadline: float,
    extra: Sequence[tuple[str, str]] = (),
) -> Request:
    """A request to `url` signed now for `webhook`, for `send_single`, of the trace of the code that is running.

    `identifier` is its `webhook-id`, `deadline` is seconds.
    """
    token = tokens([webhook.organisation_id]).get(webhook.organisation_id, "")
    signer = Signer(signing_secrets(webhook))
    headers = [
        *fixed_headers(webhook, token),
        *signed_headers(signer, identifier, body, int(now().timestamp())),
        *(header_line(*pair) for pair in extra),
    ]
    if trace := current_trace():
        headers.append(f"traceparent: {new_traceparent(trace)}")
    return Request(method, url, headers, body, deadline)


_tokens = Tokens()


def send_single(webhook: Webhook, request: Request) -> Outcome:
    """Make the request with what the webhook's kind of authentication adds to it.

    Blocks up to its deadline, which covers a token that has to be asked for, and a new one with a second try after a
    401.
    """
    ends_at = time.monotonic() + request.deadline
    request = replace(request, certificate=webhook.client_certificate)
    authentication = authentication_of(webhook)
    outcome = _send(request, authentication, ends_at)
    if outcome.status == 401 and authentication.asks is not None:
        _tokens.drop(authentication)
        outcome = _send(request, authentication, ends_at)
    return outcome


def _send(request: Request, authentication: Authentication, ends_at: float) -> Outcome:
    line, asks = _tokens.line(authentication), authentication.asks
    if line is None and asks is not None:
        answer = fetch(replace(asks, deadline=min(asks.deadline, _left(ends_at))))
        line = _tokens.line(authentication) if _tokens.take(authentication, answer) else None
    if line is None:
        return no_answer("auth")
    headers = [*request.headers, line] if line else request.headers
    return fetch(replace(request, headers=headers, deadline=_left(ends_at)))


def _left(ends_at: float) -> float:
    """Seconds until then, and libcurl's least when they are over."""
    return max(0.001, ends_at - time.monotonic())


def header_pairs(request: Request) -> list[tuple[str, str]]:
    """(name, value) of each header line of `request`, in order."""
    pairs = []
    for line in request.headers:
        name, _colon, value = line.partition(": ")
        pairs.append((name, value))
    return pairs
