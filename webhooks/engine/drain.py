"""The loop that does it: dispatch, read what is due, send as a rolling stream, record; then wait for a commit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection
from functools import partial

from core.loops import Run
from core.wakeup import Waiter
from webhooks.engine import tally, tidying
from webhooks.engine.desk import Course, Inline, Line
from webhooks.engine.intake import Intake
from webhooks.engine.outgoing import DEADLINE
from webhooks.engine.pace import Pace
from webhooks.engine.sending import WAIT_SECONDS, Sender
from webhooks.engine.serving import Serving
from webhooks.engine.writing import FLUSH_BUSY_SECONDS, FLUSH_SECONDS, Writer

#: When nothing was sent for so long, what is under way is slow, and the engine otherwise idle, seconds.
QUIET_SECONDS = 0.01
#: At the end of a slice, what takes longer than this is waited for while the others are served, seconds.
SLOW_SECONDS = 0.25
LINGER_SECONDS = DEADLINE + 1.0
#: After a failure, how long it lets what the database was asked be done, seconds.
ABANDON_SECONDS = 5.0
#: How often it looks which webhooks are its own, seconds: at first sooner, as others may begin at the same moment.
PLACE_SECONDS = 2.0
PLACE_SOONEST = 0.125
#: The database is tidied up once nothing was dispatched or sent for so long, seconds.
TIDY_SECONDS = 0.5


class Drain:
    """One engine. With `desk`, a process of its own asks the database for what takes long."""

    def __init__(self, slot: int = 0, desk: Inline | None = None) -> None:
        self.slot = slot
        self.inline = Inline()
        self.desk = desk or self.inline
        self.pace = Pace()
        self.serving = Serving()
        self.writer = Writer(self.serving, self.desk, slot)
        self.sender = Sender(self.serving, self.writer)
        self.intake = Intake(self.serving, self.pace, self.begin)
        if (bell := self.desk.fileno()) is not None:
            self.sender.stream.watch(bell)
        #: The name by which others are woken that run the same loop.
        self.loop = ""
        #: Webhooks for which there may be something in a moment.
        self.expecting: set[int] = set()
        self.lingers_until: float | None = None
        #: Requests under way when it last told.
        self.told = 0

    def run(self, run: Run, waiter: Waiter) -> int:
        """Work until the slice is over, then finish what is under way. Returns how many requests were made."""
        try:
            self.work(run, waiter)
            self.finish()
        except BaseException:
            self.sender.stream.close()
            # Once nothing is sent or written any more, whoever goes on need not wait until the leases run out.
            if self.desk.abandon(ABANDON_SECONDS):
                with contextlib.suppress(Exception):
                    self.serving.leases.give_up_all()
            raise
        return self.sender.sent

    def work(self, run: Run, waiter: Waiter) -> None:
        """Work until the slice is over."""
        descriptor = waiter.fileno()
        if descriptor is not None:
            self.sender.stream.watch(descriptor)
        self.loop = waiter.name
        place_at, place_after = 0.0, PLACE_SOONEST
        while run.go_on() or self.linger(run):
            moment = time.monotonic()
            if moment >= place_at:
                self.settle(run.place())
                # One for all: it tells the others what it finds.
                self.pace.polls = descriptor is not None and self.serving.place[0] == 0
                place_at = moment + place_after
                place_after = min(PLACE_SECONDS, 2 * place_after)
            if not self.intake.looking:
                freed, starving = self.serving.freed, self.intake.starving()
                urgent = freed or starving
                due = moment >= self.next_look()
                if due and not urgent and not self.quiet() and self.intake.full():
                    self.pace.put_off()
                elif due or urgent:
                    unread = freed or (starving and not self.intake.undispatched)
                    thorough = unread or self.pace.time_to_read(self.intake.found)
                    self.look(self.pace.look() and descriptor is not None, thorough)
                    # What sending takes is read meanwhile.
                    self.sender.directory.endpoints(self.expecting)
                    self.expecting = set()
            elif moment >= self.next_glance():
                self.pace.glance()
                self.desk.follow(self.intake.glance(), Line.GLANCE)
            if self.untidy(moment):
                self.desk.follow(self.tidies())
            soonest = self.next_glance() if self.intake.looking else self.next_look()
            soonest = min(max(0.0, soonest - moment), self.sender.start(), WAIT_SECONDS)
            if descriptor is None and self.idle():
                woken = waiter.wait(soonest)
            else:
                self.collect(min(soonest, waiter.poll_seconds if self.quiet() else FLUSH_SECONDS))
                woken = waiter.woken()
            if woken:
                self.hear(waiter.topics)

    def next_look(self) -> float:
        """When to look for work, by `time.monotonic`."""
        return self.pace.next_look(self.quiet(), self.intake.found, self.serving.place[1] > 1)

    def next_glance(self) -> float:
        """When to glance at new events while a look goes on."""
        return self.pace.next_glance() if self.desk.lines > Line.GLANCE and not self.intake.glancing else math.inf

    def idle(self) -> bool:
        """Nothing is under way, nothing waits to be written, and the database is asked nothing."""
        return not self.sender.stream.in_flight and self.writer.idle() and not self.desk.busy

    def quiet(self) -> bool:
        """Nothing is under way but what does not answer, and nothing waits to be written."""
        sender = self.sender
        slow = not sender.stream.in_flight or time.monotonic() - sender.sent_at >= QUIET_SECONDS
        return slow and self.writer.idle()

    def hear(self, organisations: Collection[str]) -> None:
        """There are events of these organisations, "" for any. What others serve is left to them for a moment."""
        served = [
            (pk, str(lane.organisation_id)) for pk, lane in self.serving.lanes.items() if pk in self.serving.leases
        ]
        self.expecting |= {pk for pk, organisation in served if organisation in organisations}
        number, count = self.serving.place
        any_of_all = "" in organisations or count == 1
        home = any_of_all or any(int(pk) % count == number for pk in organisations if pk.isdecimal())
        self.pace.heard(bool(self.expecting) or any_of_all, home)

    def linger(self, run: Run) -> bool:
        """At the end of a slice: whether to go on, because something slow is under way, and others need not wait.

        No more is sent to those that are slow.
        """
        moment = time.monotonic()
        if not run.over or moment >= (self.lingers_until or moment + 1.0):
            return False
        if self.lingers_until is None:
            self.lingers_until = moment + LINGER_SECONDS
        slow = {one.delivery.webhook_id for one in self.sender.under_way if moment - one.round.began >= SLOW_SECONDS}
        if slow - self.serving.slow:
            self.serving.slow |= slow
            self.settle(self.serving.place)
        return bool(slow)

    def settle(self, place: tuple[int, int]) -> None:
        """Renew the leases, leave to the other engines what is theirs, and tell how much is under way."""
        self.serving.settle(place)
        self.tell()

    def tell(self) -> None:
        """Note how many requests are under way, where that changed."""
        if self.told != self.sender.stream.in_flight:
            self.told = self.sender.stream.in_flight
            self.desk.follow(self.tells())

    def tells(self) -> Course:
        """The course of telling it."""
        yield partial(tally.tell_in_flight, self.slot, self.told)

    def untidy(self, moment: float) -> bool:
        """Much was dispatched, and for a while nothing was dispatched or sent."""
        latest = max(self.sender.sent_at, self.intake.dispatched_at)
        return tidying.left.much and moment - latest >= TIDY_SECONDS and self.idle()

    def tidies(self) -> Course:
        """The course of tidying up after what was dispatched."""
        tidying.left.events = 0
        yield tidying.begin

    def look(self, hinted: bool = False, thorough: bool = True) -> None:
        """Look for work (`Intake.look`)."""
        # A process of its own takes longer to begin than the database to answer, and nothing else waits.
        idle, quiet = self.idle(), self.quiet()
        desk = self.inline if idle else self.desk
        desk.follow(self.intake.look(quiet, hinted, thorough, not idle, self.loop))
        if idle and self.intake.elsewhere:
            # That process may wait until that is done: what was made for us is then read at once.
            self.desk.follow(self.intake.look(quiet, hinted, thorough, True, self.loop))

    def begin(self) -> None:
        """Send what may be sent now, while more is being asked."""
        self.sender.start()
        self.sender.collect(0.0)

    def collect(self, timeout: float) -> None:
        """Take in finished requests, and write outcomes when there are enough or they have waited enough."""
        self.sender.collect(timeout)
        self.desk.proceed()
        more = self.sender.stream.in_flight + self.intake.startable(FLUSH_BUSY_SECONDS)
        if self.writer.due(more):
            self.writer.flush()

    def finish(self) -> None:
        """Leave what has not started, wait for what has, write everything, give up the leases."""
        self.intake.over = True
        for lane in self.serving.lanes.values():
            lane.forget_waiting()
        while self.sender.stream.in_flight:
            # What waits for a token is still sent.
            self.serving.leases.renew()
            self.collect(FLUSH_SECONDS)
        self.tell()
        self.desk.wait()
        while self.writer.results:
            self.writer.flush()
            self.desk.wait()
        self.serving.leases.give_up_all()
        self.sender.stream.close()
