"""The loop that does it: dispatch, read what is due, send as a rolling stream, record; then wait for a commit."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import cast

from django.db import DEFAULT_DB_ALIAS, DataError, IntegrityError, connections

from core import wakeup
from core.clock import now
from core.loops import Run
from core.outbound import Outcome, Stream, no_answer
from core.wakeup import Waiter
from webhooks.endpoint_auth import Authentication, Tokens
from webhooks.engine import dispatch, due, record, tally
from webhooks.engine.desk import Course, Inline
from webhooks.engine.dispatch import Dispatched
from webhooks.engine.due import Due, Wanting
from webhooks.engine.lane import Lane
from webhooks.engine.leases import Leases
from webhooks.engine.outgoing import DEADLINE, BodyTooLarge, Directory, Endpoint, build
from webhooks.engine.pace import Pace
from webhooks.engine.record import Result, Written
from webhooks.engine.schedule import GONE, OUR_FAULT, OURS, UNSENT

log = logging.getLogger("webio.deliveries")


#: Requests at once, over all webhooks, and at most for one organisation. A webhook's own cap is `Lane.cap`.
IN_FLIGHT = 512
IN_FLIGHT_PER_ORGANISATION = 384
#: Deliveries read ahead of sending.
AHEAD = 2000
#: Events dispatched at a look at least, where there are any.
DISPATCH_LEAST = 250
#: Outcomes are written when there are so many, or when the oldest has waited so long, seconds.
FLUSH_COUNT = 500
FLUSH_SECONDS = 0.02
#: With so many requests under way there is more to come: outcomes wait longer, for larger writes.
FLUSH_BUSY_IN_FLIGHT = 32
FLUSH_BUSY_SECONDS = 0.1
#: With less than this left to start it looks for more at once.
HUNGRY = AHEAD // 2
#: The longest wait for something to happen, seconds.
WAIT_SECONDS = 0.5
#: When nothing was sent for so long, what is under way is slow, and the engine otherwise idle, seconds.
QUIET_SECONDS = 0.01
#: At the end of a slice, what takes longer than this is waited for while the others are served, seconds.
SLOW_SECONDS = 0.25
LINGER_SECONDS = DEADLINE + 1.0
#: How often it looks which webhooks are its own, seconds: at first sooner, as others may begin at the same moment.
PLACE_SECONDS = 2.0
PLACE_SOONEST = 0.125
#: After so long at most the reading starts again at the oldest, where lanes may have become free, seconds.
REWIND_SECONDS = 2.0


@dataclass(slots=True, eq=False)
class Sending:
    """One attempt on its way."""

    delivery: Due
    endpoint: Endpoint
    attempted_at: datetime
    #: A new token has been asked for, because the endpoint refused the first.
    renewed: bool = False
    #: When it began, by `time.monotonic`.
    began: float = 0.0


class Drain:
    """One engine. With `desk`, a thread of its own asks the database for what takes long."""

    def __init__(self, slot: int = 0, desk: Inline | None = None) -> None:
        self.slot = slot
        self.inline = Inline()
        self.desk = desk or self.inline
        self.stream = Stream(connections=IN_FLIGHT)
        if (bell := self.desk.fileno()) is not None:
            self.stream.watch(bell)
        self.directory = Directory()
        self.leases = Leases()
        self.lanes: dict[int, Lane] = {}
        self.pace = Pace()
        #: The name by which others are woken that run the same loop.
        self.loop = ""
        #: Requests under way, also by organisation, and when the latest began.
        self.under_way: set[Sending] = set()
        self.in_flight: dict[int, int] = {}
        self.sent_at = 0.0
        self.tokens = Tokens()
        #: What waits for a token, by what asks for it.
        self.parked: dict[bytes, list[Sending]] = {}
        self.results: list[Result] = []
        self.oldest_result = 0.0
        self.sent = 0
        #: It is looking for work; whether the latest look left any that could be taken, events that nobody dispatched.
        self.looking = False
        self.found = False
        self.undispatched = False
        #: Outcomes are being written.
        self.writing = False
        #: Webhooks for which there may be something in a moment.
        self.expecting: set[int] = set()
        #: A lane has become free whose next ones may not have been read because they waited.
        self.freed = False
        #: This engine's number, from 0, and how many there are.
        self.place = (0, 1)
        #: Which engine should serve a webhook, of those that are known (`webhooks.engine.due.Wanting`).
        self.homes: dict[int, int] = {}
        #: Webhooks to be left to others when nothing of theirs is under way any more; those that are slow at the end.
        self.leaving: set[int] = set()
        self.slow: set[int] = set()
        self.lingers_until: float | None = None
        #: Requests under way when it last told.
        self.told = 0

    def run(self, run: Run, waiter: Waiter) -> int:
        """Work until the slice is over, then finish what is under way. Returns how many requests were made."""
        descriptor = waiter.fileno()
        if descriptor is not None:
            self.stream.watch(descriptor)
        self.loop = waiter.name
        # Before anything is sent: of what a crash of the database takes back nothing may be told over a new connection.
        self.desk.follow(connect())
        place_at, place_after = 0.0, PLACE_SOONEST
        while run.go_on() or self.linger(run):
            moment = time.monotonic()
            if moment >= place_at:
                self.settle(run.place())
                # One for all: it tells the others what it finds.
                self.pace.polls = descriptor is not None and self.place[0] == 0
                place_at = moment + place_after
                place_after = min(PLACE_SECONDS, 2 * place_after)
            if not self.looking:
                urgent = self.freed or self.starving()
                if urgent or moment >= self.pace.next_look(self.quiet(), self.found):
                    thorough = urgent or self.pace.time_to_read(self.found)
                    self.look(self.pace.look() and descriptor is not None, thorough)
                    # What sending takes is read meanwhile.
                    self.directory.endpoints(self.expecting)
                    self.expecting = set()
            soonest = WAIT_SECONDS
            if not self.looking:
                soonest = max(0.0, self.pace.next_look(self.quiet(), self.found) - moment)
            soonest = min(soonest, self.start())
            if descriptor is None and self.idle():
                woken = waiter.wait(soonest)
            else:
                self.collect(min(soonest, waiter.poll_seconds if self.quiet() else FLUSH_SECONDS))
                woken = waiter.woken()
            if woken:
                self.hear(waiter.topics)
        self.finish()
        return self.sent

    def idle(self) -> bool:
        """Nothing is under way, nothing waits to be written, and the database is asked nothing."""
        return not (self.stream.in_flight or self.results or self.writing or self.desk.busy)

    def quiet(self) -> bool:
        """The same, but for what does not answer."""
        slow = not self.stream.in_flight or time.monotonic() - self.sent_at >= QUIET_SECONDS
        return slow and not (self.results or self.writing)

    def hear(self, organisations: Collection[str]) -> None:
        """There are events of these organisations, "" for any. What others serve is left to them for a moment."""
        served = [(pk, str(lane.organisation_id)) for pk, lane in self.lanes.items() if pk in self.leases]
        self.expecting |= {pk for pk, organisation in served if organisation in organisations}
        self.pace.heard(bool(self.expecting) or "" in organisations or self.place[1] == 1)

    def linger(self, run: Run) -> bool:
        """At the end of a slice: whether to go on, because something slow is under way, and others need not wait.

        No more is sent to those that are slow.
        """
        moment = time.monotonic()
        if not run.over or moment >= (self.lingers_until or moment + 1.0):
            return False
        if self.lingers_until is None:
            self.lingers_until = moment + LINGER_SECONDS
        slow = {one.delivery.webhook_id for one in self.under_way if moment - one.began >= SLOW_SECONDS}
        if slow - self.slow:
            self.slow |= slow
            self.settle(self.place)
        return bool(slow)

    def starving(self) -> bool:
        """There is more to take, and something would wait for it."""
        return self.hungry() and (self.undispatched or any(lane.starving() for lane in self.lanes.values()))

    def hungry(self) -> bool:
        """Little is left to start."""
        return sum(len(lane.waiting) for lane in self.lanes.values()) < HUNGRY

    def settle(self, place: tuple[int, int]) -> None:
        """Renew the leases, and leave to the other engines, as many as there are now, what is theirs."""
        self.place = place
        for webhook_id in self.leases.renew():
            self.lane(webhook_id).forget_waiting()
        self.leaving = {pk for pk in self.leases if not self.mine(pk) or pk in self.slow}
        for webhook_id in self.leaving:
            self.lane(webhook_id).forget_waiting()
        self.leave()
        self.tell()

    def tell(self) -> None:
        """Note how many requests are under way, where that changed."""
        if self.told != self.stream.in_flight:
            self.told = self.stream.in_flight
            self.desk.follow(self.tells())

    def tells(self) -> Course:
        """The course of telling it."""
        yield partial(tally.tell_in_flight, self.slot, self.told)

    def leave(self) -> None:
        """Give up the leases of webhooks that are another engine's as soon as all is written of what was sent."""
        done = {webhook_id for webhook_id in self.leaving if not self.lane(webhook_id).held}
        if done:
            self.leaving -= done
            self.leases.give_up(done)

    def mine(self, webhook_id: int) -> bool:
        """Whether this engine is the one that should serve the webhook, as far as is known."""
        number, count = self.place
        return self.homes.get(webhook_id, number) % count == number

    def lane(self, webhook_id: int) -> Lane:
        """What is held for a webhook."""
        return self.lanes.setdefault(webhook_id, Lane())

    def look(self, hinted: bool = False, thorough: bool = True) -> None:
        """Take new events and, if `thorough`, read due deliveries; then `found` tells whether there is more.

        An event that comes while nothing else happens is sent without a further look at the database. `hinted`:
        somebody said that there are events.
        """
        self.freed = False
        self.looking = True
        # A thread of its own takes longer to begin than the database to answer, and nothing else waits.
        desk = self.inline if self.idle() else self.desk
        desk.follow(self.looks(hinted, thorough))

    def looks(self, hinted: bool, thorough: bool) -> Course:
        """The course of a look."""
        quiet = self.quiet()
        # What others have dispatched comes before what is dispatched now, which could not be taken before it.
        before = thorough and self.place[1] > 1 and not quiet
        if before:
            yield from self.reads()
        wanted, room = self.room()
        taken: Dispatched = yield partial(take_events, hinted, self.hungry(), self.place, wanted, room)
        whole = self.accept(taken.fresh, taken.others) and len(taken.fresh) < max(room, 1)
        if taken.events and quiet and not hinted and self.place[1] > 1 and self.loop:
            # Nobody else may have heard of these either.
            yield partial(wakeup.send, self.loop)
        self.undispatched = taken.events >= DISPATCH_LEAST
        after = not before and (thorough or not whole or taken.elsewhere or (hinted and not taken.events))
        if after:
            yield from self.reads()
        more = any(lane.more and lane.quota() > 0 for lane in self.lanes.values())
        # What was heard of may have been dispatched by others, also beside what was not.
        untold = hinted and self.place[1] > 1 and not after
        self.found = more or self.undispatched or taken.elsewhere or untold
        self.looking = False

    def reads(self) -> Course:
        """The course of reading due deliveries, of all webhooks that this engine serves or may begin to serve."""
        self.pace.read()
        wanting: list[Wanting] = yield due.webhooks_with_due_work
        self.homes.update((one.webhook_id, one.home) for one in wanting)
        wanting = [one for one in wanting if self.mine(one.webhook_id) and one.webhook_id not in self.slow]
        missing = [one.webhook_id for one in wanting if one.webhook_id not in self.leases]
        if missing:
            self.leases.add((yield partial(self.leases.ask, missing)))
        yield from self.read(self.quotas(wanting))

    def waiting(self) -> dict[int, int]:
        """How many deliveries wait to be started, by organisation."""
        found: dict[int, int] = {}
        for lane in self.lanes.values():
            if lane.waiting:
                found[lane.organisation_id] = found.get(lane.organisation_id, 0) + len(lane.waiting)
        return found

    def room(self) -> tuple[list[int], int]:
        """The webhooks of which `accept` could take deliveries just made, and how many."""
        quotas = {pk: lane.quota() for pk, lane in self.lanes.items() if lane.settled and self.serves(pk)}
        wanted = {pk: quota for pk, quota in quotas.items() if quota > 0}
        return list(wanted), max(0, min(sum(wanted.values()), AHEAD - sum(self.waiting().values())))

    def serves(self, webhook_id: int) -> bool:
        """Whether this engine may read the webhook's deliveries and send them."""
        return webhook_id in self.leases and webhook_id not in self.leaving

    def accept(self, fresh: list[Due], others: list[int]) -> bool:
        """Take deliveries just made, except where reading has to decide; `others` are webhooks with further ones.

        Returns whether that was all there is for this engine.
        """
        whole = True
        waiting = self.waiting()
        latest: dict[tuple[int, int], int] = {}
        for one in fresh:
            if one.lane is not None:
                one.behind = latest.get((one.webhook_id, one.lane), one.behind)
                latest[one.webhook_id, one.lane] = one.id
            lane = self.lane(one.webhook_id)
            if (
                lane.settled
                and self.serves(one.webhook_id)
                and (one.behind is None or one.behind in lane.held)
                and lane.quota() > 0
                and waiting.get(one.organisation_id, 0) < AHEAD // 4
            ):
                lane.held.add(one.id)
                lane.waiting.append(one)
                waiting[one.organisation_id] = waiting.get(one.organisation_id, 0) + 1
            else:
                lane.more = True
                whole = False
        for webhook_id in filter(self.mine, others):
            self.lane(webhook_id).more = True
            whole = False
        return whole

    def quotas(self, wanting: list[Wanting]) -> list[tuple[int, int]]:
        """How much to read of each webhook: equal parts for organisations, then for their webhooks."""
        by_organisation: dict[int, list[tuple[int, int]]] = {}
        for lane in self.lanes.values():
            lane.more = False
        for one in wanting:
            lane = self.lane(one.webhook_id)
            lane.settle(one)
            lane.more = self.serves(one.webhook_id)
            quota = lane.quota()
            if quota > 0 and lane.more:
                by_organisation.setdefault(one.organisation_id, []).append((one.webhook_id, quota))
        return share(by_organisation, self.waiting(), AHEAD)

    def read(self, quotas: list[tuple[int, int]]) -> Course:
        """Read up to `quota` further due deliveries of each webhook."""
        moment = time.monotonic()
        wanted = []
        held: list[int] = []
        for webhook_id, quota in quotas:
            lane = self.lanes[webhook_id]
            if moment - lane.rewound_at >= REWIND_SECONDS:
                lane.rewind()
            lane.reading = True
            wanted.append((webhook_id, quota, lane.after))
            held += lane.held
        found = dict.fromkeys((webhook_id for webhook_id, _quota in quotas), 0)
        passed: set[int] = set()
        rows = yield partial(due.load, wanted, held)
        for one in rows:
            lane = self.lanes[one.webhook_id]
            found[one.webhook_id] += 1
            if not lane.reading:
                continue
            lane.after = one.place
            # One whose predecessor is due later, after a pause or a jump of the clock, is read again after that.
            if one.behind is None or one.behind in lane.held:
                lane.held.add(one.id)
                lane.waiting.append(one)
                lane.loaded = True
            else:
                passed.add(one.webhook_id)
        for webhook_id, quota in quotas:
            if found[webhook_id] < quota:
                self.lanes[webhook_id].rewind()
                self.lanes[webhook_id].more = webhook_id in passed

    def start(self) -> float:
        """Start what may start now, in turn over organisations and their webhooks.

        Returns after how many seconds a rate limit lets the next one start.
        """
        if self.stream.in_flight >= IN_FLIGHT:
            return WAIT_SECONDS
        moment = time.monotonic()
        soonest = WAIT_SECONDS
        turns: dict[int, list[tuple[int, Lane]]] = {}
        for webhook_id, lane in self.lanes.items():
            if lane.waiting and lane.open() and self.leases.stands(webhook_id, moment):
                wait = lane.wait(moment)
                if wait > 0.0:
                    soonest = min(soonest, wait)
                else:
                    turns.setdefault(lane.organisation_id, []).append((webhook_id, lane))
        if not turns:
            return soonest
        endpoints = self.directory.endpoints(pk for lanes in turns.values() for pk, _lane in lanes)
        self.sent_at = moment
        at = now()
        organisations = list(turns)
        random.shuffle(organisations)
        for lanes in turns.values():
            random.shuffle(lanes)
        while organisations and self.stream.in_flight < IN_FLIGHT:
            organisations = [pk for pk in organisations if self.start_one(turns[pk], endpoints, pk, at)]
        return soonest

    def start_one(
        self, turns: list[tuple[int, Lane]], endpoints: dict[int, Endpoint], organisation_id: int, at: datetime
    ) -> bool:
        """Start one delivery of an organisation; its webhooks take turns. Returns whether it may have another.

        `at` is the present moment.
        """
        most = IN_FLIGHT_PER_ORGANISATION
        while turns and self.stream.in_flight < IN_FLIGHT and self.in_flight.get(organisation_id, 0) < most:
            webhook_id, lane = turns.pop()
            if not endpoints[webhook_id].active:
                lane.forget_waiting()
                continue
            delivery = lane.next()
            if delivery is None:
                continue
            lane.started(delivery)
            self.in_flight[organisation_id] = self.in_flight.get(organisation_id, 0) + 1
            sending = Sending(delivery, endpoints[webhook_id], at, began=self.sent_at)
            self.under_way.add(sending)
            self.send(sending)
            if lane.waiting and lane.open() and (lane.rate is None or lane.allowance >= 1.0):
                turns.insert(0, (webhook_id, lane))
            return bool(turns)
        return False

    def send(self, sending: Sending) -> None:
        """Start a request, or have it wait for the token that its endpoint asks for."""
        authentication = sending.endpoint.authentication
        line = self.tokens.line(authentication)
        if line is None and authentication.asks is not None:
            waiting = self.parked.setdefault(authentication.key, [])
            waiting.append(sending)
            if len(waiting) == 1:
                self.stream.submit(authentication.asks, authentication)
            return
        try:
            request = build(sending.delivery, sending.endpoint)
        except BodyTooLarge:
            self.take_in(sending, no_answer("body_too_large"))
            return
        except Exception:
            self.put_off(sending)
            return
        if line:
            request.headers = [*request.headers, line]
        self.stream.submit(request, sending)
        self.sent += 1

    def take_token(self, authentication: Authentication, outcome: Outcome) -> None:
        """Go on with what waited for a token. Without one, the attempt has failed."""
        given = self.tokens.take(authentication, outcome)
        for sending in self.parked.pop(authentication.key, []):
            if given:
                self.send(sending)
            else:
                self.take_in(sending, no_answer("auth"))

    def put_off(self, sending: Sending) -> None:
        """What goes wrong on our side is not the endpoint's: it uses up no attempt and is looked at again later."""
        delivery = sending.delivery
        self.under_way.discard(sending)
        facts = {"delivery": delivery.id}
        log.error("delivery could not be handled", exc_info=sys.exception() is not None, extra={"facts": facts})
        lane = self.lanes[delivery.webhook_id]
        lane.left(delivery)
        self.in_flight[delivery.organisation_id] -= 1
        self.release(lane, delivery)
        due.put_off(delivery.id, now() + OUR_FAULT)
        lane.held.discard(delivery.id)
        lane.forget_followers(delivery)

    def flush_after(self) -> float:
        """Seconds that the oldest outcome at hand may wait to be written."""
        return FLUSH_BUSY_SECONDS if self.stream.in_flight >= FLUSH_BUSY_IN_FLIGHT else FLUSH_SECONDS

    def collect(self, timeout: float) -> None:
        """Take in finished requests, and write outcomes when there are enough or they have waited enough."""
        for token, outcome in self.stream.poll(timeout):
            if isinstance(token, Authentication):
                self.take_token(token, outcome)
                continue
            sending = cast("Sending", token)
            authentication = sending.endpoint.authentication
            if outcome.status == 401 and authentication.asks is not None and not sending.renewed:
                # The token may have been taken back before its time: once with a new one.
                sending.renewed = True
                self.tokens.drop(authentication)
                self.send(sending)
                continue
            self.take_in(sending, outcome)
        self.desk.proceed()
        if (
            not self.writing
            and self.results
            and (len(self.results) >= FLUSH_COUNT or time.monotonic() - self.oldest_result >= self.flush_after())
        ):
            self.flush()

    def take_in(self, sending: Sending, outcome: Outcome) -> None:
        """Note one finished request and free its place."""
        delivery = sending.delivery
        self.under_way.discard(sending)
        lane = self.lanes[delivery.webhook_id]
        try:
            result = record.judge(delivery, outcome, sending.attempted_at, sending.endpoint.strict, lane.retry_delays)
        except Exception:
            self.put_off(sending)
            return
        if outcome.error in OURS:
            self.put_off(sending)
            return
        if outcome.error in UNSENT:
            lane.left(delivery)
        else:
            lane.ended(delivery, outcome)
        self.in_flight[delivery.organisation_id] -= 1
        # One that still blocks its lane does so until that is written: before, reading lets the next one through.
        if not result.blocks:
            self.release(lane, delivery)
        if not self.results:
            self.oldest_result = time.monotonic()
        if outcome.status == GONE or lane.probing or lane.tripping:
            # Written at once: what starts next depends on it.
            self.oldest_result = 0.0
            lane.undecided = True
        self.results.append(result)

    def release(self, lane: Lane, delivery: Due) -> None:
        """The next one of its conversation may start."""
        if delivery.lane is not None:
            lane.busy.discard(delivery.lane)

    def flush(self) -> None:
        """Write the outcomes at hand."""
        if self.results:
            results, self.results = self.results, []
            self.writing = True
            self.desk.follow(self.writes(results))

    def writes(self, results: list[Result]) -> Course:
        """The course of writing outcomes."""
        tripping = {result.delivery.webhook_id for result in results if self.lanes[result.delivery.webhook_id].tripping}
        written: Written = yield partial(self.write, results, tripping)
        self.writing = False
        for webhook_id in written.stopped | written.healed:
            self.lanes[webhook_id].forget_window()
            self.lanes[webhook_id].probing = webhook_id in written.stopped
        for webhook_id in written.stopped:
            self.lanes[webhook_id].settled = False
            self.lanes[webhook_id].forget_waiting()
        for result in results:
            lane = self.lanes[result.delivery.webhook_id]
            lane.undecided = False
            lane.held.discard(result.delivery.id)
            if result.blocks:
                self.release(lane, result.delivery)
                lane.forget_followers(result.delivery)
            elif result.delivery.attempt_count and result.delivery.blocks:
                self.freed = True
            if lane.loaded and not lane.held:
                # Reading left out what was due before the head of its conversation.
                lane.loaded = False
                self.freed = True
            if not result.outcome.ok:
                log.info(
                    "delivery failed",
                    extra={
                        "facts": {
                            "organisation": result.delivery.organisation_id,
                            "webhook": result.delivery.webhook_id,
                            "delivery": result.delivery.id,
                            "event": result.delivery.event_id,
                            "attempt": result.delivery.attempt_count + 1,
                            "status": result.outcome.status,
                            "error": result.outcome.error,
                        }
                    },
                )

        self.leave()

    def write(self, results: list[Result], tripping: set[int]) -> Written:
        """Write outcomes; one that cannot be written is put off and takes no other with it."""
        try:
            return record.write(results, self.slot, tripping)
        except (DataError, IntegrityError, ArithmeticError, TypeError, ValueError):
            if len(results) > 1:
                middle = len(results) // 2
                first = self.write(results[:middle], tripping)
                return first.merged(self.write(results[middle:], tripping))
            log.exception("outcome could not be written", extra={"facts": {"delivery": results[0].delivery.id}})
            due.put_off(results[0].delivery.id, now() + OUR_FAULT)
            return Written(0)

    def finish(self) -> None:
        """Leave what has not started, wait for what has, write everything, give up the leases."""
        for lane in self.lanes.values():
            lane.forget_waiting()
        while self.stream.in_flight:
            self.collect(FLUSH_SECONDS)
        self.desk.wait()
        self.flush()
        self.tell()
        self.desk.wait()
        self.leases.give_up(self.leases)
        self.stream.close()


