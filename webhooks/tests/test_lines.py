"""The database is asked several things at once: what one has not seen of the others misleads nobody."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections, transaction

from conftest import Cast
from conversations.actions import receive_message
from core.loops import Run
from core.models import Sequence as Counter
from core.tests import receivers
from core.tests.receivers import receiver
from core.wakeup import Waiter
from webhooks.engine import dispatch, due, outgoing
from webhooks.engine import intake as intakes
from webhooks.engine.breaker import FAILURES
from webhooks.engine.desk import Course, Desk, Inline, Line
from webhooks.engine.drain import Drain
from webhooks.engine.due import Part
from webhooks.engine.lane import Lane
from webhooks.engine.pace import BUSY_SECONDS, OTHERS_BUSY_SECONDS, READ_IDLE_SECONDS, Pace
from webhooks.models import Delivery, Webhook
from webhooks.outstanding import POSITIONS
from webhooks.signals import LOOP
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, step

pytestmark = pytest.mark.django_db
only_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one engine and one line")


class Slow(Inline):
    """Does each job at once; what came of it is told when the test says, line by line."""

    def __init__(self) -> None:
        self.busy = 0
        self.done: tuple[deque[tuple[Course, Any]], ...] = tuple(deque() for _ in Line)

    def follow(self, course: Course, line: Line = Line.LOOK) -> None:
        self.busy += 1
        self.step(course, line, None)

    def step(self, course: Course, line: Line, result: Any) -> None:
        try:
            job = course.send(result)
        except StopIteration:
            self.busy -= 1
        else:
            self.done[line].append((course, job()))

    def tell(self, line: Line) -> None:
        """Tell what came of the oldest job of a line."""
        course, result = self.done[line].popleft()
        self.step(course, line, result)

    def wait(self) -> None:
        for line in Line:
            while self.done[line]:
                self.tell(line)

    proceed = wait


def say(cast: Cast, number: int, text: str = "now") -> None:
    """A message of a contact."""
    receive_message(channel=cast.channel, address=f"44771747{number:04}", body=text)


def answered(drain: Drain) -> None:
    """Send what is at hand, until there is an answer to be written."""
    drain.sender.start()
    deadline = time.monotonic() + 20.0
    while not drain.writer.results and time.monotonic() < deadline:
        drain.sender.collect(0.01)


def settled(cast: Cast, endpoint: Endpoint, **webhook: Any) -> tuple[Slow, Drain, Lane]:
    """An engine that has delivered a message and has nothing else to do, and the lane of its only webhook."""
    make_webhook(cast, callback_url=endpoint.url, **webhook)
    desk = Slow()
    drain = Drain(desk=desk)
    drain.settle((0, 1))
    say(cast, 9999, "before")
    drain.look()
    step(drain)
    endpoint.asked.clear()
    (lane,) = drain.serving.lanes.values()
    return desk, drain, lane


def sent_and_read_again(cast: Cast, desk: Slow) -> Drain:
    """An engine that has an answer to a message, wrote nothing of it, and reads the next one, which has come since."""
    drain = Drain(desk=desk)
    drain.settle((0, 1))
    say(cast, 0, "first")
    drain.look()
    answered(drain)
    say(cast, 0, "second")
    dispatch.dispatch()
    desk.follow(drain.intake.read())
    return drain


def finished(drain: Drain) -> None:
    drain.desk.wait()
    drain.finish()


def test_a_breaker_that_opens_while_deliveries_are_read_is_open(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.update(consecutive_failures=FAILURES - 1)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    # The reading has found the webhook as it was.
    drain.writer.flush()
    assert Webhook.objects.get().breaker_level == 1
    desk.tell(Line.WRITE)
    desk.wait()
    lane = drain.serving.lanes[webhook.pk]
    assert (lane.probing, lane.settled, len(lane.waiting)) == (True, False, 0)
    drain.sender.start()
    assert not drain.sender.under_way
    finished(drain)
    assert len(endpoint.asked) == 1
    assert list(Delivery.objects.order_by("pk").values_list("state", "attempt_count")) == [
        ("pending", 1),
        ("pending", 0),
    ]


def test_one_that_heals_meanwhile_is_not_taken_for_ill(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.update(breaker_level=1)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    lane = drain.serving.lanes[webhook.pk]
    assert lane.probing
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.wait()
    assert not lane.probing
    # What it left out is read soon.
    assert lane.more
    step(drain)
    finished(drain)
    assert [b"first" in body for body in bodies(endpoint)] == [True, False]


def test_what_follows_one_that_is_written_meanwhile_is_taken_at_once(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    # The second has been read, behind the first.
    desk.tell(Line.LOOK)
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.wait()
    lane = drain.serving.lanes[webhook.pk]
    first, second = Delivery.objects.order_by("pk")
    assert [(one.id, one.behind) for one in lane.waiting] == [(second.pk, first.pk)]
    step(drain)
    finished(drain)
    assert [b"first" in body for body in bodies(endpoint)] == [True, False]
    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("delivered", 1)}


def test_in_strict_order_what_follows_one_that_failed_meanwhile_waits(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url, ordering="strict")
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    desk.tell(Line.LOOK)
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.wait()
    assert not drain.serving.lanes[webhook.pk].waiting
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 1
    assert list(Delivery.objects.order_by("pk").values_list("state", "attempt_count")) == [
        ("pending", 1),
        ("pending", 0),
    ]


def test_a_glance_is_for_what_was_heard_of_since_the_look_began() -> None:
    pace = Pace()
    pace.heard(True, True)
    assert pace.next_glance() <= time.monotonic()
    pace.look()
    assert pace.next_glance() == math.inf
    pace.heard(True, False)
    assert pace.next_glance() == math.inf
    pace.heard(False, True)
    assert pace.next_glance() <= time.monotonic()
    pace.glance()
    assert pace.next_glance() == math.inf
    pace.missed()
    # Not at every hint.
    assert pace.next_glance() == pace.glanced_at + BUSY_SECONDS


def test_a_busy_engine_looks_sooner_where_another_may_have_died() -> None:
    pace = Pace()
    pace.look()
    alone, shared = pace.next_look(False, False), pace.next_look(False, False, shared=True)
    assert (alone, shared) == (pace.looked_at + READ_IDLE_SECONDS, pace.looked_at + OTHERS_BUSY_SECONDS / 2)
    assert pace.next_look(True, False, shared=True) == alone


@pytest.mark.parametrize("order", [(Line.GLANCE, Line.LOOK), (Line.LOOK, Line.GLANCE)])
def test_what_both_a_glance_and_a_reading_find_is_sent_once(acme: Cast, endpoint: Endpoint, order: list[Line]) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    say(acme, 1, "third")
    desk.follow(drain.intake.glance(), Line.GLANCE)
    # What is due is read after the glance has taken the third, and before that is told.
    desk.tell(Line.LOOK)
    assert desk.done[Line.LOOK]
    assert desk.done[Line.GLANCE]
    for line in order:
        desk.tell(line)
    _sent, *rest = Delivery.objects.order_by("pk").values_list("pk", flat=True)
    assert sorted(one.id for one in drain.serving.lanes[webhook.pk].waiting) == rest
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 3


def test_what_a_glance_took_is_not_read_by_a_reading_that_begins_later(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    say(acme, 1, "third")
    desk.follow(drain.intake.glance(), Line.GLANCE)
    desk.tell(Line.GLANCE)
    (lane,) = drain.serving.lanes.values()
    assert len(lane.waiting) == 1
    desk.wait()
    assert len(lane.waiting) == 2
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 3


def test_older_ones_come_first_where_a_reading_left_some(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    (lane,) = drain.serving.lanes.values()
    for number in range(1, 4):
        say(acme, number, "older")
    dispatch.dispatch()
    # There is room for two.
    monkeypatch.setattr(type(lane), "soon", lambda _lane, _seconds=0.0: 2 + len(lane.waiting))
    desk.tell(Line.LOOK)
    desk.wait()
    assert (len(lane.waiting), lane.backlog) == (2, True)
    say(acme, 9, "newer")
    desk.follow(drain.intake.glance(), Line.GLANCE)
    desk.wait()
    assert len(lane.waiting) == 2
    assert lane.more
    monkeypatch.undo()
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 6


def test_what_turns_out_to_be_due_while_a_reading_goes_on_is_remembered(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    lane = drain.serving.lanes[webhook.pk]
    lane.backlog = True
    say(acme, 1, "third")
    # What is due has been read when the glance dispatches the third, which it may not take.
    desk.tell(Line.LOOK)
    desk.follow(drain.intake.glance(), Line.GLANCE)
    desk.tell(Line.GLANCE)
    desk.wait()
    assert (len(lane.waiting), lane.more) == (1, True)
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 3


def test_a_glance_lets_nothing_overtake_what_a_reading_dropped(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, drain, lane = settled(acme, endpoint, ordering="strict")
    endpoint.status = 500
    say(acme, 1, "fails")
    drain.look()
    desk.wait()
    answered(drain)
    endpoint.status = 200
    # Something is due, so that the webhook is read, which has room for two.
    say(acme, 1, "behind it")
    dispatch.dispatch()
    say(acme, 2, "one")
    say(acme, 2, "two")
    desk.follow(drain.intake.read())
    desk.follow(drain.intake.glance(), Line.GLANCE)
    monkeypatch.setattr(type(lane), "soon", lambda _lane, _seconds=0.0: 2)
    desk.tell(Line.LOOK)
    monkeypatch.undo()
    # A failure in strict order: the webhook has to be read again from its oldest.
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.tell(Line.LOOK)
    desk.tell(Line.GLANCE)
    assert lane.more
    step(drain)
    finished(drain)
    said = [text for body in bodies(endpoint) for text in (b"one", b"two") if b':"' + text in body]
    assert said == [b"one", b"two"]


def test_in_strict_order_a_glance_waits_for_what_was_read_and_failed_meanwhile(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, drain, lane = settled(acme, endpoint, ordering="strict")
    endpoint.status = 500
    say(acme, 2, "one")
    say(acme, 2, "two")
    desk.follow(drain.intake.glance(), Line.GLANCE)
    monkeypatch.setattr(type(lane), "soon", lambda _lane, _seconds=0.0: 1)
    desk.follow(drain.intake.read())
    desk.tell(Line.LOOK)
    desk.tell(Line.LOOK)
    monkeypatch.undo()
    answered(drain)
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.tell(Line.GLANCE)
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("glance", [False, True])
def test_what_a_reading_dropped_is_read_again_soon(acme: Cast, endpoint: Endpoint, glance: bool) -> None:
    desk, drain, lane = settled(acme, endpoint, ordering="strict")
    endpoint.status = 500
    say(acme, 1, "fails")
    drain.look()
    desk.wait()
    answered(drain)
    say(acme, 2, "one")
    if not glance:
        dispatch.dispatch()
    desk.follow(drain.intake.look(False, False, True, False, ""))
    if glance:
        desk.follow(drain.intake.glance(), Line.GLANCE)
    while not lane.reading:
        desk.tell(Line.LOOK)
    drain.writer.flush()
    desk.tell(Line.WRITE)
    desk.wait()
    assert lane.waiting or drain.intake.found
    finished(drain)


def test_nothing_starts_until_what_decides_is_written_whatever_was_written_before(
    acme: Cast, endpoint: Endpoint
) -> None:
    desk, drain, lane = settled(acme, endpoint)
    for number in range(5):
        say(acme, number)
    drain.inline.follow(drain.intake.look(False, True, True, False, ""))
    first, second, *rest = lane.waiting
    lane.waiting = deque([first])
    answered(drain)
    drain.writer.flush()
    lane.waiting = deque([second])
    endpoint.status = 410
    answered(drain)
    lane.waiting = deque(rest)
    # The first, which says nothing about the endpoint being gone.
    desk.tell(Line.WRITE)
    drain.sender.start()
    assert not drain.sender.under_way
    finished(drain)
    assert len(endpoint.asked) == 2
    assert Webhook.objects.get().state == "disabled"


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_a_glance_that_meets_another_engine_is_repeated(acme: Cast, endpoint: Endpoint) -> None:
    desk, drain, lane = settled(acme, endpoint)
    drain.pace.look()
    locked, done = threading.Event(), threading.Event()

    def number_events() -> None:
        try:
            with transaction.atomic():
                Counter.objects.select_for_update(no_key=True).get(name=POSITIONS)
                locked.set()
                done.wait(20)
        finally:
            connections.close_all()

    elsewhere = threading.Thread(target=number_events)
    elsewhere.start()
    try:
        assert locked.wait(20)
        say(acme, 1)
        drain.pace.heard(True, True)
        drain.pace.glance()
        desk.follow(drain.intake.glance(), Line.GLANCE)
        desk.wait()
        assert drain.pace.next_glance() == drain.pace.glanced_at + BUSY_SECONDS
    finally:
        done.set()
        elsewhere.join()
    desk.follow(drain.intake.glance(), Line.GLANCE)
    desk.wait()
    assert len(lane.waiting) == 1
    finished(drain)


@only_postgresql
def test_who_was_told_of_what_is_left_to_another_reads_what_that_makes_of_it(acme: Cast) -> None:
    webhooks = [make_webhook(acme), make_webhook(acme)]
    drain = Drain()
    # The second webhook's, not the first one's and the organisation's.
    drain.settle((1 - acme.organisation.pk % 2, 2))
    say(acme, 0)
    drain.inline.follow(drain.intake.look(True, True, True, False, ""))
    assert webhooks[1].pk in drain.serving.leases
    say(acme, 1)
    drain.inline.follow(drain.intake.look(False, True, False, False, ""))
    assert dispatch.waiting()
    assert drain.intake.unread
    assert drain.intake.found
    drain.finish()


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_a_busy_engine_takes_what_one_that_died_has_left(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    make_webhook(acme)
    Webhook.objects.update(state=Webhook.State.PAUSED)
    place = (1 - acme.organisation.pk % 2, 2)
    run = Run(name=LOOP, slot_id=0, holder="", ends_at=time.monotonic() + 20.0)
    monkeypatch.setattr(run, "place", lambda: place)
    monkeypatch.setattr(Drain, "quiet", lambda _drain: False)
    monkeypatch.setattr(Drain, "idle", lambda _drain: False)
    took: list[float] = []

    def talk() -> None:
        try:
            for number in range(3):
                time.sleep(1.1)
                say(acme, number)
                began = time.monotonic()
                while dispatch.waiting() and time.monotonic() - began < 5.0:
                    time.sleep(0.01)
                took.append(time.monotonic() - began)
        finally:
            connections.close_all()

    talking = threading.Thread(target=talk)
    monkeypatch.setattr(run, "go_on", talking.is_alive)
    talking.start()
    try:
        with Desk(len(Line)) as desk, contextlib.closing(Waiter(LOOP)) as waiter:
            Drain(0, desk).run(run, waiter)
    finally:
        talking.join()
    assert len(took) == 3
    assert max(took) < 2.0


@only_postgresql
def test_events_of_others_are_left_to_them_for_a_moment(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    home = acme.organisation.pk % 2
    dispatch.dispatch()
    say(acme, 0, "whose")
    assert dispatch.waiting(place=(home, 2), others=0)
    assert not dispatch.waiting(place=(1 - home, 2), others=0)
    assert dispatch.dispatch(place=(1 - home, 2), others=0).events == 0

    drain = Drain()
    drain.serving.place = (1 - home, 2)

    def left(seconds: float) -> list[bool]:
        """Look three times while busy: whether it was left to others each time."""
        monkeypatch.setattr(intakes, "OTHERS_BUSY_SECONDS", seconds)
        found = []
        for _ in range(3):
            drain.inline.follow(drain.intake.look(False, True, False, False, ""))
            found.append(dispatch.waiting())
        return found

    assert left(60.0) == [True, True, True]
    # What was there at the latest look.
    assert left(0.0) == [False, False, False]
    drain.finish()


def test_who_has_nothing_else_to_do_takes_them_at_once(acme: Cast) -> None:
    drain = Drain()
    drain.serving.place = (1 - acme.organisation.pk % 2, 2)
    say(acme, 0, "whose")
    drain.inline.follow(drain.intake.look(True, True, False, False, ""))
    assert not dispatch.waiting()
    drain.finish()


_load = due.load
#: While one of these exists, reading what is due takes long.
_slow: list[Path] = []


def load_slowly(wanted: list[Part]) -> list[tuple[Any, ...]]:
    """Read what is due, as slowly as it may be."""
    if any(path.exists() for path in _slow):
        time.sleep(3.0)
    return _load(wanted)


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_a_new_event_does_not_wait_for_a_reading_that_takes_long(
    acme: Cast, globex: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outgoing, "DEADLINE", 8.0)
    monkeypatch.setattr(due, "load", load_slowly)
    slow = tmp_path / "slow"
    monkeypatch.setattr(sys.modules[__name__], "_slow", [slow])
    make_webhook(acme, callback_url=endpoint.url)
    said: list[float] = []

    def say_later() -> None:
        try:
            time.sleep(1.0)
            slow.touch()
            # The next reading has begun by then.
            time.sleep(1.5)
            said.append(time.monotonic())
            say(acme, 0)
        finally:
            connections.close_all()

    with receiver(receivers.hang) as hanging:
        # Something is under way all the time.
        make_webhook(globex, callback_url=hanging.url)
        for cast in (acme, globex):
            say(cast, 0)
        run = Run(name=LOOP, slot_id=0, holder="", ends_at=time.monotonic() + 5.0)
        monkeypatch.setattr(run, "place", lambda: (0, 1))
        monkeypatch.setattr(run, "go_on", lambda: time.monotonic() < run.ends_at)
        later = threading.Thread(target=say_later)
        later.start()
        try:
            with Desk(len(Line)) as desk, contextlib.closing(Waiter(LOOP)) as waiter:
                Drain(0, desk).run(run, waiter)
        finally:
            later.join()
    _first, second = endpoint.asked
    assert second.at - said[0] < 1.0
