"""The loop that does it: dispatch, read what is due, send as a rolling stream, record; then wait for a commit."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from core.clock import now
from core.loops import Run
from core.outbound import Outcome, Stream
from core.wakeup import Waiter
from webhooks.engine import dispatch, due, record
from webhooks.engine.due import START, Due
from webhooks.engine.leases import Leases
from webhooks.engine.outgoing import Directory, build
from webhooks.engine.record import Result
from webhooks.engine.schedule import GONE

log = logging.getLogger("webio.deliveries")


#: Requests at once, over all webhooks, and at most for one webhook: a hanging endpoint holds so many and no more.
IN_FLIGHT = 256
IN_FLIGHT_PER_WEBHOOK = 8
#: Deliveries read ahead of sending. For one webhook as many as it can take within `AHEAD_SECONDS`.
AHEAD = 1000
AHEAD_PER_WEBHOOK = 200
AHEAD_SECONDS = 4.0
#: Outcomes are written when there are so many, or when the oldest has waited so long, seconds.
FLUSH_COUNT = 500
FLUSH_SECONDS = 0.02
#: With so many requests under way there is more to come: outcomes wait longer, for larger writes.
FLUSH_BUSY_IN_FLIGHT = 32
FLUSH_BUSY_SECONDS = 0.1
#: How long idle polls wait for a retry to become due, seconds.
POLL_SECONDS = 0.5
#: How often it looks while busy, unless it runs short of work before.
BUSY_SECONDS = 0.05
HUNGRY = AHEAD // 4
#: A delivery that failed inside the engine itself waits this long.
OUR_FAULT = timedelta(minutes=5)
#: How often it looks which webhooks are its own, seconds.
PLACE_SECONDS = 2.0
#: After so long at most the reading starts again at the oldest, where lanes may have become free, seconds.
REWIND_SECONDS = 2.0


@dataclass(slots=True)
class Lane:
    """What this engine holds for one webhook: waiting deliveries, how many are under way, how fast it answers."""

    waiting: deque[Due] = field(default_factory=deque)
    in_flight: int = 0
    #: Moving average of seconds per request; None until the first answer.
    pace: float | None = None
    #: Conversations with a delivery under way: the next one of the same waits.
    busy: set[int] = field(default_factory=set)
    #: Deliveries that wait, are under way or not yet written: reading finds them again.
    held: set[int] = field(default_factory=set)
    #: Where reading goes on.
    after: tuple[str, int] = START
    #: When it last began at the start, by `time.monotonic`.
    rewound_at: float = 0.0

    def quota(self) -> int:
        """How many more to read: what can start soon."""
        soon = IN_FLIGHT_PER_WEBHOOK
        if self.pace is not None:
            soon = min(AHEAD_PER_WEBHOOK, max(soon, int(IN_FLIGHT_PER_WEBHOOK * AHEAD_SECONDS / max(self.pace, 0.001))))
        return soon - len(self.waiting) - self.in_flight

    def rewind(self) -> None:
        """Begin reading at the oldest again."""
        self.after = START
        self.rewound_at = time.monotonic()

    def forget_waiting(self) -> None:
        """Drop what has not started: it is still due, and read again by whoever may send it."""
        self.held.difference_update(one.id for one in self.waiting)
        self.waiting.clear()
        self.rewind()


class Drain:
    """One engine."""

    def __init__(self) -> None:
        self.stream = Stream(connections=IN_FLIGHT)
        self.directory = Directory()
        self.leases = Leases()
        self.lanes: dict[int, Lane] = {}
        self.results: list[Result] = []
        self.oldest_result = 0.0
        self.sent = 0
        #: A lane has become free whose next ones were not read because they waited.
        self.freed = False
        #: This engine's number, from 0, and how many there are.
        self.place = (0, 1)

    def run(self, run: Run, waiter: Waiter) -> int:
        """Work until the slice is over, then finish what is under way. Returns how many requests were made."""
        descriptor = waiter.fileno()
        if descriptor is not None:
            self.stream.watch(descriptor)
        look_at = looked_at = place_at = 0.0
        found = False
        while run.go_on():
            moment = time.monotonic()
            if moment >= place_at:
                place_at = moment + PLACE_SECONDS
                self.settle(run.place())
            if moment >= look_at or self.freed or (found and self.hungry()):
                found = self.look()
                looked_at = time.monotonic()
                look_at = looked_at + (BUSY_SECONDS if found else POLL_SECONDS)
            self.start()
            self.collect(waiter.poll_seconds if self.idle() else FLUSH_SECONDS)
            if waiter.woken():
                # While busy not at every hint: on SQLite our own commits are hints too.
                look_at = 0.0 if self.idle() else min(look_at, looked_at + BUSY_SECONDS)
        self.finish()
        return self.sent

    def idle(self) -> bool:
        """Nothing is under way and nothing waits to be written."""
        return not self.stream.in_flight and not self.results

    def hungry(self) -> bool:
        """Little is left to start."""
        return sum(len(lane.waiting) for lane in self.lanes.values()) < HUNGRY

    def settle(self, place: tuple[int, int]) -> None:
        """Renew the leases, and leave to the other engines, as many as there are now, what is theirs."""
        self.place = place
        for webhook_id in self.leases.renew():
            self.lane(webhook_id).forget_waiting()
        leaving = [webhook_id for webhook_id in self.leases if not self.mine(webhook_id)]
        for webhook_id in leaving:
            self.lane(webhook_id).forget_waiting()
        self.leases.give_up(webhook_id for webhook_id in leaving if not self.lane(webhook_id).held)

    def mine(self, webhook_id: int) -> bool:
        """Whether this engine is the one that should serve the webhook."""
        number, count = self.place
        return webhook_id % count == number

    def lane(self, webhook_id: int) -> Lane:
        """What is held for a webhook."""
        return self.lanes.setdefault(webhook_id, Lane())

    def look(self) -> bool:
        """Take new events and read due deliveries. Returns whether there was anything."""
        self.freed = False
        taken = dispatch.dispatch(wait=self.idle()) if dispatch.waiting() else 0
        return bool(self.load() or taken)

    def load(self) -> int:
        """Read a fair share of what is due: equal parts for organisations, then for their webhooks."""
        room = AHEAD - sum(len(lane.waiting) for lane in self.lanes.values())
        if room <= 0:
            return 0
        wanting = [pair for pair in due.webhooks_with_due_work() if self.mine(pair[0])]
        self.leases.take([pk for pk, _organisation in wanting if pk not in self.leases])
        by_organisation: dict[int, list[tuple[int, int]]] = {}
        for webhook_id, organisation_id in wanting:
            quota = self.lane(webhook_id).quota()
            if quota > 0 and webhook_id in self.leases:
                by_organisation.setdefault(organisation_id, []).append((webhook_id, quota))
        return self.read(share(by_organisation, room))

    def read(self, quotas: list[tuple[int, int]]) -> int:
        """Read up to `quota` further due deliveries of each webhook. Returns how many there were."""
        moment = time.monotonic()
        limits = {}
        for webhook_id, quota in quotas:
            lane = self.lanes[webhook_id]
            if moment - lane.rewound_at >= REWIND_SECONDS:
                lane.rewind()
            # At the start stands what is held already.
            limits[webhook_id] = quota + (len(lane.held) if lane.after == START else 0)
        rows = due.load([(webhook_id, limit, self.lanes[webhook_id].after) for webhook_id, limit in limits.items()])
        found = dict.fromkeys(limits, 0)
        new = 0
        for one in rows:
            lane = self.lanes[one.webhook_id]
            found[one.webhook_id] += 1
            lane.after = one.place
            if one.id in lane.held:
                continue
            new += 1
            # One whose predecessor is due later, after a pause or a jump of the clock, is read again after that.
            if one.behind is None or one.behind in lane.held:
                lane.held.add(one.id)
                lane.waiting.append(one)
        for webhook_id, limit in limits.items():
            if found[webhook_id] < limit:
                self.lanes[webhook_id].rewind()
        return new

    def start(self) -> None:
        """Start what may start now, in turn over the webhooks."""
        moment = time.monotonic()
        ready = [
            (webhook_id, lane)
            for webhook_id, lane in self.lanes.items()
            if lane.waiting and lane.in_flight < IN_FLIGHT_PER_WEBHOOK and self.leases.stands(webhook_id, moment)
        ]
        if not ready or self.stream.in_flight >= IN_FLIGHT:
            return
        random.shuffle(ready)
        endpoints = self.directory.endpoints(webhook_id for webhook_id, _lane in ready)
        while ready and self.stream.in_flight < IN_FLIGHT:
            going = []
            for webhook_id, lane in ready:
                if not endpoints[webhook_id].active:
                    lane.forget_waiting()
                    continue
                delivery = self.next_of(lane)
                if delivery is None:
                    continue
                try:
                    request = build(delivery, endpoints[webhook_id])
                except Exception:
                    self.put_off(lane, delivery)
                    continue
                lane.in_flight += 1
                if delivery.lane is not None:
                    lane.busy.add(delivery.lane)
                self.stream.submit(request, (delivery, endpoints[webhook_id].strict, now()))
                self.sent += 1
                if lane.waiting and lane.in_flight < IN_FLIGHT_PER_WEBHOOK:
                    going.append((webhook_id, lane))
                if self.stream.in_flight >= IN_FLIGHT:
                    return
            ready = going

    def put_off(self, lane: Lane, delivery: Due) -> None:
        """A delivery that we cannot build is our fault: it uses up no attempt and is looked at again later."""
        log.exception("delivery could not be built", extra={"facts": {"delivery": delivery.id}})
        due.put_off(delivery.id, now() + OUR_FAULT)
        lane.held.discard(delivery.id)
        self.forget_followers(lane, delivery)

    def next_of(self, lane: Lane) -> Due | None:
        """The next delivery of a webhook that may start: not behind one of its conversation."""
        behind: list[Due] = []
        found = None
        while lane.waiting:
            delivery = lane.waiting.popleft()
            if delivery.lane is None or delivery.lane not in lane.busy:
                found = delivery
                break
            behind.append(delivery)
        lane.waiting.extendleft(reversed(behind))
        return found

    def flush_after(self) -> float:
        """Seconds that the oldest outcome at hand may wait to be written."""
        return FLUSH_BUSY_SECONDS if self.stream.in_flight >= FLUSH_BUSY_IN_FLIGHT else FLUSH_SECONDS

    def collect(self, timeout: float) -> None:
        """Take in finished requests, and write outcomes when there are enough or they have waited enough."""
        for token, outcome in self.stream.poll(timeout):
            delivery, strict, attempted_at = cast("tuple[Due, bool, datetime]", token)
            self.take_in(delivery, outcome, attempted_at, strict)
        if self.results and (
            len(self.results) >= FLUSH_COUNT or time.monotonic() - self.oldest_result >= self.flush_after()
        ):
            self.flush()

    def take_in(self, delivery: Due, outcome: Outcome, attempted_at: datetime, strict: bool) -> None:
        """Note one finished request and free its place."""
        lane = self.lanes[delivery.webhook_id]
        lane.in_flight -= 1
        seconds = outcome.timings["total"] / 1000
        lane.pace = seconds if lane.pace is None else lane.pace * 0.8 + seconds * 0.2
        result = record.judge(delivery, outcome, attempted_at, strict)
        # One that still blocks its lane does so until that is written: before, reading lets the next one through.
        if delivery.lane is not None and not result.blocks:
            lane.busy.discard(delivery.lane)
        if not self.results:
            self.oldest_result = time.monotonic()
        if outcome.status == GONE:
            # Written at once, so that no claim comes between.
            self.oldest_result = 0.0
        self.results.append(result)

    def forget_followers(self, lane: Lane, delivery: Due) -> None:
        """A delivery still blocks its lane: what was read behind it waits in the database."""
        followers = {one.id for one in lane.waiting if delivery.lane is not None and one.lane == delivery.lane}
        if followers:
            lane.waiting = deque(one for one in lane.waiting if one.id not in followers)
            lane.held -= followers
        lane.rewind()

    def flush(self) -> None:
        """Write the outcomes at hand."""
        results, self.results = self.results, []
        record.write(results)
        for result in results:
            lane = self.lanes[result.delivery.webhook_id]
            lane.held.discard(result.delivery.id)
            if result.outcome.status == GONE:
                lane.forget_waiting()
            if result.blocks and result.delivery.lane is not None:
                lane.busy.discard(result.delivery.lane)
                self.forget_followers(lane, result.delivery)
            elif result.delivery.attempt_count and result.delivery.blocks:
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

    def finish(self) -> None:
        """Leave what has not started, wait for what has, write everything, give up the leases."""
        for lane in self.lanes.values():
            lane.forget_waiting()
        while self.stream.in_flight:
            self.collect(FLUSH_SECONDS)
        self.flush()
        self.leases.give_up(self.leases)
        self.stream.close()


def share(by_organisation: dict[int, list[tuple[int, int]]], room: int) -> list[tuple[int, int]]:
    """(webhook, quota) so that organisations get equal parts of `room`, and an organisation's webhooks of its part."""
    quotas: list[tuple[int, int]] = []
    organisations = list(by_organisation)
    random.shuffle(organisations)
    for place, organisation_id in enumerate(organisations):
        webhooks = by_organisation[organisation_id]
        part = max(1, room // (len(organisations) - place))
        random.shuffle(webhooks)
        for index, (webhook_id, wanted) in enumerate(webhooks):
            given = min(wanted, max(1, part // (len(webhooks) - index)), room)
            if given <= 0:
                return quotas
            quotas.append((webhook_id, given))
            part -= given
            room -= given
    return quotas
