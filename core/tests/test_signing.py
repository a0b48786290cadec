"""Signatures are what Standard Webhooks receivers expect."""

from __future__ import annotations

import base64
import hmac
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given
from hypothesis import strategies as st

from core.signing import TOLERANCE, Signer, new_secret, secret_bytes, sign, verify

BODY = '{"type":"inboundMessage","body":"Grüße 😀"}'.encode()


def headers(signature: str, *, identifier: str = "msg_1", timestamp: int | str | None = None) -> dict[str, str]:
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(int(time.time()) if timestamp is None else timestamp),
        "webhook-signature": signature,
    }


def test_a_new_secret_has_32_random_bytes() -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert {len(secret_bytes(secret)) for secret in secrets} == {32}


@pytest.mark.parametrize("verifier", [standardwebhooks.Webhook, svix.webhooks.Webhook])
@pytest.mark.parametrize("body", [BODY, b"{}", b""])
def test_independent_verifiers_accept_what_is_signed(verifier: type, body: bytes) -> None:
    secret, now = new_secret(), int(time.time())
    sent = headers(sign([secret], "msg_1", now, body), timestamp=now)
    if body:
        verifier(secret).verify(body, sent)
    else:
        # The packages parse what they verified as JSON, which an empty body is not: compare the signature itself.
        assert verifier(secret).sign("msg_1", datetime.fromtimestamp(now, UTC), "") == sent["webhook-signature"]


@pytest.mark.parametrize("length", [24, 32, 63, 64])
def test_a_signature_is_what_the_hmac_module_makes(length: int) -> None:
    key = bytes(range(100, 100 + length))
    expected = hmac.digest(key, b"msg_1.17." + BODY, "sha256")
    secret = "whsec_" + base64.b64encode(key).decode()
    assert sign([secret], "msg_1", 17, BODY) == "v1," + base64.b64encode(expected).decode()


@pytest.mark.parametrize("verifier", [standardwebhooks.Webhook, svix.webhooks.Webhook])
def test_independent_verifiers_refuse_what_was_changed(verifier: type) -> None:
    secret, now = new_secret(), int(time.time())
    signature = sign([secret], "msg_1", now, BODY)
    for sent, body, key in (
        (headers(signature, timestamp=now), BODY + b" ", secret),
        (headers(signature, timestamp=now, identifier="msg_2"), BODY, secret),
        (headers(signature, timestamp=now - 1), BODY, secret),
        (headers(signature, timestamp=now), BODY, new_secret()),
    ):
        with pytest.raises(Exception, match=r"(?i)signature"):
            verifier(key).verify(body, sent)


def test_while_a_secret_rotates_receivers_with_either_accept() -> None:
    new, old, now = new_secret(), new_secret(), int(time.time())
    sent = headers(sign([new, old], "msg_1", now, BODY), timestamp=now)
    assert len(sent["webhook-signature"].split(" ")) == 2
    for secret in (new, old):
        standardwebhooks.Webhook(secret).verify(BODY, sent)
        svix.webhooks.Webhook(secret).verify(BODY, sent)
        assert verify([secret], sent, BODY, at=now).valid


def test_the_published_example_gives_the_published_signature() -> None:
    # From the specification's reference libraries' own tests.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.text(min_size=1), st.integers(0, 2**40), st.binary())
def test_one_signer_signs_many_messages_as_the_reference_does(
    key: bytes, identifier: str, timestamp: int, body: bytes
) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    signer = Signer([secret])
    for message_id in ("first", identifier):
        if message_id.isascii() and body.isascii() and timestamp < 2**37:
            reference = standardwebhooks.Webhook(secret)
            when = datetime.fromtimestamp(timestamp, UTC)
            assert signer.sign(message_id, timestamp, body) == reference.sign(message_id, when, body.decode())
        assert signer.sign(message_id, timestamp, body) == sign([secret], message_id, timestamp, body)


@pytest.mark.parametrize(
    ("secret", "rule"),
    [
        ("", "whsec_"),
        (None, "whsec_"),
        (7, "whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_"),
        ("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_"),
        ("whsec_", "24 to 64"),
        ("whsec_not base64", "base64"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "base64"),
        ("whsec_ünïcode", "base64"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "it holds 23"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "it holds 65"),
    ],
)
def test_a_secret_that_breaks_a_rule_is_refused_without_showing_it(secret: object, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        secret_bytes(secret)
    assert not secret or str(secret).removeprefix("whsec_") not in str(caught.value) or secret == "whsec_"


@pytest.mark.parametrize("length", [24, 64])
def test_secrets_of_24_to_64_bytes_are_accepted(length: int) -> None:
    assert len(secret_bytes("whsec_" + base64.b64encode(b"x" * length).decode())) == length


NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"webhook-id": ""}, "missing_header"),
        ({"webhook-timestamp": ""}, "missing_header"),
        ({"webhook-signature": ""}, "missing_header"),
        ({"webhook-timestamp": "soon"}, "bad_timestamp"),
        ({"webhook-timestamp": "1" * 5_000}, "bad_timestamp"),
        ({"webhook-timestamp": str(NOW - TOLERANCE - 1)}, "too_old"),
        ({"webhook-timestamp": str(NOW + TOLERANCE + 1)}, "too_new"),
        ({"webhook-timestamp": str(NOW - TOLERANCE)}, "no_match"),
        ({"webhook-id": "msg_2"}, "no_match"),
        ({"webhook-signature": "v1,AAAA"}, "no_match"),
        ({"webhook-signature": "v1,ünï"}, "no_match"),
        ({"webhook-signature": "v1a,AAAA"}, "bad_format"),
        ({"webhook-signature": "sha256=AAAA"}, "bad_format"),
    ],
)
def test_a_check_says_which_step_fails(change: dict[str, str], code: str) -> None:
    secret = new_secret()
    sent = headers(sign([secret], "msg_1", NOW, BODY), timestamp=NOW) | change
    result = verify([secret], sent, BODY, at=NOW)
    assert (result.valid, result.code) == (not code, code)
    assert bool(result.reason) == bool(code)


def test_a_check_finds_another_body_and_another_secret() -> None:
    secret = new_secret()
    sent = headers(sign([secret], "msg_1", NOW, BODY), timestamp=NOW)
    assert verify([secret], sent, BODY + b"\n", at=NOW).code == "no_match"
    assert verify([new_secret()], sent, BODY, at=NOW).code == "no_match"
    assert verify([new_secret(), secret], sent, BODY, at=NOW).valid


def test_without_a_time_the_age_is_not_judged() -> None:
    secret = new_secret()
    sent = headers(sign([secret], "msg_1", 1_000, BODY), timestamp=1_000)
    assert verify([secret], sent, BODY).valid
