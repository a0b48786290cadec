"""Changing a webhook."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict, Invalid
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook, events_of, update_webhook
from webhooks.custom_headers import headers_of
from webhooks.engine.breaker import PAUSE
from webhooks.failing import check
from webhooks.models import Subscription, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver


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


def fail(webhook: Webhook) -> None:
    """Let the endpoint have failed for three days, and be left alone for a while."""
    moment = now()
    Webhook.objects.filter(pk=webhook.pk).update(
        failing_since=moment - timedelta(hours=72),
        last_failure_at=moment,
        failing_told=50,
        consecutive_failures=40,
        breaker_until=moment + timedelta(minutes=10),
        breaker_level=8,
    )


def test_another_callback_url_begins_afresh(acme: Cast, webhook: Webhook, endpoint: Endpoint) -> None:
    fail(webhook)
    make_delivery(acme, webhook)
    make_delivery(acme, webhook)
    endpoint.status = 500
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url=endpoint.url)
    assert (webhook.failing_since, webhook.consecutive_failures, webhook.breaker_until) == (None, 0, None)
    check()
    webhook.refresh_from_db()
    assert webhook.failing_told == 0
    at = now()
    deliver(at)
    webhook.refresh_from_db()
    # One request probed, and the pause is one of the first.
    assert (len(endpoint.asked), webhook.failing_since, webhook.consecutive_failures) == (1, at, 1)
    assert webhook.breaker_until is not None
    assert webhook.breaker_until - at <= timedelta(seconds=2 * PAUSE * 1.1)


def test_any_other_change_leaves_what_is_held_against_the_endpoint(webhook: Webhook) -> None:
    fail(webhook)
    before = Webhook.objects.get()
    update_webhook(webhook=webhook, actor=SYSTEM, name="renamed", callback_url=before.callback_url)
    after = Webhook.objects.get()
    for name in ("failing_since", "failing_told", "consecutive_failures", "breaker_until", "breaker_level"):
        assert getattr(after, name) == getattr(before, name)


def test_owners_of_one_that_was_disabled_are_not_told_again_after_a_change(webhook: Webhook) -> None:
    fail(webhook)
    Webhook.objects.update(failing_since=now() - timedelta(days=6))
    check()
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/")
    check()
    assert (webhook.state, len(mail.outbox)) == ("disabled", 1)


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
