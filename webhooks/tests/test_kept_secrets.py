"""Stored secrets do not follow a callback URL or a token URL to another address: verbs, API and panel."""

from __future__ import annotations

from typing import Any

import pytest
import trustme
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from core.errors import Invalid
from organisations.models import AuditEntry
from organisations.tests.calls import call
from webhooks.actions import update_webhook
from webhooks.custom_headers import headers_of
from webhooks.endpoint_auth import settings_of
from webhooks.kept_secrets import KEPT
from webhooks.models import Webhook
from webhooks.panel.forms import MASK
from webhooks.tests.conftest import make_webhook
from webhooks.tests.pages import at

pytestmark = pytest.mark.django_db

HERE = "https://hooks.example.com/in"
ELSEWHERE = "https://evil.example/in"
BASIC = {"type": "basic", "username": "webio", "password": "pa55w0rd"}
BEARER = {"type": "bearer", "token": "t0ken"}
OAUTH2 = {
    "type": "oauth2",
    "tokenUrl": "https://auth.example.com/token",
    "clientId": "webio",
    "clientSecret": "s3cr3t",
}
#: What is stored → the wire name of what must be given again.
STORED: dict[str, dict[str, Any]] = {
    "authentication.password": {"authentication": BASIC},
    "authentication.token": {"authentication": BEARER},
    "authentication.clientSecret": {"authentication": OAUTH2},
    "headers": {"headers": {"X-Key": "hush"}},
    "clientCertificate": {},
}
#: The field of the form beside which it is said.
INPUTS = {
    "authentication.password": "password",
    "authentication.token": "token",
    "authentication.clientSecret": "client_secret",
    "headers": "headers",
    "clientCertificate": "client_certificate",
}
FORM: dict[str, Any] = {
    "name": "orders",
    "events": ["inboundMessage", "payment"],
    "format": "webio",
    "ordering": "first",
}
KEEPERS = pytest.mark.parametrize("field", STORED)


@pytest.fixture(scope="module")
def pem() -> str:
    """A client certificate and its key."""
    return trustme.CA().issue_cert("webio.example").private_key_and_cert_chain_pem.bytes().decode()


@pytest.fixture
def keeper(acme: Cast, field: str, pem: str) -> Webhook:
    """A webhook with the secret of `field`."""
    settings = STORED[field] or {"client_certificate": pem}
    return make_webhook(acme, callback_url=HERE, **settings)


def secrets_of(webhook: Webhook) -> tuple[str, dict[str, str], dict[str, str], str]:
    """Where to and what is kept secret, as the database has it."""
    webhook.refresh_from_db()
    return webhook.callback_url, settings_of(webhook), headers_of(webhook), webhook.client_certificate


@KEEPERS
@pytest.mark.parametrize(
    "url",
    [
        ELSEWHERE,
        "http://hooks.example.com/in",
        "https://hooks.example.com:8443/in",
        "https://other.hooks.example.com/in",
        "https://hooks.example.com.evil.example/in",
    ],
)
def test_a_secret_that_is_not_given_again_does_not_follow(field: str, keeper: Webhook, url: str) -> None:
    before = secrets_of(keeper)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=keeper, actor=SYSTEM, callback_url=url, name="renamed")
    assert list(refusal.value.errors) == [field]
    (told,) = refusal.value.errors[field]
    assert "Enter it again: stored secrets do not follow the callback URL" in told
    assert secrets_of(keeper) == before
    assert keeper.name == "orders"
    assert not AuditEntry.objects.filter(action="webhook.update").exists()


@KEEPERS
@pytest.mark.parametrize(
    "url",
    ["https://hooks.example.com/other?key=1", "HTTPS://Hooks.Example.com:443/in", HERE],
    ids=["path", "spelling", "same"],
)
def test_within_the_origin_it_stays(keeper: Webhook, url: str) -> None:
    before = secrets_of(keeper)
    update_webhook(webhook=keeper, actor=SYSTEM, callback_url=url, name="renamed")
    assert secrets_of(keeper) == (url, *before[1:])


@pytest.mark.parametrize("field", ["headers"])
def test_each_header_that_is_kept_is_named_and_one_given_again_is_not(keeper: Webhook) -> None:
    update_webhook(webhook=keeper, actor=SYSTEM, headers={"X-A": "1", "X-B": "2", "X-C": "3"})
    with pytest.raises(Invalid) as refusal:
        update_webhook(
            webhook=keeper, actor=SYSTEM, callback_url=ELSEWHERE, headers={"X-A": "1", "X-B": KEPT, "X-C": KEPT}
        )
    assert refusal.value.errors["headers"][0].startswith("X-B, X-C: Enter it again")
    update_webhook(webhook=keeper, actor=SYSTEM, headers={"X-A": "9", "X-C": KEPT})
    assert headers_of(keeper) == {"X-A": "9", "X-C": "3"}


