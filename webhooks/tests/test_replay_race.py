"""Replays begun, worked off and ended at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction

from conftest import make_cast
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook, pause_webhook, resume_webhook
from webhooks.models import Delivery, Replay, Webhook
from webhooks.replay import cancel_replay, pause_replay
from webhooks.replaying import advance, following
from webhooks.tests.conftest import make_webhook
from webhooks.tests.replays import begin, past, replayed, work_off
from webhooks.tests.serving import until
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


def test_the_database_itself_refuses_a_second_unfinished_one(webhook: Webhook) -> None:
    first = begin(webhook)
    values = {"organisation": webhook.organisation, "webhook": webhook, "until": now()}
    for state in ("running", "paused"):
        with pytest.raises(IntegrityError), transaction.atomic():
            Replay.objects.create(**values, state=state)
    for state in ("done", "cancelled"):
        Replay.objects.create(**values, state=state)
    cancel_replay(replay=first, actor=SYSTEM)
    Replay.objects.create(**values)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer: the second never meets the first.")
def test_one_that_another_transaction_has_begun_unseen_is_refused_in_the_usual_words(webhook: Webhook) -> None:
    """The other takes no lock of ours, so that only the constraint is between the two."""
    refused: list[Conflict] = []

    def second() -> None:
        try:
            begin(webhook)
        except Conflict as refusal:
            refused.append(refusal)
        finally:
            connections.close_all()

    with transaction.atomic():
        first = Replay.objects.create(organisation=webhook.organisation, webhook=webhook, until=now())
        thread = threading.Thread(target=second)
        thread.start()
        until(waits_for_a_lock, 20)
    thread.join(20)
    (refusal,) = refused
    assert (refusal.code, refusal.extra) == ("replay_running", {"replayId": str(first.pk)})
    assert Replay.objects.count() == 1
    assert not AuditEntry.objects.filter(action="replay.start").exists()


def waits_for_a_lock() -> bool:
    """Whether some transaction of this database waits for another."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks AS wanted JOIN pg_locks AS held USING (pid)"
            " JOIN pg_database AS own ON own.oid = held.database AND own.datname = current_database()"
            " WHERE NOT wanted.granted"
        )
        return bool(cursor.fetchone()[0])
