"""The x-webio-token: signed with the customer's key, verified as a receiver would, shown again to owners only."""

from __future__ import annotations

import logging
from typing import Any

import jwt
import pytest
from django.db import connection
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from core.errors import Invalid
from organisations.actions import create_webio_token
from organisations.models import AuditEntry, WebioToken

PAGE = "/o/acme/integrations/token/"
SECRET = "a secret key of the customer's: ünïcödé"


def verified(token: str, secret: str = SECRET) -> dict[str, Any]:
    """What a receiver reads from the header."""
    claims: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], issuer="webio")
    return claims


def test_a_receiver_verifies_it(acme: Cast) -> None:
    row, token = create_webio_token(
        organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET, api_key=acme.api_key
    )
    claims = verified(token)
    assert set(claims) == {"iss", "sub", "iat", "jti", "kid"}
    assert claims["iss"] == "webio"
    assert claims["sub"] == str(acme.organisation.pk)
    assert claims["kid"] == acme.api_key.prefix
    assert claims["iat"] == int(row.created_at.timestamp())
    assert jwt.get_unverified_header(token)["alg"] == "HS256"
    with pytest.raises(jwt.InvalidSignatureError):
        verified(token, "another secret key of 32 bytes or more")
    assert acme.key.rsplit("_", 1)[1] not in str(claims)


def test_two_tokens_of_one_moment_differ(acme: Cast) -> None:
    tokens = {create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET)[1] for _ in range(3)}
    assert len(tokens) == 3


def test_neither_secret_nor_token_rests_readable(acme: Cast, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.force_login(acme.owner)
    with caplog.at_level(logging.INFO):
        client.post(PAGE, {"secret_key": SECRET})
    token = WebioToken.objects.get().token
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM organisations_webiotoken")
        stored = str(cursor.fetchall())
    audit = str([entry.__dict__ for entry in AuditEntry.objects.all()])
    logged = str([record.__dict__ for record in caplog.records])
    for place in (stored, audit, logged, str(dict(client.session))):
        assert SECRET not in place
        assert token not in place


@pytest.mark.parametrize(("secret", "bytes_"), [("", 0), ("s" * 31, 31), ("ü" * 15, 30)])
def test_a_short_secret_is_refused(acme: Cast, client: Client, secret: str, bytes_: int) -> None:
    with pytest.raises(Invalid) as refusal:
        create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=secret)
    assert f"it has {bytes_}" in refusal.value.errors["secretKey"][0]
    client.force_login(acme.owner)
    answer = client.post(PAGE, {"secret_key": secret})
    assert answer.status_code == 400
    assert 'class="errorlist"' in answer.content.decode()
    assert not WebioToken.objects.exists()


def test_bytes_are_counted_not_letters(acme: Cast) -> None:
    _row, token = create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key="ü" * 16)
    assert verified(token, "ü" * 16)


def test_the_panel_shows_it_when_made_and_then_no_more(acme: Cast, client: Client) -> None:
    client.force_login(acme.developer)
    answer = client.post(PAGE, {"secret_key": SECRET})
    token = WebioToken.objects.get().token
    assert token in answer.content.decode()
    assert SECRET not in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert token not in client.get(PAGE).content.decode()
    assert verified(token)["kid"] == ""


def test_owners_see_it_again_by_post_only(acme: Cast, client: Client) -> None:
    _row, token = create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET)
    for role, user in acme.people.items():
        client.force_login(user)
        answer = client.post(f"{PAGE}reveal/")
        assert (token in answer.content.decode()) == (role == "owner"), role
        assert answer.status_code == (200 if role == "owner" else 403), role
    client.force_login(acme.owner)
    assert client.get(f"{PAGE}reveal/").status_code == 405
    assert token not in client.get(PAGE).content.decode()


def test_a_look_at_the_token_is_written_down(acme: Cast, client: Client) -> None:
    _row, token = create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET)
    client.force_login(acme.owner)
    client.post(f"{PAGE}reveal/")
    entry = AuditEntry.objects.get(action="token.reveal")
    assert (entry.organisation, entry.actor_id) == (acme.organisation, str(acme.owner.pk))
    assert token not in str(entry.__dict__)


def test_the_newest_wins(acme: Cast, client: Client) -> None:
    create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET)
    _row, newest = create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key=SECRET)
    client.force_login(acme.owner)
    assert newest in client.post(f"{PAGE}reveal/").content.decode()


def test_there_is_nothing_to_show_before_one_is_made(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    assert client.post(f"{PAGE}reveal/").status_code == 404


def test_the_page_says_what_it_proves(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    assert "webhook-signature" in client.get(PAGE).content.decode()
