"""Replays begun, worked off and ended at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import make_cast
from core.actors import SYSTEM
from webhooks.actions import archive_webhook, pause_webhook, resume_webhook
from webhooks.models import Delivery, Replay, Webhook
from webhooks.replay import cancel_replay, pause_replay
from webhooks.replaying import advance, following
from webhooks.tests.conftest import make_webhook
from webhooks.tests.replays import begin, past, replayed, work_off
from webhooks.tests.test_webhook_verbs_race import at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def webhook(db: None) -> Webhook:
    cast = make_cast("acme")
    webhook = make_webhook(cast)
    past(cast, webhook, 30)
    return webhook


def test_of_many_starts_at_once_one_wins(webhook: Webhook) -> None:
    assert not at_once(*[lambda: begin(webhook)] * 4)
    assert Replay.objects.count() == 1


def test_of_many_workers_at_once_each_delivery_is_made_by_one(webhook: Webhook) -> None:
    replay = begin(webhook)
    batch = following(replay, 20)
    assert not at_once(*[lambda: advance(replay, batch)] * 4)
    replay.refresh_from_db()
    assert (replay.made, len(replayed(webhook))) == (20, 20)
    assert (work_off(replay).state, len(replayed(webhook))) == ("done", 30)


@pytest.mark.parametrize(
    "end",
    [
        lambda webhook, replay: archive_webhook(webhook=webhook, actor=SYSTEM),
        lambda webhook, replay: pause_webhook(webhook=webhook, actor=SYSTEM),
        lambda webhook, replay: cancel_replay(replay=replay, actor=SYSTEM),
        lambda webhook, replay: pause_replay(replay=replay, actor=SYSTEM),
    ],
    ids=["archive", "pause the webhook", "cancel", "pause"],
)
def test_what_is_made_beside_an_end_is_counted_and_nothing_waits_for_nobody(
    webhook: Webhook, end: Callable[[Webhook, Replay], Any]
) -> None:
    replay = begin(webhook)
    mine = Replay.objects.get(pk=replay.pk)
    batch = following(replay, 20)
    assert not at_once(lambda: advance(replay, batch), lambda: end(webhook, mine))
    replay.refresh_from_db()
    webhook.refresh_from_db()
    assert replay.made == len(replayed(webhook)) in (0, 20)
    assert replay.state != "running" or webhook.state == "paused"
    if webhook.archived_at is not None or webhook.state != "active":
        assert not Delivery.objects.filter(webhook=webhook, state="pending").exists()
    if webhook.state == "paused":
        resume_webhook(webhook=webhook, actor=SYSTEM)
        assert (work_off(replay).state, replay.made) == ("done", 30)
