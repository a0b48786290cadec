"""Loops: as many runs as there are slots, each slice with a successor, and dead ones replaced."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connections
from django_q.models import OrmQ, Schedule
from django_q.scheduler import scheduler

from core import loops
from core.clock import held_at, now
from core.loops import LEASE, QUEUED, Loop
from core.models import Slot

#: Holding a slot gives up connections that are in a transaction.
pytestmark = pytest.mark.django_db(transaction=True)

NAME = "rounds"
CLUSTER = "carousel"


@pytest.fixture
def slots(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The only loop there is; the list's one number says how many of it run at once."""
    wanted = [2]
    monkeypatch.setattr(loops, "LOOPS", {})
    monkeypatch.setattr(loops, "keepalives", [])
    loops.register(Loop(NAME, "core.tests.test_loops.turn", CLUSTER, lambda: wanted[0]))
    yield wanted
    loops._stopping.clear()


def queued() -> int:
    """Starts that lie in the cluster's queue."""
    return OrmQ.objects.filter(key=CLUSTER).count()


def in_threads(count: int, run: Callable[[], object]) -> None:
    """Run it so many times at once and wait for all."""
    barrier = threading.Barrier(count)

    def body() -> None:
        barrier.wait(10)
        try:
            run()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_registering_again_changes_nothing(slots: list[int]) -> None:
    loops.register(Loop(NAME, "other.task", "other", lambda: 9))
    assert loops.LOOPS[NAME].cluster == CLUSTER
    assert len(loops.keepalives) == 1


def test_ensure_queues_a_start_for_each_free_slot_once(slots: list[int]) -> None:
    moment = now()
    with held_at(moment):
        assert loops.ensure(NAME) == 2
        assert loops.ensure(NAME) == 0
    assert queued() == 2
    task = OrmQ.objects.filter(key=CLUSTER)[0].task
    assert (task["func"], task["args"]) == ("core.tests.test_loops.turn", ())
    with held_at(moment + QUEUED - timedelta(milliseconds=1)):
        assert loops.ensure(NAME) == 0
    # A start that did not happen is queued again.
    with held_at(moment + QUEUED):
        assert loops.ensure(NAME) == 2


def test_the_keepalive_ensures(slots: list[int]) -> None:
    for keepalive in loops.keepalives:
        keepalive()
    assert queued() == 2


def test_ensure_leaves_runs_alone_until_their_lease_is_over(slots: list[int]) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    moment = now()
    with held_at(moment), loops.hold(NAME) as run:
        assert run is not None
        assert loops.ensure(NAME) == 0
        with held_at(moment + LEASE - timedelta(milliseconds=1)):
            assert (loops.ensure(NAME), loops.alive(NAME)) == (0, 1)
        with held_at(moment + LEASE):
            assert (loops.ensure(NAME), loops.alive(NAME)) == (1, 0)


def test_fewer_slots_than_before_are_respected(slots: list[int]) -> None:
    moment = now()
    with held_at(moment):
        loops.ensure(NAME)
    slots[0] = 1
    with held_at(moment + QUEUED):
        assert loops.ensure(NAME) == 1
        with loops.hold(NAME) as first, loops.hold(NAME) as second:
            assert first is not None
            assert second is None


def test_without_slots_nobody_runs(slots: list[int]) -> None:
    slots[0] = 0
    assert loops.ensure(NAME) == 0
    with loops.hold(NAME) as run:
        assert run is None
    assert queued() == 0


def test_a_loop_that_has_nothing_more_to_do_queues_no_successor_and_starts_at_once_again(slots: list[int]) -> None:
    slots[0] = 1
    moment = now()
    with held_at(moment):
        loops.ensure(NAME)
        OrmQ.objects.all().delete()
        with loops.hold(NAME) as run:
            assert run is not None
            slots[0] = 0
        assert (queued(), loops.ensure(NAME), loops.silent_seconds(NAME)) == (0, 0, 0.0)
        slots[0] = 1
        assert loops.ensure(NAME) == 1


