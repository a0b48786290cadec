"""Changing a webhook."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Cast
from core.actors import SYSTEM
from core.errors import Conflict, Invalid
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook, events_of, update_webhook
from webhooks.custom_headers import headers_of
from webhooks.models import Subscription, Webhook
from webhooks.tests.conftest import make_webhook


def test_only_what_is_given_changes(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, name="renamed", headers={"X-A": "b"})
    webhook.refresh_from_db()
    assert webhook.name == "renamed"
    assert headers_of(webhook) == {"X-A": "b"}
    assert webhook.callback_url == "https://hooks.example.com/in"
    assert events_of(webhook) == ["inboundMessage", "payment"]


def test_a_kept_event_keeps_its_start_and_a_new_one_counts_from_now(webhook: Webhook) -> None:
    old = Subscription.objects.get(webhook=webhook, event_type="payment")
    update_webhook(webhook=webhook, actor=SYSTEM, events=["payment", "setStatus"])
    rows = {row.event_type: row for row in webhook.subscriptions.all()}
    assert set(rows) == {"payment", "setStatus"}
    assert (rows["payment"].pk, rows["payment"].created_at) == (old.pk, old.created_at)
    assert rows["setStatus"].created_at > old.created_at


def test_a_change_is_audited_by_its_wire_names_and_no_change_is_not(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, name=webhook.name, events=["payment", "inboundMessage"])
    assert not AuditEntry.objects.filter(action="webhook.update").exists()
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/", events=["payment"])
    assert AuditEntry.objects.get(action="webhook.update").data["changed"] == ["callbackUrl", "events"]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": ""}),
        ("callbackUrl", {"callback_url": "https://127.0.0.1/"}),
        ("events", {"events": ["nothing"]}),
        ("events", {"events": []}),
        ("customValues", {"custom_values": None}),
        ("format", {"format": "xml"}),
        ("ordering", {"ordering": ""}),
        ("headers", {"headers": {"Host": "x"}}),
        ("headers", {"headers": None}),
    ],
)
def test_a_refused_change_changes_nothing(webhook: Webhook, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, **{"name": "other", **change})
    assert list(refusal.value.errors) == [field]
    webhook.refresh_from_db()
    assert webhook.name == "orders"
    assert events_of(webhook) == ["inboundMessage", "payment"]
    assert not AuditEntry.objects.filter(action="webhook.update").exists()


def test_custom_values_alone_are_enough(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, events=[], custom_values=True)
    with pytest.raises(Invalid):
        update_webhook(webhook=webhook, actor=SYSTEM, custom_values=False)
    webhook.refresh_from_db()
    assert webhook.custom_values


def test_a_second_custom_value_endpoint_is_refused(acme: Cast, webhook: Webhook) -> None:
    make_webhook(acme, custom_values=True)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, custom_values=True)
    assert (refusal.value.code, list(refusal.value.errors)) == ("custom_values_taken", ["customValues"])
    webhook.refresh_from_db()
    assert not webhook.custom_values


def test_what_is_no_setting_cannot_be_changed(webhook: Webhook) -> None:
    with pytest.raises(TypeError):
        update_webhook(webhook=webhook, actor=SYSTEM, state="disabled")


def test_a_deleted_webhook_is_left_alone(webhook: Webhook) -> None:
    archive_webhook(webhook=webhook, actor=SYSTEM)
    with pytest.raises(Conflict) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, name="other")
    assert refusal.value.code == "webhook_archived"