def test_all_that_is_kept_and_all_that_is_wrong_is_told_at_once(acme: Cast, pem: str) -> None:
    webhook = make_webhook(acme, authentication=BASIC, headers={"X-Key": "hush"}, client_certificate=pem)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, callback_url=ELSEWHERE, format="xml")
    assert set(refusal.value.errors) == {"authentication.password", "headers", "clientCertificate", "format"}


def test_a_url_that_is_refused_asks_for_nothing_else(acme: Cast) -> None:
    webhook = make_webhook(acme, authentication=BASIC)
    for url in ("http://10.0.0.1/", "x", 7, None):
        with pytest.raises(Invalid) as refusal:
            update_webhook(webhook=webhook, actor=SYSTEM, callback_url=url)
        assert list(refusal.value.errors) == ["callbackUrl"]


def test_what_is_not_stored_cannot_be_kept(acme: Cast) -> None:
    webhook = make_webhook(acme, authentication=BEARER)
    for changes, field in (
        ({"authentication": {**BASIC, "password": KEPT}}, "authentication.password"),
        ({"headers": {"X-New": KEPT}}, "headers"),
    ):
        with pytest.raises(Invalid) as refusal:
            update_webhook(webhook=webhook, actor=SYSTEM, **changes)
        assert list(refusal.value.errors) == [field]


def test_a_client_secret_does_not_follow_the_token_url_either(acme: Cast) -> None:
    webhook = make_webhook(acme, authentication=OAUTH2)
    for url in ("https://evil.example/token", "https://auth.example.com/other-tenant"):
        with pytest.raises(Invalid) as refusal:
            update_webhook(
                webhook=webhook, actor=SYSTEM, authentication={**OAUTH2, "tokenUrl": url, "clientSecret": KEPT}
            )
        assert list(refusal.value.errors) == ["authentication.clientSecret"]
        assert "the token URL" in refusal.value.errors["authentication.clientSecret"][0]
    update_webhook(webhook=webhook, actor=SYSTEM, authentication={**OAUTH2, "clientId": "other", "clientSecret": KEPT})
    assert settings_of(webhook) == {
        "tokenUrl": OAUTH2["tokenUrl"],
        "clientId": "other",
        "clientSecret": "s3cr3t",
    }


@KEEPERS
def test_the_api_asks_for_it_by_name_and_takes_it_again_or_away(
    client: Client, acme: Cast, field: str, keeper: Webhook, pem: str
) -> None:
    before = secrets_of(keeper)
    path = f"webhooks/{keeper.pk}"
    answer = call(client, acme, "PATCH", path, {"callbackUrl": ELSEWHERE, "state": "paused"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert secrets_of(keeper) == before
    assert keeper.state == "active"
    name = field.partition(".")[0]
    again: Any = {
        "authentication": {"type": keeper.auth_kind, **before[1]},
        "headers": {"X-Key": "new"},
        "clientCertificate": pem,
    }[name]
    answer = call(client, acme, "PATCH", path, {"callbackUrl": ELSEWHERE, name: again})
    assert (answer.status_code, answer.json()["callbackUrl"]) == (200, ELSEWHERE)
    nothing: Any = {"authentication": None, "headers": {}, "clientCertificate": None}[name]
    answer = call(client, acme, "PATCH", path, {"callbackUrl": HERE, name: nothing})
    assert answer.status_code == 200
    assert secrets_of(keeper) == (HERE, {}, {}, "")


@KEEPERS
def test_the_panel_asks_for_it_beside_its_field(client: Client, acme: Cast, field: str, keeper: Webhook) -> None:
    client.force_login(acme.developer)
    page = at(acme, "webhook_edit", keeper.pk)
    form = client.get(page)
    assert "With another scheme, host or port" in form.content.decode()
    shown = {name: form.context["form"][name].value() or "" for name in form.context["form"].fields}
    assert MASK in shown[INPUTS[field]]
    before = secrets_of(keeper)
    answer = client.post(page, {**shown, **FORM, "callback_url": ELSEWHERE})
    assert answer.status_code == 400
    assert list(answer.context["form"].errors) == [INPUTS[field]]
    assert f'id="id_{INPUTS[field]}_error"' in answer.content.decode()
    assert secrets_of(keeper) == before
    # The same page is saved as it came while the address stays.
    assert client.post(page, {**shown, **FORM, "callback_url": f"{HERE}/2"}).status_code == 302
    assert secrets_of(keeper) == (f"{HERE}/2", *before[1:])
