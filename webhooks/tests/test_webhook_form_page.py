"""Adding and changing a webhook in the panel."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.events import EVENT_TYPES
from organisations.models import AuditEntry
from webhooks.actions import events_of
from webhooks.custom_headers import headers_of
from webhooks.endpoint_auth import settings_of
from webhooks.models import Webhook
from webhooks.panel.forms import MASK
from webhooks.tests.conftest import make_webhook
from webhooks.tests.pages import at

pytestmark = pytest.mark.once

FORM: dict[str, Any] = {
    "name": "orders",
    "callback_url": "https://hooks.example.com/in",
    "events": ["inboundMessage", "payment"],
    "format": "standard",
    "ordering": "strict",
    "headers": "X-Key: hush\nX-Other: two words\n",
}


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def test_every_event_has_a_tick_box_and_a_sample(acme: Cast, signed_in: Client) -> None:
    page = signed_in.get(at(acme, "webhook_add")).content.decode()
    for name, entry in EVENT_TYPES.items():
        assert f'value="{name}"' in page
        assert str(entry.label) in page
        assert f"&quot;type&quot;: &quot;{entry.wire_type}&quot;" in page


def test_a_webhook_is_added_and_its_secret_shown_once(acme: Cast, signed_in: Client) -> None:
    page = signed_in.post(at(acme, "webhook_add"), FORM)
    assert page.status_code == 200
    webhook = Webhook.objects.get()
    assert webhook.secret in page.content.decode()
    assert page["Cache-Control"] == "no-store"
    assert (webhook.format, webhook.ordering, events_of(webhook)) == ("standard", "strict", FORM["events"])
    assert headers_of(webhook) == {"X-Key": "hush", "X-Other": "two words"}
    entry = AuditEntry.objects.get(action="webhook.create")
    assert (entry.actor_kind, entry.actor_id) == ("user", str(acme.developer.pk))
    for name in ("webhook", "webhook_edit", "webhook_secret"):
        shown = signed_in.get(at(acme, name, webhook.pk)).content.decode()
        assert webhook.secret not in shown
        assert "hush" not in shown


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"name": "a\x00b"},
        {"callback_url": ""},
        {"callback_url": "http://127.0.0.1/"},
        {"callback_url": "ftp://example.com/"},
        {"callback_url": "https://example.com/" + "x" * 2000},
        {"events": []},
        {"events": ["nothing"]},
        {"format": "xml"},
        {"ordering": "none"},
        {"headers": "no colon"},
        {"headers": "Host: x"},
        {"headers": "X-A: 1\nX-A: 2"},
        {"headers": "X-A:"},
        {"secret": "short"},
    ],
)
def test_what_breaks_a_rule_is_marked_and_not_saved(acme: Cast, signed_in: Client, change: dict[str, Any]) -> None:
    page = signed_in.post(at(acme, "webhook_add"), {**FORM, **change})
    assert page.status_code == 400
    [field] = change
    assert page.context["form"].errors[field]
    assert "hooks.example.com" in page.content.decode() or field == "callback_url"
    assert not Webhook.objects.exists()


def test_the_limit_is_told(acme: Cast, signed_in: Client, settings: Any) -> None:
    settings.WEBHOOKS_PER_ORGANISATION = 1
    make_webhook(acme)
    page = signed_in.post(at(acme, "webhook_add"), FORM)
    assert page.status_code == 400
    assert "at most 1 webhooks" in page.content.decode()
    assert Webhook.objects.count() == 1
    assert "as many as an organisation may have" in signed_in.get(at(acme, "webhooks")).content.decode()


def test_a_second_custom_value_endpoint_is_marked(acme: Cast, signed_in: Client) -> None:
    make_webhook(acme, custom_values=True)
    page = signed_in.post(at(acme, "webhook_add"), {**FORM, "custom_values": "on"})
    assert page.status_code == 400
    assert page.context["form"].errors["custom_values"]
    assert Webhook.objects.count() == 1


def test_settings_are_changed_and_masked_headers_kept(acme: Cast, signed_in: Client) -> None:
    webhook = make_webhook(acme, headers={"X-Key": "hush", "X-Gone": "old"})
    edit = at(acme, "webhook_edit", webhook.pk)
    shown = signed_in.get(edit).context["form"]["headers"].value()
    assert shown.splitlines()[0].startswith("X-Key: ")
    assert "hush" not in shown
    answer = signed_in.post(
        edit, {**FORM, "name": "renamed", "events": ["setStatus"], "headers": f"{shown.splitlines()[0]}\nX-New: a:b"}
    )
    assert answer["Location"] == at(acme, "webhook", webhook.pk)
    webhook.refresh_from_db()
    assert webhook.name == "renamed"
    assert Webhook.objects.get() == webhook
    assert events_of(Webhook.objects.get()) == ["setStatus"]
    assert headers_of(webhook) == {"X-Key": "hush", "X-New": "a:b"}


def test_a_refused_change_changes_nothing(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    page = signed_in.post(at(acme, "webhook_edit", webhook.pk), {**FORM, "name": "renamed", "headers": "Host: x"})
    assert page.status_code == 400
    webhook.refresh_from_db()
    assert webhook.name == "orders"
    assert webhook.format == "webio"


def test_save_and_test_goes_to_the_test(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    answer = signed_in.post(at(acme, "webhook_edit", webhook.pk), {**FORM, "test": "1"})
    assert answer["Location"] == at(acme, "webhook_test", webhook.pk)


def test_a_script_in_a_name_is_text(acme: Cast, signed_in: Client) -> None:
    webhook = make_webhook(acme, name="<script>alert(1)</script>")
    for page in (at(acme, "webhooks"), at(acme, "webhook", webhook.pk), at(acme, "webhook_edit", webhook.pk)):
        assert "<script>alert(1)" not in signed_in.get(page).content.decode()


def test_authentication_schedule_and_rate_are_set_in_the_form_and_secrets_come_back_masked(
    acme: Cast, signed_in: Client
) -> None:
    more = {
        "auth_kind": "oauth2",
        "token_url": "https://auth.example.com/token",
        "client_id": "webio",
        "client_secret": "s3cr3t",
        "retry_delays": "5, 60,300",
        "rate": "30",
        "rate_per": "minute",
    }
    assert signed_in.post(at(acme, "webhook_add"), {**FORM, **more}).status_code == 200
    webhook = Webhook.objects.get()
    assert (webhook.retry_delays, webhook.rate_limit, webhook.rate_seconds) == ([5, 60, 300], 30, 60)
    page = signed_in.get(at(acme, "webhook_edit", webhook.pk)).content.decode()
    assert "s3cr3t" not in page
    assert "https://auth.example.com/token" in page
    changed = {**FORM, **more, "client_secret": MASK, "client_id": "other", "rate": ""}
    assert signed_in.post(at(acme, "webhook_edit", webhook.pk), changed).status_code == 302
    webhook.refresh_from_db()
    assert settings_of(webhook) == {
        "tokenUrl": "https://auth.example.com/token",
        "clientId": "other",
        "clientSecret": "s3cr3t",
    }
    assert webhook.rate_limit is None
    # Nobody gets a stored secret sent to an address of their own.
    moved = {**changed, "token_url": "https://elsewhere.example.com/token"}
    page = signed_in.post(at(acme, "webhook_edit", webhook.pk), moved)
    assert (page.status_code, "Enter it again" in page.content.decode()) == (400, True)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"auth_kind": "basic", "username": "a"}, "password"),
        ({"auth_kind": "oauth2", "token_url": "http://10.0.0.1/", "client_id": "a", "client_secret": "b"}, "token_url"),
        ({"retry_delays": "5, soon"}, "retry_delays"),
        ({"retry_delays": "0"}, "retry_delays"),
        ({"rate": "many"}, "rate"),
        ({"rate": "0"}, "rate"),
        ({"client_certificate": "x"}, "client_certificate"),
    ],
)
def test_what_is_wrong_in_the_advanced_part_is_said_beside_its_field(
    acme: Cast, signed_in: Client, more: dict[str, str], field: str
) -> None:
    page = signed_in.post(at(acme, "webhook_add"), {**FORM, **more})
    assert page.status_code == 400
    assert f'id="id_{field}_error"' in page.content.decode()
    assert not Webhook.objects.exists()
