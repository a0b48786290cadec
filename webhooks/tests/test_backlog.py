"""While much waits, an engine asks the database for much at once, and nobody waits longer than a moment for it."""

from __future__ import annotations

import time
from typing import cast

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from core.loops import Run
from core.wakeup import Waiter
from webhooks.engine import intake as intakes
from webhooks.engine import writing
from webhooks.engine.due import Due
from webhooks.engine.intake import HUNGRY, Intake
from webhooks.engine.pace import BUSY_SECONDS, Pace
from webhooks.engine.record import Result
from webhooks.engine.serving import Serving
from webhooks.engine.writing import Writer
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import running_drain


def backlog(pace: float, rate: tuple[int, int] | None = None) -> Intake:
    """An engine that has just dispatched some of many events, for ten endpoints that take so many seconds."""
    serving = Serving()
    for webhook_id in range(10):
        lane = serving.lane(webhook_id)
        lane.pace, lane.rate = pace, rate
        for number in range(HUNGRY // 10):
            pk = webhook_id * HUNGRY + number
            lane.waiting.append(Due(pk, webhook_id, 1, pk, None, 0, False, None, ("", pk), b"{}", ""))
    intake = Intake(serving, Pace(), lambda: None)
    # Recently, however long the test takes.
    intake.undispatched, intake.dispatched_at = True, time.monotonic() + 60.0
    return intake


def test_what_can_start_soon_is_enough_until_it_is_less_or_a_moment_is_over() -> None:
    intake = backlog(pace=0.001)
    assert intake.full()
    intake.serving.lane(0).waiting.pop()
    assert not intake.full()

    intake = backlog(pace=0.001)
    intake.undispatched = False
    assert not intake.full()

    intake = backlog(pace=0.001)
    intake.dispatched_at = time.monotonic() - intakes.FULL_SECONDS
    assert not intake.full()


@pytest.mark.parametrize(("pace", "rate"), [(0.5, None), (0.001, (10, 1))])
def test_what_waits_for_slow_endpoints_keeps_no_events_of_others_back(
    pace: float, rate: tuple[int, int] | None
) -> None:
    assert not backlog(pace, rate).full()


def test_a_look_that_is_put_off_is_still_wanted_and_follows_soon() -> None:
    pace = Pace()
    pace.look()
    pace.heard(True, True)
    pace.looked_at -= 1.0
    assert pace.next_look(False, True) <= time.monotonic()
    pace.put_off()
    assert pace.next_look(False, True) == pace.looked_at + BUSY_SECONDS
    assert pace.look()


def test_outcomes_wait_for_others_only_while_there_are_some_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "FLUSH_BUSY_SECONDS", 60.0)
    writer = Writer(Serving(), writing.Inline(), 0)
    few, many = writing.FLUSH_BUSY - 1, writing.FLUSH_BUSY
    assert not writer.due(few)
    writer.add(cast("Result", object()), decides=False)
    writer.oldest_result = time.monotonic() - writing.FLUSH_SECONDS
    assert writer.due(few)
    assert not writer.due(many)
    writer.oldest_result = time.monotonic() - 60.0
    assert writer.due(many)
    writer.oldest_result = time.monotonic()
    writer.results *= writing.FLUSH_COUNT
    assert writer.due(many)


@pytest.mark.django_db
def test_what_a_rate_limit_keeps_back_is_not_about_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    with running_drain() as drain:
        monkeypatch.setattr(drain.writer, "due", lambda more: asked.append(more))
        for rate in (None, (10, 1)):
            drain.intake.serving = backlog(0.001, rate).serving
            drain.collect(0.0)
    everything, little = asked
    assert everything == HUNGRY
    assert little == 10 < writing.FLUSH_BUSY


class Briefly:
    """A slice of so many rounds, of the only engine, which nobody wakes."""

    name = ""
    topics: frozenset[str] = frozenset()
    poll_seconds = 0.01
    over = True

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def go_on(self) -> bool:
        self.rounds -= 1
        return self.rounds >= 0

    def place(self) -> tuple[int, int]:
        return 0, 1

    def fileno(self) -> None:
        return None

    def wait(self, _seconds: float) -> bool:
        return False

    woken = go_on


@pytest.mark.django_db
def test_an_engine_that_is_full_puts_looking_off_unless_a_lane_is_free_or_nothing_else_happens(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    conversation_actions.receive_message(channel=acme.channel, address="447717470000", body="x")
    with running_drain() as drain:
        looks: list[bool] = []
        monkeypatch.setattr(drain, "look", lambda *_: looks.append(True))
        monkeypatch.setattr(drain, "quiet", lambda: False)
        monkeypatch.setattr(drain.intake, "full", lambda: True)

        def work() -> int:
            drain.pace.looked_at = 0.0
            looks.clear()
            drain.work(cast("Run", Briefly(1)), cast("Waiter", Briefly(0)))
            return len(looks)

        assert work() == 0
        drain.serving.freed = True
        assert work() == 1
        drain.serving.freed = False
        monkeypatch.setattr(drain, "quiet", lambda: True)
        assert work() == 1
        monkeypatch.setattr(drain, "quiet", lambda: False)
        monkeypatch.setattr(drain.intake, "full", lambda: False)
        assert work() == 1