def test_a_start_that_finds_nothing_to_do_delays_no_other(slots: list[int]) -> None:
    slots[0] = 1
    with held_at(now()):
        assert loops.ensure(NAME) == 1
        slots[0] = 0
        with loops.hold(NAME) as run:
            assert run is None
        slots[0] = 1
        assert loops.ensure(NAME) == 1


def test_work_that_comes_while_a_loop_leaves_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [1, 1, 0, 1]
    monkeypatch.setattr(
        loops, "LOOPS", {NAME: Loop(NAME, "core.tests.test_loops.turn", CLUSTER, lambda: answers.pop(0))}
    )
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    with loops.hold(NAME) as run:
        assert run is not None
    assert (queued(), answers) == (1, [])


def test_leaving_frees_the_slot_and_queues_the_successor(slots: list[int]) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    with loops.hold(NAME) as run:
        assert run is not None
        assert loops.alive(NAME) == 1
        assert queued() == 0
    assert loops.alive(NAME) == 0
    assert queued() == 1
    # The successor is queued: nobody queues another one, and it finds the slot free.
    assert loops.ensure(NAME) == 0
    with loops.hold(NAME) as run:
        assert run is not None


def test_one_that_finds_no_slot_queues_no_successor(slots: list[int]) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    with loops.hold(NAME):
        with loops.hold(NAME) as surplus:
            assert surplus is None
        assert queued() == 0


def test_one_that_fails_has_a_successor_too(slots: list[int]) -> None:
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    with pytest.raises(ZeroDivisionError), loops.hold(NAME):
        raise ZeroDivisionError
    assert (loops.alive(NAME), queued()) == (0, 1)


def test_a_run_goes_on_until_its_slice_is_over(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "SLICE_SECONDS", 0.2)
    loops.ensure(NAME)
    began = time.monotonic()
    with loops.hold(NAME) as run:
        assert run is not None
        while run.go_on():
            assert time.monotonic() - began < 5
            time.sleep(0.01)
    assert time.monotonic() - began >= 0.2 * loops.SHORTEST


def test_slices_that_begin_together_do_not_end_together(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "SLICE_SECONDS", 1e9)
    slots[0] = 2
    loops.ensure(NAME)
    with loops.hold(NAME) as first, loops.hold(NAME) as second:
        assert first is not None
        assert second is not None
        assert abs(first.ends_at - second.ends_at) > 100.0


def test_a_loop_may_have_longer_slices(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "SLICE_SECONDS", 0.01)
    loop = Loop(NAME, "core.tests.test_loops.turn", CLUSTER, lambda: 1, slice_seconds=30.0)
    monkeypatch.setattr(loops, "LOOPS", {NAME: loop})
    loops.ensure(NAME)
    with loops.hold(NAME) as run:
        assert run is not None
        time.sleep(0.02)
        assert run.go_on()


