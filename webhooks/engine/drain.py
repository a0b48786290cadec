"""The loop that does it: dispatch, read what is due, send as a rolling stream, record; then wait for a commit."""

from __future__ import annotations

import logging
import random
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from django.db import DataError, IntegrityError

from core.clock import now
from core.loops import Run
from core.outbound import Outcome, Stream, no_answer
from core.wakeup import Waiter
from webhooks.endpoint_auth import Authentication, Tokens
from webhooks.engine import dispatch, due, record
from webhooks.engine.dispatch import Dispatched
from webhooks.engine.due import Due
from webhooks.engine.lane import Lane
from webhooks.engine.leases import Leases
from webhooks.engine.outgoing import BodyTooLarge, Directory, Endpoint, build
from webhooks.engine.record import Result, Written
from webhooks.engine.schedule import GONE, OUR_FAULT, OURS, UNSENT

log = logging.getLogger("webio.deliveries")


#: Requests at once, over all webhooks, and at most for one organisation. A webhook's own cap is `Lane.cap`.
IN_FLIGHT = 512
IN_FLIGHT_PER_ORGANISATION = 384
#: Deliveries read ahead of sending.
AHEAD = 1000
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
#: How often it looks which webhooks are its own, seconds.
PLACE_SECONDS = 2.0
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


