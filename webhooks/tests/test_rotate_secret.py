"""A new secret, with a day in which both sign."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from conftest import make_cast
from core.actors import SYSTEM
from core.clock import held_at, now
from core.errors import Conflict, Invalid
from organisations.models import AuditEntry
from webhooks.actions import rotate_secret
from webhooks.models import Webhook
from webhooks.payloads import iso_time
from webhooks.tests.conftest import make_webhook
from webhooks.tests.test_webhook_verbs_race import at_once


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


def test_a_second_rotation_waits_for_the_end_of_the_first_overlap(webhook: Webhook) -> None:
    first = webhook.secret
    _, second = rotate_secret(webhook=webhook, actor=SYSTEM)
    with pytest.raises(Conflict) as refusal:
        rotate_secret(webhook=webhook, actor=SYSTEM)
    until = webhook.previous_secret_expires_at
    assert until is not None
    assert (refusal.value.code, refusal.value.extra) == ("secret_overlap", {"until": iso_time(until)})
    assert f"until {until:%Y-%m-%d %H:%M}" in refusal.value.detail
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (second, first)
    assert AuditEntry.objects.filter(action="webhook.rotate_secret").count() == 1
    with held_at(until):
        _, third = rotate_secret(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (third, second)


def test_who_says_so_ends_the_overlap_and_rotates(webhook: Webhook) -> None:
    _, second = rotate_secret(webhook=webhook, actor=SYSTEM, end_overlap=True)
    _, third = rotate_secret(webhook=webhook, actor=SYSTEM, end_overlap=True)
    webhook.refresh_from_db()
    assert (webhook.secret, webhook.previous_secret) == (third, second)
    entries = AuditEntry.objects.filter(action="webhook.rotate_secret").order_by("pk")
    assert [entry.data for entry in entries] == [{"overlapEnded": False}, {"overlapEnded": True}]


@pytest.mark.django_db(transaction=True)
def test_of_two_rotations_at_once_the_receiver_can_follow() -> None:
    webhook = make_webhook(make_cast("acme"))
    first = webhook.secret
    own = [Webhook.objects.select_related("organisation").get() for _ in range(2)]
    assert at_once(*(lambda one=one: rotate_secret(webhook=one, actor=SYSTEM) for one in own)) == []  # type: ignore[misc]
    webhook.refresh_from_db()
    assert webhook.previous_secret == first
    assert AuditEntry.objects.filter(action="webhook.rotate_secret").count() == 1


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
