"""POST /token: verified as a receiver would, carried by the next request to an endpoint, never written to a log."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from django.db import connection
from django.test import Client

from conftest import Cast
from conversations.actions import receive_message
from core.clock import now
from core.logs import JsonFormatter, TextFormatter
from organisations.models import AuditEntry, IdempotencyKey, Organisation, WebioToken
from organisations.tests.calls import call, with_scopes
from webhooks.tests.conftest import endpoint, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

__all__ = ["endpoint"]

SECRET = "a secret key of the customer's: ünïcödé"


def ask(client: Client, cast: Cast, secret: Any = SECRET, headers: dict[str, str] | None = None, **more: Any) -> Any:
    """The answer to a call for a token of the cast's organisation."""
    body = {"organisationId": str(cast.organisation.pk), "secretKey": secret, **more}
    return call(client, cast, "POST", "token", body, headers)


def made(client: Client, cast: Cast, secret: str = SECRET) -> str:
    """A new token."""
    answer = ask(client, cast, secret)
    assert answer.status_code == 201, answer.content
    token: str = answer.json()["token"]
    return token


def state() -> dict[str, Any]:
    """Every row that the call can write."""
    models = (WebioToken, AuditEntry, IdempotencyKey)
    return {model.__name__: list(model._base_manager.order_by("pk").values()) for model in models}


def assert_refused(answer: Any, *fields: str) -> None:
    """400, naming exactly `fields`."""
    assert answer.status_code == 400, answer.content
    assert set(answer.json()["errors"]) == set(fields)


def test_a_receiver_verifies_it_with_the_secret_key(client: Client, acme: Cast) -> None:
    answer = ask(client, acme)
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    found = answer.json()
    assert set(found) == {"token", "createdAt", "organisationId"}
    assert found["organisationId"] == str(acme.organisation.pk)
    created = datetime.fromisoformat(found["createdAt"])
    assert found["createdAt"].endswith("Z")
    assert abs(now() - created) < timedelta(minutes=1)
    claims = jwt.decode(
        found["token"],
        SECRET,
        algorithms=["HS256"],
        issuer="webio",
        options={"require": ["iss", "sub", "iat", "jti", "kid"]},
    )
    jti = claims.pop("jti")
    assert claims == {
        "iss": "webio",
        "sub": str(acme.organisation.pk),
        "iat": int(created.timestamp()),
        "kid": acme.api_key.prefix,
    }
    assert isinstance(jti, str)
    assert jti
    assert jwt.get_unverified_header(found["token"]) == {"alg": "HS256", "typ": "JWT"}


def test_neither_key_nor_secret_is_in_it(client: Client, acme: Cast) -> None:
    token = made(client, acme)
    told = str(jwt.decode(token, options={"verify_signature": False}))
    assert acme.key.rsplit("_", 1)[1] not in told
    assert SECRET not in told


def test_another_secret_key_or_a_changed_token_does_not_verify(client: Client, acme: Cast) -> None:
    token = made(client, acme)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, SECRET + "x", algorithms=["HS256"])
    head, _payload, signature = token.split(".")
    other = made(client, acme).split(".")[1]
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(f"{head}.{other}.{signature}", SECRET, algorithms=["HS256"])


def test_every_call_makes_a_token_of_its_own(client: Client, acme: Cast) -> None:
    assert len({made(client, acme) for _ in range(3)}) == 3