def test_going_on_renews_the_lease(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    moment = now()
    with held_at(moment), loops.hold(NAME) as run:
        assert run is not None
        with held_at(moment + timedelta(seconds=9)):
            assert run.go_on()
            # Not at every question: that would be a write each.
            assert Slot.objects.get().lease_until == moment + LEASE
            monkeypatch.setattr(loops, "RENEW_SECONDS", 0.0)
            assert run.go_on()
        assert Slot.objects.get().lease_until == moment + timedelta(seconds=9) + LEASE


def test_a_run_that_lost_its_slot_stops_and_touches_nothing(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    monkeypatch.setattr(loops, "RENEW_SECONDS", 0.0)
    with loops.hold(NAME) as first:
        assert first is not None
        with held_at(now() + LEASE), loops.hold(NAME) as second:
            assert second is not None
            assert not first.go_on()
            assert not first.go_on()
            assert second.go_on()
        assert (queued(), Slot.objects.get().holder) == (1, "")
    assert queued() == 1


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_told_to_stop_a_run_leaves_at_once_and_its_slot_may_be_started(
    slots: list[int], number: signal.Signals
) -> None:
    slots[0] = 1
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    before = signal.getsignal(signal.SIGINT)
    with loops.hold(NAME) as run:
        assert run is not None
        assert run.go_on()
        os.kill(os.getpid(), signal.SIGINT)
        assert not run.go_on()
    assert signal.getsignal(signal.SIGINT) is before
    assert (loops.alive(NAME), queued()) == (0, 0)
    assert loops.ensure(NAME) == 1


def test_of_several_that_ensure_at_once_one_queues(slots: list[int]) -> None:
    slots[0] = 3
    in_threads(6, lambda: loops.ensure(NAME))
    assert queued() == 3


def test_of_several_that_start_at_once_as_many_run_as_there_are_slots(slots: list[int]) -> None:
    loops.ensure(NAME)
    OrmQ.objects.all().delete()
    ran: list[bool] = []
    together = threading.Barrier(6)

    def turn() -> None:
        with loops.hold(NAME) as run:
            ran.append(run is not None)
            together.wait(20)

    in_threads(6, turn)
    assert sorted(ran) == [False] * 4 + [True] * 2
    assert (loops.alive(NAME), queued()) == (0, 2)


def test_runs_share_by_their_place_also_while_a_successor_is_queued(slots: list[int]) -> None:
    loops.ensure(NAME)
    with loops.hold(NAME) as first:
        assert first is not None
        with loops.hold(NAME) as second:
            assert second is not None
            assert sorted((first.place(), second.place())) == [(0, 2), (1, 2)]
        assert first.place()[1] == 2
        with held_at(now() + QUEUED + timedelta(seconds=1)):
            assert first.place() == (0, 1)


def test_a_start_that_never_happens_has_no_share(slots: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    loops.ensure(NAME)
    monkeypatch.setattr(loops, "RENEW_SECONDS", 0.0)
    with loops.hold(NAME) as run:
        assert run is not None
        assert run.place() == (0, 1)
        for seconds in (16, 32, 48):
            with held_at(now() + timedelta(seconds=seconds)):
                assert run.go_on()
                assert loops.ensure(NAME) == 1
                assert run.place() == (0, 1)


@pytest.mark.parametrize(
    ("kind", "minutes", "ahead", "due"),
    [
        (Schedule.MINUTES, 1, timedelta(days=10), True),
        (Schedule.MINUTES, 1, timedelta(minutes=1), False),
        (Schedule.HOURLY, None, timedelta(hours=3), True),
        (Schedule.HOURLY, None, timedelta(hours=1), False),
        (Schedule.ONCE, None, timedelta(days=10), False),
    ],
)
def test_a_schedule_that_ran_by_a_clock_that_was_ahead_runs_after_the_next_slice(
    slots: list[int], kind: str, minutes: int | None, ahead: timedelta, due: bool
) -> None:
    Schedule.objects.all().delete()
    later = now() + ahead
    Schedule.objects.create(
        name="x", func="core.tests.test_loops.turn", schedule_type=kind, minutes=minutes, next_run=later
    )
    loops.ensure(NAME)
    with loops.hold(NAME) as run:
        assert run is not None
        assert Schedule.objects.get().next_run == later
    scheduler()
    assert (Schedule.objects.get().task is not None) == due
    assert (Schedule.objects.get().next_run == later) != due


def test_one_is_alone_until_it_leaves_or_its_time_is_over() -> None:
    span = timedelta(minutes=1)
    moment = now()
    with held_at(moment), loops.alone("mails", span) as first:
        with loops.alone("mails", span) as second, loops.alone("other", span) as third:
            assert (first, second, third) == (True, False, True)
        # As when it has died; then the clock is put back.
        for later in (span, timedelta(days=-1)):
            with held_at(moment + later), loops.alone("mails", span) as next_one:
                assert next_one
                with loops.alone("mails", span) as beside:
                    assert not beside
    with held_at(moment + timedelta(seconds=1)), loops.alone("mails", span) as after:
        assert after


def test_of_several_at_once_one_is_alone() -> None:
    found: list[bool] = []
    together = threading.Barrier(4)

    def enter() -> None:
        with loops.alone("mails", timedelta(minutes=1)) as alone:
            found.append(alone)
            together.wait(20)

    in_threads(4, enter)
    assert sorted(found) == [False] * 3 + [True]
