"""The database is asked several things at once: what one has not seen of the others misleads nobody."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from conftest import Cast
from conversations.actions import receive_message
from core.loops import Run
from core.tests import receivers
from core.tests.receivers import receiver
from core.wakeup import Waiter
from webhooks.engine import dispatch, due, outgoing
from webhooks.engine import intake as intakes
from webhooks.engine.breaker import FAILURES
from webhooks.engine.desk import Course, Desk, Inline, Line
from webhooks.engine.drain import Drain
from webhooks.engine.due import Part
from webhooks.engine.pace import BUSY_SECONDS, Pace
from webhooks.models import Delivery, Webhook
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


def sent_and_read_again(cast: Cast, desk: Slow) -> Drain:
    """An engine that has an answer to a message, wrote nothing of it, and reads the next one, which has come since."""
    drain = Drain(desk=desk)
    drain.settle((0, 1))
    receive_message(channel=cast.channel, address="447717470000", body="first")
    drain.look()
    drain.sender.start()
    deadline = time.monotonic() + 20.0
    while not drain.writer.results and time.monotonic() < deadline:
        drain.sender.collect(0.01)
    receive_message(channel=cast.channel, address="447717470000", body="second")
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
    assert pace.time_to_glance()
    pace.look()
    assert not pace.time_to_glance()
    pace.heard(True, False)
    assert not pace.time_to_glance()
    pace.heard(False, True)
    assert pace.time_to_glance()
    pace.glance()
    pace.heard(True, True)
    # Not at every hint.
    assert not pace.time_to_glance()
    pace.glanced_at -= BUSY_SECONDS
    assert pace.time_to_glance()


@pytest.mark.parametrize("order", [(Line.GLANCE, Line.LOOK), (Line.LOOK, Line.GLANCE)])
def test_what_both_a_glance_and_a_reading_find_is_sent_once(acme: Cast, endpoint: Endpoint, order: list[Line]) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    receive_message(channel=acme.channel, address="447717470001", body="third")
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
    receive_message(channel=acme.channel, address="447717470001", body="third")
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
        receive_message(channel=acme.channel, address=f"44771747000{number}", body="older")
    dispatch.dispatch()
    # There is room for two.
    monkeypatch.setattr(type(lane), "soon", lambda _lane, _seconds=0.0: 2 + len(lane.waiting))
    desk.tell(Line.LOOK)
    desk.wait()
    assert (len(lane.waiting), lane.backlog) == (2, True)
    receive_message(channel=acme.channel, address="447717470009", body="newer")
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
    receive_message(channel=acme.channel, address="447717470001", body="third")
    # What is due has been read when the glance dispatches the third, which it may not take.
    desk.tell(Line.LOOK)
    desk.follow(drain.intake.glance(), Line.GLANCE)
    desk.tell(Line.GLANCE)
    desk.wait()
    assert (len(lane.waiting), lane.more) == (1, True)
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 3


@only_postgresql
def test_events_of_others_are_left_to_them_for_a_moment(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    home = acme.organisation.pk % 2
    dispatch.dispatch()
    receive_message(channel=acme.channel, address="447717470000", body="whose")
    assert dispatch.waiting((home, 2), 0)
    assert not dispatch.waiting((1 - home, 2), 0)
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
    drain.intake.noted_at = float("-inf")
    # It has to be known for so long.
    assert left(0.0) == [True, False, False]
    drain.finish()


def test_who_has_nothing_else_to_do_takes_them_at_once(acme: Cast) -> None:
    drain = Drain()
    drain.serving.place = (1 - acme.organisation.pk % 2, 2)
    receive_message(channel=acme.channel, address="447717470000", body="whose")
    drain.inline.follow(drain.intake.look(True, True, False, False, ""))
    assert not dispatch.waiting()
    drain.finish()


_load = due.load
#: While one of these exists, reading what is due takes long.
_slow: list[Path] = []


def load_slowly(wanted: Sequence[Part]) -> list[tuple[Any, ...]]:
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

    def say(cast: Cast) -> None:
        receive_message(channel=cast.channel, address=cast.contact.address, body="now")

    def say_later() -> None:
        try:
            time.sleep(1.0)
            slow.touch()
            # The next reading has begun by then.
            time.sleep(1.5)
            said.append(time.monotonic())
            say(acme)
        finally:
            connections.close_all()

    with receiver(receivers.hang) as hanging:
        # Something is under way all the time.
        make_webhook(globex, callback_url=hanging.url)
        for cast in (acme, globex):
            say(cast)
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
