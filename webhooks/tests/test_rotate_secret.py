"""A new secret, with a day in which both sign."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.actors import SYSTEM
from core.clock import now
from core.errors import Invalid
from organisations.models import AuditEntry
from webhooks.actions import rotate_secret
from webhooks.models import Webhook


def test_the_old_secret_signs_for_24_hours_more(webhook: Webhook) -> None:
    old = webhook.secret
    _, new = rotate_secret(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (new, old)
    assert new != old
    assert webhook.previous_secret_expires_at is not None
    left = webhook.previous_secret_expires_at - now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    assert new not in str(AuditEntry.objects.get(action="webhook.rotate_secret").data)


def test_a_second_rotation_ends_the_first_overlap(webhook: Webhook) -> None:
    _, second = rotate_secret(webhook=webhook, actor=SYSTEM)
    _, third = rotate_secret(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (third, second)


@pytest.mark.parametrize("secret", ["", "short", "whsec_c2hvcnQ=", 7])
def test_a_bad_secret_is_refused(webhook: Webhook, secret: Any) -> None:
    old = webhook.secret
    with pytest.raises(Invalid) as refusal:
        rotate_secret(webhook=webhook, actor=SYSTEM, secret=secret)
    assert list(refusal.value.errors) == ["secret"]
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (old, "")


def test_the_present_secret_is_no_new_one(webhook: Webhook) -> None:
    with pytest.raises(Invalid):
        rotate_secret(webhook=webhook, actor=SYSTEM, secret=webhook.secret)
    webhook.refresh_from_db()
    assert webhook.previous_secret == ""
