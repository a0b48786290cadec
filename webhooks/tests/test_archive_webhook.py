"""Deleting a webhook keeps its log and sends nothing more."""

from __future__ import annotations

import pytest

from conftest import Cast
from core.actors import SYSTEM
from core.errors import Conflict
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook


def test_what_was_still_to_be_sent_is_cancelled_and_the_rest_stays(acme: Cast, webhook: Webhook) -> None:
    other = make_delivery(acme, make_webhook(acme))
    make_delivery(acme, webhook, blocks=True)
    for state in ("held", "delivered", "failed"):
        make_delivery(acme, webhook, state=state)
    archive_webhook(webhook=webhook, actor=SYSTEM)
    states = list(Delivery.objects.filter(webhook=webhook).order_by("id").values_list("state", flat=True))
    assert states == ["cancelled", "cancelled", "delivered", "failed"]
    assert not Outstanding.objects.filter(webhook=webhook).exists()
    other.refresh_from_db()
    assert other.state == "pending"
    webhook.refresh_from_db()
    assert webhook.archived_at is not None
    assert not webhook.subscriptions.exists()
    assert AuditEntry.objects.get(action="webhook.archive").data == {"cancelled": 2}


def test_it_can_be_deleted_once(webhook: Webhook) -> None:
    archive_webhook(webhook=webhook, actor=SYSTEM)
    with pytest.raises(Conflict):
        archive_webhook(webhook=webhook, actor=SYSTEM)
    assert AuditEntry.objects.filter(action="webhook.archive").count() == 1
