"""The loop that does it: dispatch, claim, send as a rolling stream, record; then wait for the next commit."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import cast

from core.clock import now
from core.loops import Run
from core.outbound import Outcome, Stream
from core.wakeup import Waiter
from webhooks.engine import claim, dispatch, record, sql
from webhooks.engine.claim import Claimed
from webhooks.engine.outgoing import DEADLINE, Directory, attach_events, build
from webhooks.engine.record import Result
from webhooks.engine.schedule import GONE
from webhooks.models import Delivery

log = logging.getLogger("webio.deliveries")


#: Requests at once, over all webhooks, and at most for one webhook: a hanging endpoint holds so many and no more.
IN_FLIGHT = 256
IN_FLIGHT_PER_WEBHOOK = 8
#: Deliveries claimed ahead of sending. For one webhook as many as it can take within `AHEAD_SECONDS`.
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
#: A request starts only when this much of its lease is left, seconds.
LEASE_NEEDED = DEADLINE + 5.0


@dataclass(slots=True)
class Lane:
    """What this engine holds for one webhook: waiting deliveries, how many are under way, how fast it answers."""

    waiting: deque[Claimed] = field(default_factory=deque)
    in_flight: int = 0
    #: Moving average of seconds per request; None until the first answer.
    pace: float | None = None
    #: Conversations with a delivery under way: the next one of the same waits.
    busy: set[int] = field(default_factory=set)

    def quota(self) -> int:
        """How many more to claim: what can start soon, so that leases do not run out while waiting."""
        soon = IN_FLIGHT_PER_WEBHOOK
        if self.pace is not None:
            soon = min(AHEAD_PER_WEBHOOK, max(soon, int(IN_FLIGHT_PER_WEBHOOK * AHEAD_SECONDS / max(self.pace, 0.001))))
        return soon - len(self.waiting) - self.in_flight


class Drain:
    """One engine. Its token marks the leases it holds."""

    def __init__(self) -> None:
        self.token = secrets.randbits(62) + 1
        self.stream = Stream(connections=IN_FLIGHT)
        self.directory = Directory()
        self.lanes: dict[int, Lane] = {}
        self.results: list[Result] = []
        self.oldest_result = 0.0
        self.sent = 0

    def run(self, run: Run, waiter: Waiter) -> int:
        """Work until the slice is over, then finish what is under way. Returns how many requests were made."""
        descriptor = waiter.fileno()
        if descriptor is not None:
            self.stream.watch(descriptor)
        look_at = looked_at = 0.0
        found = False
        while run.go_on():
            moment = time.monotonic()
            if moment >= look_at or (found and self.hungry()):
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

    def look(self) -> bool:
        """Take new events and claim due deliveries. Returns whether there was anything."""
        taken = dispatch.dispatch() if dispatch.waiting() else 0
        claimed = self.claim()
        return bool(taken or claimed)

    def claim(self) -> int:
        """Claim a fair share of what is due: round robin over organisations, then over their webhooks."""
        room = AHEAD - sum(len(lane.waiting) for lane in self.lanes.values())
        if room <= 0:
            return 0
        by_organisation: dict[int, list[tuple[int, int]]] = {}
        for webhook_id, organisation_id in claim.webhooks_with_due_work():
            quota = self.lanes.setdefault(webhook_id, Lane()).quota()
            if quota > 0:
                by_organisation.setdefault(organisation_id, []).append((webhook_id, quota))
        quotas = share(by_organisation, room)
        claimed = claim.claim(quotas, self.token)
        if not claimed:
            return 0
        attach_events(claimed)
        for one in claimed:
            self.lanes[one.webhook_id].waiting.append(one)
        return len(claimed)

    def start(self) -> None:
        """Start what may start now, in turn over the webhooks."""
        ready = [
            (webhook_id, lane)
            for webhook_id, lane in self.lanes.items()
            if lane.waiting and lane.in_flight < IN_FLIGHT_PER_WEBHOOK
        ]
        if not ready or self.stream.in_flight >= IN_FLIGHT:
            return
        random.shuffle(ready)
        endpoints = self.directory.endpoints(webhook_id for webhook_id, _lane in ready)
        moment = now()
        while ready and self.stream.in_flight < IN_FLIGHT:
            going = []
            for webhook_id, lane in ready:
                if not endpoints[webhook_id].active:
                    self.hold(lane)
                    continue
                delivery = self.next_of(lane, moment)
                if delivery is None:
                    continue
                try:
                    request = build(delivery, endpoints[webhook_id])
                except Exception:
                    self.put_off(delivery)
                    continue
                lane.in_flight += 1
                if delivery.conversation_id is not None and delivery.kind == Delivery.Kind.EVENT:
                    lane.busy.add(delivery.conversation_id)
                self.stream.submit(request, (delivery, endpoints[webhook_id].strict, now()))
                self.sent += 1
                if lane.waiting and lane.in_flight < IN_FLIGHT_PER_WEBHOOK:
                    going.append((webhook_id, lane))
                if self.stream.in_flight >= IN_FLIGHT:
                    return
            ready = going

    def put_off(self, delivery: Claimed) -> None:
        """A delivery that we cannot build is our fault: it uses up no attempt and is looked at again later."""
        log.exception("delivery could not be built", extra={"facts": {"delivery": delivery.id}})
        claim.release({delivery.id}, self.token, sql.moment(now() + OUR_FAULT))

    def next_of(self, lane: Lane, moment: datetime) -> Claimed | None:
        """The next delivery of a webhook that may start: not behind one of its conversation, with lease enough."""
        behind: list[Claimed] = []
        found = None
        blocked: set[int] = set()
        while lane.waiting:
            delivery = lane.waiting.popleft()
            if (delivery.lease_until - moment).total_seconds() < LEASE_NEEDED:
                # Its lease runs out unused and somebody claims it again; those behind it in its lane wait for that.
                if delivery.conversation_id is not None:
                    blocked.add(delivery.conversation_id)
                continue
            conversation = delivery.conversation_id
            laned = conversation is not None and delivery.kind == Delivery.Kind.EVENT
            if laned and (conversation in lane.busy or conversation in blocked):
                blocked.add(conversation)  # type: ignore[arg-type]
                behind.append(delivery)
                continue
            found = delivery
            break
        lane.waiting.extendleft(reversed(behind))
        return found

    def flush_after(self) -> float:
        """Seconds that the oldest outcome at hand may wait to be written."""
        return FLUSH_BUSY_SECONDS if self.stream.in_flight >= FLUSH_BUSY_IN_FLIGHT else FLUSH_SECONDS

    def collect(self, timeout: float) -> None:
        """Take in finished requests, and write outcomes when there are enough or they have waited enough."""
        for token, outcome in self.stream.poll(timeout):
            delivery, strict, attempted_at = cast("tuple[Claimed, bool, datetime]", token)
            self.take_in(delivery, outcome, attempted_at, strict)
        if self.results and (
            len(self.results) >= FLUSH_COUNT or time.monotonic() - self.oldest_result >= self.flush_after()
        ):
            self.flush()

    def take_in(self, delivery: Claimed, outcome: Outcome, attempted_at: datetime, strict: bool) -> None:
        """Note one finished request and free its place."""
        lane = self.lanes[delivery.webhook_id]
        lane.in_flight -= 1
        seconds = outcome.timings["total"] / 1000
        lane.pace = seconds if lane.pace is None else lane.pace * 0.8 + seconds * 0.2
        result = record.judge(delivery, outcome, attempted_at, strict)
        # One that still blocks its lane does so until that is written: before, a claim takes its lease for ours and
        # would let the next one through.
        if delivery.conversation_id is not None and delivery.kind == Delivery.Kind.EVENT and not result.blocks:
            lane.busy.discard(delivery.conversation_id)
        if not self.results:
            self.oldest_result = time.monotonic()
        if outcome.status == GONE:
            # Written at once, so that no claim comes between.
            self.oldest_result = 0.0
        self.results.append(result)

    def give_back_followers(self, lane: Lane, conversation_id: int) -> None:
        """The head of a lane still blocks it: what was claimed behind it goes back unsent."""
        followers = [one for one in lane.waiting if one.conversation_id == conversation_id and one.kind == "event"]
        if followers:
            lane.waiting = deque(one for one in lane.waiting if one not in followers)
            claim.release({one.id for one in followers}, self.token, sql.moment(now()))

    def hold(self, lane: Lane) -> None:
        """Nothing more may be sent to a webhook: what was claimed for it is held."""
        if lane.waiting:
            claim.hold({one.id for one in lane.waiting}, self.token)
            lane.waiting.clear()

    def flush(self) -> None:
        """Write the outcomes at hand."""
        results, self.results = self.results, []
        record.write(results, self.token)
        for result in results:
            lane = self.lanes[result.delivery.webhook_id]
            if result.outcome.status == GONE:
                self.hold(lane)
            if result.blocks and result.delivery.conversation_id is not None:
                lane.busy.discard(result.delivery.conversation_id)
                self.give_back_followers(lane, result.delivery.conversation_id)
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
        """Give back what has not started, wait for what has, write everything."""
        unsent = {delivery.id for lane in self.lanes.values() for delivery in lane.waiting}
        if unsent:
            claim.release(unsent, self.token, sql.moment(now()))
        for lane in self.lanes.values():
            lane.waiting.clear()
        while self.stream.in_flight:
            self.collect(FLUSH_SECONDS)
        self.flush()
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
