"""Replays: which deliveries they repeat, how they are worked off, held and ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Cast
from conversations.actions import receive_message
from conversations.models import Event
from core.actors import SYSTEM, Actor
from core.clock import held_at, now
from core.errors import Conflict, Invalid
from organisations.actions import suspend_organisation
from organisations.models import AuditEntry
from webhooks import replaying
from webhooks.actions import (
    archive_webhook,
    disable_webhook,
    enable_webhook,
    pause_webhook,
    resend_delivery,
    resume_webhook,
    update_webhook,
)
from webhooks.models import Delivery, Outstanding, Replay, Webhook
from webhooks.outstanding import of
from webhooks.replay import cancel_replay, pause_replay, preview_replay, resume_replay, start_replay
from webhooks.replaying import BACKLOG, Worker, advance, following, wanted
from webhooks.tests.conftest import finish, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, deliver
from webhooks.tests.replays import begin, past, replayed, work_off


class TestChoosing:
    """Which deliveries a replay repeats."""

    def test_every_event_is_sent_once_more_as_a_new_delivery(self, acme: Cast, webhook: Webhook) -> None:
        sources = past(acme, webhook, 7, last_status_code=500, last_error="http")
        past(acme, make_webhook(acme), 2)
        update_webhook(webhook=webhook, actor=SYSTEM, format="standard")
        replay = work_off(begin(webhook, until=sources[-1].event.created_at + timedelta(microseconds=1)))
        assert (replay.state, replay.total, replay.made) == ("done", 7, 7)
        assert replay.finished_at is not None
        copies = replayed(webhook)
        same = ("event_id", "organisation_id", "event_type", "conversation_id", "seq", "format", "format_version")
        for source, copy in zip(sources, copies, strict=True):
            assert [getattr(copy, name) for name in same] == [getattr(source, name) for name in same]
            assert (copy.state, copy.attempt_count, copy.outstanding.blocks, copy.last_error) == (
                "pending",
                0,
                False,
                "",
            )
            assert (copy.last_status_code, copy.finished_at) == (None, None)

    @pytest.mark.parametrize(
        ("newest", "states", "found"),
        [
            ("failed", ["failed"], 1),
            ("failed", [], 1),
            ("failed", ["delivered", "cancelled"], 0),
            ("delivered", ["failed"], 0),
            ("delivered", ["delivered"], 1),
            ("delivered", [], 1),
            ("pending", [], 0),
            ("held", [], 0),
            ("cancelled", ["cancelled"], 1),
        ],
    )
    def test_the_newest_delivery_of_an_event_decides(
        self, acme: Cast, webhook: Webhook, newest: str, states: list[str], found: int
    ) -> None:
        [first] = past(acme, webhook, 1)
        again = resend_delivery(delivery=first, actor=SYSTEM)
        Delivery.objects.filter(pk=again.pk).update(state=newest, finished_at=now())
        assert preview_replay(webhook=webhook, states=states) == found
        assert work_off(begin(webhook, states=states)).made == found

    def test_a_filter_by_event_conversation_and_period(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 6)
        moments = [row.event.created_at for row in rows]
        cases: list[tuple[dict[str, Any], list[Delivery]]] = [
            ({"events": ["inboundMessage"]}, rows),
            ({"events": ["payment"]}, []),
            ({"conversation_id": rows[0].conversation_id}, [rows[0], rows[3]]),
            ({"since": moments[2]}, rows[2:]),
            ({"until": moments[2]}, rows[:2]),
            ({"since": moments[1], "until": moments[4]}, rows[1:4]),
            ({"since": moments[1], "until": moments[4], "conversation_id": rows[3].conversation_id}, [rows[3]]),
        ]
        for chosen, expected in cases:
            Delivery.objects.filter(kind="replay").delete()
            assert preview_replay(webhook=webhook, **chosen) == len(expected), chosen
            replay = work_off(begin(webhook, **chosen))
            assert (replay.state, replay.total, replay.made) == ("done", len(expected), len(expected))
            assert [row.event_id for row in replayed(webhook)] == [row.event_id for row in expected], chosen

    def test_the_order_is_that_of_events_however_they_were_resent(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 9)
        for row in (rows[4], rows[0]):
            resend_delivery(delivery=row, actor=SYSTEM)
        finish(Delivery.objects.filter(kind="resend"), state="failed")
        work_off(begin(webhook, rate=10))
        assert [row.event_id for row in replayed(webhook)] == [row.event_id for row in rows]

    def test_what_happens_meanwhile_is_not_part_of_it(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 3)
        replay = begin(webhook, until=now() + timedelta(days=1))
        past(acme, webhook, 2)
        resend_delivery(delivery=rows[1], actor=SYSTEM)
        assert work_off(replay).made == 2
        assert [row.event_id for row in replayed(webhook)] == [rows[0].event_id, rows[2].event_id]

    @pytest.mark.parametrize("states", [[], ["delivered"], ["failed"]])
    @pytest.mark.parametrize("end", ["delivered", "failed", "cancelled"])
    def test_what_ends_meanwhile_is_not_part_of_it(
        self, acme: Cast, webhook: Webhook, states: list[str], end: str
    ) -> None:
        rows = past(acme, webhook, 4, state=(states or ["delivered"])[0])
        pending = resend_delivery(delivery=rows[3], actor=SYSTEM)
        replay = begin(webhook, states=states)
        assert replay.total == 3
        resent = resend_delivery(delivery=rows[1], actor=SYSTEM)
        finish(Delivery.objects.filter(pk__in=[pending.pk, resent.pk]), state=end)
        assert work_off(replay).made == 2
        assert [row.event_id for row in replayed(webhook)] == [rows[0].event_id, rows[2].event_id]

    def test_what_is_resent_between_look_and_copy_is_left_alone(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 3)
        replay = begin(webhook)
        batch = following(replay, 10)
        resend_delivery(delivery=rows[1], actor=SYSTEM)
        assert advance(replay, batch) == 2
        assert [row.event_id for row in replayed(webhook)] == [rows[0].event_id, rows[2].event_id]

    def test_another_organisations_past_is_not_touched(self, acme: Cast, globex: Cast, webhook: Webhook) -> None:
        theirs = make_webhook(globex)
        past(globex, theirs, 3)
        conversation = Delivery.objects.filter(webhook=theirs).latest("pk").conversation_id
        assert preview_replay(webhook=webhook, conversation_id=conversation) == 0
        assert begin(webhook).total == 0

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"states": ["pending"]}, "states"),
            ({"states": ["failed", "nonsense"]}, "states"),
            ({"events": ["nonsense"]}, "events"),
            ({"rate": 0}, "rate"),
            ({"rate": 1001}, "rate"),
            ({"since": now() + timedelta(days=1)}, "since"),
            ({"since": datetime(2026, 1, 2, tzinfo=UTC), "until": datetime(2026, 1, 2, tzinfo=UTC)}, "since"),
        ],
    )
    def test_bad_input_is_refused_by_name(
        self, acme: Cast, webhook: Webhook, values: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(Invalid) as refusal:
            start_replay(webhook=webhook, actor=SYSTEM, **values)
        assert list(refusal.value.errors) == [field]
        assert not Replay.objects.exists()

    def test_all_that_is_wrong_is_said_at_once(self, acme: Cast, webhook: Webhook) -> None:
        with pytest.raises(Invalid) as refusal:
            start_replay(webhook=webhook, actor=SYSTEM, states=["x"], events=["x"], rate=0)
        assert set(refusal.value.errors) == {"states", "events", "rate"}


class TestVerbs:
    """Begin, hold, end."""

    def test_starting_tells_who_asked_for_what(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 2)
        since = now() - timedelta(days=1)
        actor = Actor("user", "7", "Ann")
        replay = start_replay(webhook=webhook, actor=actor, states=["failed"], since=since, rate=5)
        replay.refresh_from_db()
        assert (replay.state, replay.total, replay.made, replay.rate) == ("running", 2, 0, 5)
        assert (replay.states, replay.events, replay.since) == (["failed"], [], since)
        assert (replay.actor_kind, replay.actor_id, replay.actor_label) == ("user", "7", "Ann")
        entry = AuditEntry.objects.get(action="replay.start")
        assert (entry.object_id, entry.data["total"], entry.data["rate"]) == (str(replay.pk), 2, 5)

    def test_with_nothing_to_send_it_is_done_at_once(self, acme: Cast, webhook: Webhook) -> None:
        replay = begin(webhook)
        assert (replay.state, replay.total) == ("done", 0)
        assert replay.finished_at is not None
        assert wanted() == 0

    def test_one_at_a_time(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 2)
        other = make_webhook(acme)
        past(acme, other, 1)
        first = begin(webhook)
        for change in (lambda: None, lambda: pause_replay(replay=first, actor=SYSTEM)):
            change()
            with pytest.raises(Conflict) as refusal:
                begin(webhook)
            assert (refusal.value.code, refusal.value.extra) == ("replay_running", {"replayId": str(first.pk)})
        assert begin(other).state == "running"
        cancel_replay(replay=first, actor=SYSTEM)
        assert begin(webhook).state == "running"

    def test_pause_and_resume(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 7)
        replay = work_off(begin(webhook, rate=10), steps=2)
        assert (replay.made, replay.position) == (4, rows[3].event_id)
        pause_replay(replay=replay, actor=SYSTEM)
        assert (work_off(replay).state, replay.made, wanted()) == ("paused", 4, 0)
        resume_replay(replay=replay, actor=SYSTEM)
        assert wanted() == 1
        assert (work_off(replay).state, replay.made) == ("done", 7)
        assert [row.event_id for row in replayed(webhook)] == [row.event_id for row in rows]
        actions = AuditEntry.objects.filter(object_type="replay").order_by("pk").values_list("action", flat=True)
        assert list(actions) == ["replay.start", "replay.pause", "replay.resume"]

    def test_cancelling_keeps_what_was_made(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 7)
        replay = work_off(begin(webhook, rate=10), steps=2)
        cancel_replay(replay=replay, actor=SYSTEM)
        assert (work_off(replay).state, replay.made) == ("cancelled", 4)
        assert replay.finished_at is not None
        assert {row.state for row in replayed(webhook)} == {"pending"}

    @pytest.mark.parametrize("verb", [pause_replay, resume_replay, cancel_replay])
    @pytest.mark.parametrize("state", ["done", "cancelled"])
    def test_what_is_finished_stays_so(self, acme: Cast, webhook: Webhook, verb: Any, state: str) -> None:
        replay = begin(webhook)
        Replay.objects.update(state=state)
        with pytest.raises(Conflict) as refusal:
            verb(replay=replay, actor=SYSTEM)
        assert refusal.value.code == "replay_finished"

    def test_doing_it_twice_changes_nothing(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 1)
        replay = begin(webhook)
        resume_replay(replay=replay, actor=SYSTEM)
        for _ in range(2):
            pause_replay(replay=replay, actor=SYSTEM)
        assert AuditEntry.objects.filter(action="replay.pause").count() == 1
        assert not AuditEntry.objects.filter(action="replay.resume").exists()

    def test_none_for_a_deleted_webhook(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 1)
        archive_webhook(webhook=webhook, actor=SYSTEM)
        with pytest.raises(Conflict) as refusal:
            begin(webhook)
        assert refusal.value.code == "webhook_archived"


class TestWaiting:
    """A replay goes no further than its webhook."""

    @pytest.mark.parametrize(
        ("stop", "go"), [(pause_webhook, resume_webhook), (disable_webhook, enable_webhook)], ids=["paused", "disabled"]
    )
    def test_while_the_webhook_is_stopped_it_waits(self, acme: Cast, webhook: Webhook, stop: Any, go: Any) -> None:
        past(acme, webhook, 3)
        stop(webhook=webhook, actor=SYSTEM)
        replay = begin(webhook)
        batch = following(replay, 10)
        assert (work_off(replay).state, wanted()) == ("running", 0)
        # The loop had looked before the webhook was stopped.
        assert advance(replay, batch) == 0
        assert not replayed(webhook)
        go(webhook=webhook, actor=SYSTEM)
        assert (work_off(replay).state, replay.made) == ("done", 3)

    def test_a_deleted_webhooks_replay_is_cancelled(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 5)
        replay = work_off(begin(webhook, rate=10), steps=1)
        batch = following(replay, 10)
        archive_webhook(webhook=webhook, actor=SYSTEM)
        assert advance(replay, batch) == 0
        replay.refresh_from_db()
        assert (replay.state, replay.made) == ("cancelled", 2)
        assert replay.finished_at is not None
        assert {row.state for row in replayed(webhook)} == {"cancelled"}

    def test_while_the_organisation_is_suspended_it_waits(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 3)
        replay = begin(webhook)
        suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
        assert (work_off(replay).made, wanted()) == (0, 0)

    def test_while_the_breaker_is_open_it_waits(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 3)
        replay = begin(webhook)
        until = now() + timedelta(minutes=5)
        Webhook.objects.update(breaker_until=until)
        assert work_off(replay).made == 0
        with held_at(until):
            assert work_off(replay).made == 3

    def test_no_more_is_made_than_the_webhook_takes(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 3)
        row = rows[-1]
        Delivery.objects.bulk_create(
            Delivery(
                organisation_id=row.organisation_id, webhook=webhook, event_id=row.event_id, copy=number + 1,
                kind="resend", event_type=row.event_type, format=row.format, state="pending",
            )
            for number in range(BACKLOG - 1)
        )  # fmt: skip
        Outstanding.objects.bulk_create(of(one, now()) for one in Delivery.objects.filter(state="pending"))
        replay = work_off(begin(webhook))
        assert (replay.state, replay.made) == ("running", 1)
        Delivery.objects.filter(state="pending").delete()
        assert work_off(replay).made == 3


class TestPace:
    """At most so many a second, and nothing twice."""

    def test_the_rate_is_kept(self, acme: Cast, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(replaying, "time", SimpleNamespace(monotonic=lambda: 1000.0))
        past(acme, webhook, 30)
        replay = begin(webhook, rate=20)
        worker = Worker(counted_at=1000.0)
        for number in range(1, 6):
            worker.counted_at -= 0.1
            replay.refresh_from_db()
            worker.step(replay)
            assert replayed(webhook)[-1].next_attempt_at is not None
            assert len(replayed(webhook)) == 2 * number
        # An hour without a turn is not made up for.
        worker.counted_at -= 3600
        replay.refresh_from_db()
        assert worker.step(replay) == 4

    def test_the_slowest_makes_one_a_second(
        self, acme: Cast, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replaying, "time", SimpleNamespace(monotonic=lambda: 1000.0))
        past(acme, webhook, 3)
        replay = begin(webhook, rate=1)
        worker = Worker(counted_at=1000.0)
        worker.counted_at -= 0.5
        assert worker.step(replay) == 0
        worker.counted_at -= 0.5
        assert worker.step(replay) == 1
        replay.refresh_from_db()
        assert worker.step(replay) == 0

    def test_of_two_workers_one_makes_a_batch(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 4)
        replay = begin(webhook)
        batch = following(replay, 2)
        assert (advance(replay, batch), advance(replay, batch)) == (2, 0)
        # Nor does one that was left behind say that it is done.
        advance(replay, [])
        assert (work_off(replay).state, replay.made) == ("done", 4)
        assert len(replayed(webhook)) == 4

    def test_a_new_worker_goes_on_where_the_last_one_stopped(self, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 8)
        replay = begin(webhook, rate=10)
        for steps in range(1, 4):
            work_off(replay, steps=steps)
        assert [row.event_id for row in replayed(webhook)] == [row.event_id for row in rows]

    def test_a_worker_forgets_what_it_read_when_the_batch_was_not_made(self, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 4)
        stale = begin(webhook, rate=10)
        worker = Worker()
        pause_replay(replay=Replay.objects.get(pk=stale.pk), actor=SYSTEM)
        worker.counted_at -= 1.0
        assert worker.step(stale) == 0
        replay = resume_replay(replay=Replay.objects.get(pk=stale.pk), actor=SYSTEM)
        for _ in range(4):
            worker.counted_at -= 1.0
            worker.step(replay)
            replay.refresh_from_db()
        assert (replay.state, replay.made) == ("done", 4)


def test_the_endpoint_gets_the_same_bytes_in_order(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    for number in range(6):
        receive_message(channel=acme.channel, address=f"44770090000{number % 3}", body=str(number))
    deliver()
    first = {asked.headers["webhook-id"]: asked.body for asked in endpoint.asked}
    sent = len(bodies(endpoint))
    assert sent == len(first) == 6
    events = Event.objects.filter(deliveries__webhook=webhook).distinct()
    assert work_off(begin(webhook, states=["delivered"])).made == events.count() == 6
    deliver()
    again = endpoint.asked[sent:]
    assert {asked.headers["webhook-id"]: asked.body for asked in again} == first