def connect() -> Course:
    """The course of connecting with the database."""
    yield lambda: connections[DEFAULT_DB_ALIAS].ensure_connection()


def take_events(hinted: bool, wait: bool, place: tuple[int, int], wanted: list[int], room: int) -> Dispatched:
    """Dispatch events, if there are any: about as many as there is room for, or their deliveries would have to be read
    again."""
    if hinted or dispatch.waiting():
        limit = min(dispatch.BATCH, max(DISPATCH_LEAST, room))
        return dispatch.dispatch(limit, wait=wait, place=place, wanted=wanted, room=room)
    return Dispatched()


def share(wanted: dict[int, list[tuple[int, int]]], waiting: dict[int, int], ahead: int) -> list[tuple[int, int]]:
    """How many to read of each webhook, as (webhook, quota).

    `wanted` are (webhook, quota) by organisation, `waiting` how many an organisation has at hand. Each organisation may
    have an equal part of `ahead`, however much others have; what nobody needs goes to those who want more.
    """
    organisations = list(wanted)
    random.shuffle(organisations)
    part = ahead // max(1, len(wanted.keys() | waiting.keys()))
    demand = {pk: sum(quota for _webhook, quota in wanted[pk]) for pk in organisations}
    given = {pk: min(demand[pk], max(0, part - waiting.get(pk, 0))) for pk in organisations}
    spare = ahead - sum(waiting.values()) - sum(given.values())
    quotas: list[tuple[int, int]] = []
    for pk in organisations:
        more = max(0, min(demand[pk] - given[pk], spare))
        spare -= more
        room = given[pk] + more
        webhooks = wanted[pk]
        random.shuffle(webhooks)
        for index, (webhook_id, quota) in enumerate(webhooks):
            own = min(quota, max(1, room // (len(webhooks) - index)), room)
            if own > 0:
                quotas.append((webhook_id, own))
                room -= own
    return quotas
