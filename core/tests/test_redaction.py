"""Secrets do not show in what people and logs see."""

from __future__ import annotations

import logging
import time

import pytest

from core.logs import ContextFilter
from core.redaction import redact
from core.signing import new_secret
from organisations.keys import new_key

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ3ZWJpbyJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
HIDDEN = "c2VjcmV0dmFsdWU"


def test_an_api_key_keeps_its_prefix_and_loses_its_secret() -> None:
    key, prefix, _hash = new_key()
    assert redact(f"key {key} was used") == f"key wk_live_{prefix}_… was used"


def test_signing_secrets_and_tokens_are_masked_wherever_they_stand() -> None:
    secret = new_secret()
    assert redact(f"signed with {secret}.") == "signed with whsec_…."
    assert redact(f"sent {JWT}, then") == "sent eyJ…, then"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {HIDDEN}",
        f"authorization: Basic {HIDDEN}==, more {HIDDEN}",
        f"POST /hook\r\nX-Webio-Token: {HIDDEN}\r\nhost: example.com",
        f"webhook-signature: v1,{HIDDEN} v1,{HIDDEN}",
        f"Cookie: sessionid={HIDDEN}; csrftoken={HIDDEN}",
        f"Set-Cookie: sessionid={HIDDEN}; HttpOnly",
        f"Proxy-Authorization: {HIDDEN}",
        f"X-API-Key: {HIDDEN}",
        f'{{"password": "{HIDDEN}", "name": "Ann"}}',
        f'{{"secretKey":"{HIDDEN}"}}',
        f"{{'Authorization': 'Bearer {HIDDEN}'}}",
        f"[('authorization', 'Bearer {HIDDEN}'), ('host', 'x')]",
        f"[(b'x', 1)] {{'token': b'{HIDDEN}'}}",
        f'{{"secret": "a\\"{HIDDEN}"}}',
        f"/callback?token={HIDDEN}&state=1",
        f"https://example.com/?api_key={HIDDEN}",
        f"password={HIDDEN}",
        f"postgres://webio:{HIDDEN}@db/webio",
        f"redis://:{HIDDEN}@cache:6379/0",
    ],
)
def test_values_of_secret_names_are_masked(text: str) -> None:
    redacted = redact(text)
    assert HIDDEN not in redacted
    assert "…" in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GET /o/acme/integrations/ 200",
        "The token was rotated.",
        "authorization is required",
        "mail to ann@example.com: see https://example.com/a@b",
        "delivery 17 to https://hooks.example.com/in?x=1 answered 500",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_links_that_let_somebody_in_are_masked() -> None:
    assert redact("GET /join/Ab3-dE_f/ 200") == "GET /join/…/ 200"
    assert redact("/accounts/password/reset/key/3-c9s7x/?next=/") == "/accounts/password/reset/key/…/?next=/"


def test_what_surrounds_a_secret_stays() -> None:
    assert (
        redact(f"a\r\nAuthorization: x\r\nhost: y /?token={HIDDEN}&b=1")
        == "a\r\nAuthorization: …\r\nhost: y /?token=…&b=1"
    )


def test_log_records_are_cleaned_with_their_arguments() -> None:
    key, prefix, _hash = new_key()
    record = logging.LogRecord("webio", logging.INFO, __file__, 1, "used %s by %s", (key, "Ann"), None)
    assert ContextFilter().filter(record)
    assert record.getMessage() == f"used wk_live_{prefix}_… by Ann"


@pytest.mark.parametrize(
    "text", ["'token': '" + "\\" * 50_000, "password=" * 20_000, "://" * 30_000 + "@", "eyJ." * 30_000]
)
def test_long_texts_take_little_time(text: str) -> None:
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 1.0
