"""Pausing, disabling and going on: what happens meanwhile is held, never lost."""

from __future__ import annotations

import pytest

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict
from organisations.models import AuditEntry
from webhooks.actions import disable_webhook, enable_webhook, pause_webhook, resume_webhook
from webhooks.models import Webhook
from webhooks.tests.conftest import make_delivery, make_webhook


@pytest.mark.parametrize(
    ("stop", "start", "state"),
    [
        (pause_webhook, resume_webhook, "paused"),
        (pause_webhook, enable_webhook, "paused"),
        (disable_webhook, enable_webhook, "disabled"),
    ],
)
def test_deliveries_are_held_and_then_due(acme: Cast, webhook: Webhook, stop, start, state: str) -> None:  # type: ignore[no-untyped-def]
    delivery = make_delivery(acme, webhook)
    other = make_delivery(acme, make_webhook(acme))
    done = make_delivery(acme, webhook, state="delivered")
    stop(webhook=webhook, actor=SYSTEM)
    for row in (webhook, delivery, other, done):
        row.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == (state, "user")
    assert (delivery.state, delivery.next_attempt_at) == ("held", None)
    assert (other.state, done.state) == ("pending", "delivered")
    start(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    delivery.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == ("active", "")
    assert delivery.state == "pending"
    assert delivery.next_attempt_at is not None
    assert delivery.next_attempt_at <= now()


def test_a_disabled_webhook_is_enabled_not_resumed_or_paused(webhook: Webhook) -> None:
    disable_webhook(webhook=webhook, actor=SYSTEM, reason="staff")
    for verb in (resume_webhook, pause_webhook):
        with pytest.raises(Conflict) as refusal:
            verb(webhook=webhook, actor=SYSTEM)
        assert refusal.value.code == "webhook_disabled"
    webhook.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == ("disabled", "staff")


def test_a_paused_webhook_can_be_disabled(webhook: Webhook) -> None:
    pause_webhook(webhook=webhook, actor=SYSTEM)
    disable_webhook(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    assert webhook.state == "disabled"


def test_what_is_so_already_is_not_done_again(webhook: Webhook) -> None:
    resume_webhook(webhook=webhook, actor=SYSTEM)
    enable_webhook(webhook=webhook, actor=SYSTEM)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    actions = AuditEntry.objects.filter(object_type="webhook").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["webhook.create", "webhook.pause"]
