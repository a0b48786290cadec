"""One request to a webhook outside the engine's stream, with the headers the engine would send."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from core.clock import now
from core.outbound import Outcome, Request, fetch, header_line, no_answer
from core.signing import Signer
from webhooks.endpoint_auth import authorization_now
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
    """A request to `url` signed now for `webhook`, for `send_single`.

    `identifier` is its `webhook-id`, `deadline` is seconds.
    """
    token = tokens([webhook.organisation_id]).get(webhook.organisation_id, "")
    signer = Signer(signing_secrets(webhook))
    headers = [
        *fixed_headers(webhook, token),
        *signed_headers(signer, identifier, body, int(now().timestamp())),
        *(header_line(*pair) for pair in extra),
    ]
    return Request(method, url, headers, body, deadline)


def send_single(webhook: Webhook, request: Request) -> Outcome:
    """Make the request with what the webhook's kind of authentication adds to it. Blocks up to its deadline."""
    began = time.monotonic()
    outcome = no_answer("auth")
    for anew in (False, True):
        line = authorization_now(webhook, anew=anew)
        if line is None:
            return no_answer("auth")
        headers = [*request.headers, line] if line else request.headers
        left = max(0.1, request.deadline - (time.monotonic() - began))
        outcome = fetch(replace(request, headers=headers, deadline=left, certificate=webhook.client_certificate))
        if outcome.status != 401 or webhook.auth_kind != Webhook.Auth.OAUTH2:
            break
    return outcome


def header_pairs(request: Request) -> list[tuple[str, str]]:
    """(name, value) of each header line of `request`, in order."""
    pairs = []
    for line in request.headers:
        name, _colon, value = line.partition(": ")
        pairs.append((name, value))
    return pairs