def test_a_repeated_call_with_the_same_idempotency_key_makes_one(client: Client, acme: Cast) -> None:
    headers = {**acme.auth, "Idempotency-Key": "token"}
    first, second = (ask(client, acme, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert WebioToken.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT answer FROM organisations_idempotencykey")
        assert first.json()["token"] not in str(cursor.fetchall())


@pytest.mark.parametrize(
    ("secret", "length"), [("k" * 31, 31), ("ü" * 15 + "k", 31), ("😀" * 7 + "kkk", 31), ("k", 1), ("ü" * 15, 30)]
)
def test_a_secret_key_under_32_bytes_is_refused(client: Client, acme: Cast, secret: str, length: int) -> None:
    before = state()
    answer = ask(client, acme, secret)
    assert_refused(answer, "secretKey")
    assert f"it has {length}" in answer.json()["errors"]["secretKey"][0]
    assert state() == before


@pytest.mark.parametrize("secret", ["k" * 32, "ü" * 16, "k" * 30 + "ü", "😀" * 8, "k" * 1000])
def test_bytes_are_counted_not_characters(client: Client, acme: Cast, secret: str) -> None:
    assert jwt.decode(made(client, acme, secret), secret, algorithms=["HS256"])


@pytest.mark.parametrize("secret", [None, "", 1, 12345678901234567890123456789012, True, ["k" * 32], {}, "k" * 1001])
def test_a_secret_key_that_is_no_text_or_too_long_is_refused(client: Client, acme: Cast, secret: Any) -> None:
    before = state()
    assert_refused(ask(client, acme, secret), "secretKey")
    assert state() == before


def test_another_organisations_id_is_refused_as_any_other(client: Client, acme: Cast, globex: Cast) -> None:
    before = state()
    foreign, absent = (ask(client, acme, organisationId=pk) for pk in (str(globex.organisation.pk), "999999"))
    assert_refused(foreign, "organisationId")
    assert foreign.json() == absent.json()
    assert state() == before


def test_a_parents_key_makes_none_for_its_child(client: Client, acme: Cast, globex: Cast) -> None:
    Organisation.objects.filter(pk=globex.organisation.pk).update(parent=acme.organisation)
    before = state()
    assert_refused(ask(client, acme, organisationId=str(globex.organisation.pk)), "organisationId")
    assert state() == before


@pytest.mark.parametrize("pk", [1, None, "", "x", "0", "-1", ["1"], True, "acme"])
def test_an_organisation_id_that_is_no_id_is_refused(client: Client, acme: Cast, pk: Any) -> None:
    before = state()
    assert_refused(ask(client, acme, organisationId=pk), "organisationId")
    assert state() == before


def test_both_fields_are_needed_and_no_other_is_taken(client: Client, acme: Cast) -> None:
    before = state()
    assert_refused(call(client, acme, "POST", "token", {}), "organisationId", "secretKey")
    assert_refused(ask(client, acme, exp=1), "exp")
    assert state() == before


def test_a_refusal_does_not_repeat_the_secret_key(client: Client, acme: Cast, globex: Cast) -> None:
    for answer in (
        ask(client, acme, organisationId=str(globex.organisation.pk)),
        ask(client, acme, "hush-hush"),
        ask(client, acme, exp=1),
    ):
        assert answer.status_code == 400
        assert SECRET not in answer.content.decode()
        assert "hush-hush" not in answer.content.decode()


def test_the_call_takes_its_scope_and_a_key(client: Client, acme: Cast) -> None:
    headers = with_scopes(acme, "webhooks:write", "conversations:read")
    before = state()
    answer = ask(client, acme, headers=headers)
    assert (answer.status_code, answer.json()["scope"]) == (403, "token:write")
    assert ask(client, acme, headers={}).status_code == 401
    assert call(client, acme, "GET", "token").status_code == 405
    assert state() == before


def test_the_next_request_carries_the_newest_token(
    client: Client, acme: Cast, globex: Cast, endpoint: Endpoint
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
    made(client, globex)
    expected: list[str | None] = [None]
    receive_message(channel=acme.channel, address=acme.contact.address, body="before")
    deliver()
    for _ in range(2):
        token = made(client, acme)
        receive_message(channel=acme.channel, address=acme.contact.address, body="after")
        deliver()
        test = f"webhooks/{webhook.pk}/test"
        assert call(client, acme, "POST", test, {"event": "payment"}).json()["statusCode"] == 200
        call(client, acme, "POST", test, {"event": "customValue", "fields": ["balance"]})
        expected += [token] * 3
    assert [asked.headers.get("x-webio-token") for asked in endpoint.asked] == expected


def test_neither_token_nor_secret_key_is_logged(
    client: Client, acme: Cast, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    with caplog.at_level(logging.DEBUG):
        token = made(client, acme)
        receive_message(channel=acme.channel, address=acme.contact.address, body="x")
        deliver()
        endpoint.status = 500
        call(client, acme, "POST", f"webhooks/{webhook.pk}/test", {"event": "payment"})
        ask(client, acme, exp=SECRET)
    assert endpoint.asked[0].headers["x-webio-token"] == token
    assert caplog.records
    for record in caplog.records:
        shown = [str(record.__dict__), JsonFormatter().format(record), TextFormatter().format(record)]
        for secret in (token, SECRET, acme.key):
            assert not any(secret in text for text in shown), record.name
    assert token not in str(list(AuditEntry.objects.values()))
    assert SECRET not in str(list(AuditEntry.objects.values()))