class Drain:
    """One engine."""

    def __init__(self, slot: int = 0) -> None:
        self.slot = slot
        self.stream = Stream(connections=IN_FLIGHT)
        self.directory = Directory()
        self.leases = Leases()
        self.lanes: dict[int, Lane] = {}
        #: Requests under way by organisation.
        self.in_flight: dict[int, int] = {}
        self.tokens = Tokens()
        #: What waits for a token, by what asks for it.
        self.parked: dict[bytes, list[Sending]] = {}
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
        found = hinted = False
        while run.go_on():
            moment = time.monotonic()
            if moment >= place_at:
                place_at = moment + PLACE_SECONDS
                self.settle(run.place())
            if moment >= look_at or self.freed or (found and self.hungry()):
                found, hinted = self.look(hinted), False
                looked_at = time.monotonic()
                look_at = looked_at + (BUSY_SECONDS if found else POLL_SECONDS)
            soonest = self.start()
            self.collect(min(soonest, waiter.poll_seconds if self.idle() else FLUSH_SECONDS))
            if waiter.woken():
                hinted = descriptor is not None
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

    def look(self, hinted: bool = False) -> bool:
        """Take new events and read due deliveries. Returns whether there was anything.

        An event that comes while nothing else happens is sent without a further look at the database. `hinted`:
        somebody said that there are events.
        """
        self.freed = False
        idle = self.idle()
        waiting = self.waiting()
        # With much at hand, new deliveries are left to reading, which shares fairly.
        room = AHEAD - sum(waiting.values()) if self.hungry() else 0
        taken = Dispatched()
        if hinted or dispatch.waiting():
            taken = dispatch.dispatch(wait=idle, place=self.place, room=room)
        whole = len(taken.fresh) < room and self.accept(taken.fresh, waiting)
        if idle and taken.events and whole:
            return True
        return bool(self.load(self.waiting()) or taken.events)

    def waiting(self) -> dict[int, int]:
        """How many deliveries wait to be started, by organisation."""
        found: dict[int, int] = {}
        for lane in self.lanes.values():
            if lane.waiting:
                found[lane.organisation_id] = found.get(lane.organisation_id, 0) + len(lane.waiting)
        return found

    def accept(self, fresh: list[Due], waiting: dict[int, int]) -> bool:
        """Take deliveries just made, except where reading has to decide. Returns whether all were taken."""
        whole = True
        latest: dict[tuple[int, int], int] = {}
        for one in fresh:
            if one.lane is not None:
                one.behind = latest.get((one.webhook_id, one.lane), one.behind)
                latest[one.webhook_id, one.lane] = one.id
            lane = self.lane(one.webhook_id)
            if (
                lane.settled
                and one.webhook_id in self.leases
                and (one.behind is None or one.behind in lane.held)
                and lane.quota() > 0
                and waiting.get(one.organisation_id, 0) < AHEAD // 4
            ):
                lane.held.add(one.id)
                lane.waiting.append(one)
                waiting[one.organisation_id] = waiting.get(one.organisation_id, 0) + 1
            else:
                whole = False
        return whole

    def load(self, waiting: dict[int, int]) -> int:
        """Read a fair share of what is due: equal parts for organisations, then for their webhooks."""
        wanting = [one for one in due.webhooks_with_due_work() if self.mine(one.webhook_id)]
        self.leases.take([one.webhook_id for one in wanting if one.webhook_id not in self.leases])
        by_organisation: dict[int, list[tuple[int, int]]] = {}
        for one in wanting:
            lane = self.lane(one.webhook_id)
            lane.settle(one)
            quota = lane.quota()
            if quota > 0 and one.webhook_id in self.leases:
                by_organisation.setdefault(one.organisation_id, []).append((one.webhook_id, quota))
        return self.read(share(by_organisation, waiting, AHEAD))

    def read(self, quotas: list[tuple[int, int]]) -> int:
        """Read up to `quota` further due deliveries of each webhook. Returns how many there were."""
        moment = time.monotonic()
        wanted = []
        held: list[int] = []
        for webhook_id, quota in quotas:
            lane = self.lanes[webhook_id]
            if moment - lane.rewound_at >= REWIND_SECONDS:
                lane.rewind()
            wanted.append((webhook_id, quota, lane.after))
            held += lane.held
        found = dict.fromkeys((webhook_id for webhook_id, _quota in quotas), 0)
        rows = due.load(wanted, held)
        for one in rows:
            lane = self.lanes[one.webhook_id]
            found[one.webhook_id] += 1
            lane.after = one.place
            # One whose predecessor is due later, after a pause or a jump of the clock, is read again after that.
            if one.behind is None or one.behind in lane.held:
                lane.held.add(one.id)
                lane.waiting.append(one)
        for webhook_id, quota in quotas:
            if found[webhook_id] < quota:
                self.lanes[webhook_id].rewind()
        return len(rows)

    def start(self) -> float:
        """Start what may start now, in turn over organisations and their webhooks.

        Returns after how many seconds a rate limit lets the next one start.
        """
        if self.stream.in_flight >= IN_FLIGHT:
            return POLL_SECONDS
        moment = time.monotonic()
        soonest = POLL_SECONDS
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
        organisations = list(turns)
        random.shuffle(organisations)
        for lanes in turns.values():
            random.shuffle(lanes)
        while organisations and self.stream.in_flight < IN_FLIGHT:
            organisations = [pk for pk in organisations if self.start_one(turns[pk], endpoints, pk)]
        return soonest

    def start_one(self, turns: list[tuple[int, Lane]], endpoints: dict[int, Endpoint], organisation_id: int) -> bool:
        """Start one delivery of an organisation; its webhooks take turns. Returns whether it may have another."""
        while turns and self.in_flight.get(organisation_id, 0) < IN_FLIGHT_PER_ORGANISATION:
            webhook_id, lane = turns.pop()
            if not endpoints[webhook_id].active:
                lane.forget_waiting()
                continue
            delivery = lane.next()
            if delivery is None:
                continue
            lane.started(delivery)
            self.in_flight[organisation_id] = self.in_flight.get(organisation_id, 0) + 1
            self.send(Sending(delivery, endpoints[webhook_id], now()))
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
        if self.results and (
            len(self.results) >= FLUSH_COUNT or time.monotonic() - self.oldest_result >= self.flush_after()
        ):
            self.flush()

    def take_in(self, sending: Sending, outcome: Outcome) -> None:
        """Note one finished request and free its place."""
        delivery = sending.delivery
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
        self.results.append(result)

    def release(self, lane: Lane, delivery: Due) -> None:
        """The next one of its conversation may start."""
        if delivery.lane is not None:
            lane.busy.discard(delivery.lane)

    def flush(self) -> None:
        """Write the outcomes at hand."""
        results, self.results = self.results, []
        tripping = {result.delivery.webhook_id for result in results if self.lanes[result.delivery.webhook_id].tripping}
        written = self.write(results, tripping)
        for webhook_id in written.stopped | written.healed:
            self.lanes[webhook_id].forget_window()
            self.lanes[webhook_id].probing = webhook_id in written.stopped
        for webhook_id in written.stopped:
            self.lanes[webhook_id].settled = False
            self.lanes[webhook_id].forget_waiting()
        for result in results:
            lane = self.lanes[result.delivery.webhook_id]
            lane.held.discard(result.delivery.id)
            if result.blocks:
                self.release(lane, result.delivery)
                lane.forget_followers(result.delivery)
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
        self.flush()
        self.leases.give_up(self.leases)
        self.stream.close()


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
