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
from webhooks.engine.dispatch import Dispatched
from webhooks.engine.due import Due
from webhooks.engine.intake import HUNGRY, Intake
from webhooks.engine.pace import BUSY_SECONDS, Pace
from webhooks.engine.record import Result
from webhooks.engine.serving import Serving
from webhooks.engine.writing import Writer
from webhooks.models import Delivery
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
    intake.undispatched, intake.dispatched_at = True, time.monotonic()
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
    intake.dispatched_at -= intakes.FULL_SECONDS
    assert not intake.full()


@pytest.mark.parametrize(("pace", "rate"), [(0.5, None), (0.001, (10, 1))])
def test_what_waits_for_slow_endpoints_keeps_no_events_of_others_back(
    pace: float, rate: tuple[int, int] | None
) -> None:
    assert not backlog(pace, rate).full()


def test_a_look_that_is_put_off_is_still_wanted_and_follows_soon() -> None:
    pace = Pace()
    pace.look()
    pace.heard(True)
    pace.looked_at -= 1.0
    assert pace.next_look(False, True) <= time.monotonic()
    pace.put_off()
    assert 0.0 < pace.next_look(False, True) - time.monotonic() <= BUSY_SECONDS
    assert pace.look()


def test_outcomes_wait_for_others_only_while_there_are_some_to_come() -> None:
    writer = Writer(Serving(), writing.Inline(), 0)
    few, many = writing.FLUSH_BUSY - 1, writing.FLUSH_BUSY
    assert not writer.due(few)
    writer.add(cast("Result", object()), at_once=False)
    writer.oldest_result = time.monotonic() - writing.FLUSH_SECONDS
    assert writer.due(few)
    assert not writer.due(many)
    writer.oldest_result = time.monotonic() - writing.FLUSH_BUSY_SECONDS
    assert writer.due(many)
    writer.oldest_result = time.monotonic()
    writer.results *= writing.FLUSH_COUNT
    assert writer.due(many)


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
def test_an_engine_that_is_full_puts_looking_off_and_one_that_is_not_dispatches(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    conversation_actions.receive_message(channel=acme.channel, address="447717470000", body="x")
    taken: list[Dispatched] = []
    take_events = intakes.take_events

    def counted(*given: object) -> Dispatched:
        taken.append(take_events(*given))  # type: ignore[arg-type]
        return taken[-1]

    monkeypatch.setattr(intakes, "take_events", counted)
    with running_drain() as drain:
        monkeypatch.setattr(drain.intake, "full", lambda: True)
        drain.work(cast("Run", Briefly(5)), cast("Waiter", Briefly(0)))
        assert not taken
        monkeypatch.undo()
        drain.pace.looked_at = 0.0
        drain.work(cast("Run", Briefly(5)), cast("Waiter", Briefly(0)))
    assert Delivery.objects.get().state == "delivered"
