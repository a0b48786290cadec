"""Requests of an engine: which starts next, its token, and what its end means for the lane."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from core.clock import now
from core.outbound import Outcome, Stream, no_answer
from webhooks.endpoint_auth import Authentication, Tokens
from webhooks.engine import due, record
from webhooks.engine.due import Due
from webhooks.engine.lane import Lane
from webhooks.engine.outgoing import BodyTooLarge, Directory, Endpoint, build
from webhooks.engine.schedule import GONE, OUR_FAULT, OURS, SHORTAGE, UNSENT
from webhooks.engine.serving import Serving
from webhooks.engine.writing import Writer

log = logging.getLogger("webio.deliveries")

#: Requests at once, over all webhooks. A webhook's own cap is `Lane.cap`.
IN_FLIGHT = 512
#: An organisation may have so many times what is left free under way: one alone has three quarters of all, and however
#: many have endpoints that never answer, something is left for one more.
SHARE = 3
#: Of these at most so many that have begun within so many seconds: what is answered at once needs no more, and more at
#: once do not fit into the processor's caches. For slower endpoints this lets 16,000 a second begin.
YOUNG, YOUNG_SECONDS = 64, 0.004
#: The longest wait for something to happen, seconds.
WAIT_SECONDS = 0.5


@dataclass(slots=True)
class Round:
    """Attempts that began at the same moment."""

    #: By `time.monotonic`, and on the calendar.
    began: float
    at: datetime
    under_way: int = 0


@dataclass(slots=True, eq=False)
class Sending:
    """One attempt on its way."""

    delivery: Due
    endpoint: Endpoint
    round: Round
    #: A new token has been asked for, because the endpoint refused the first.
    renewed: bool = False


class Sender:
    """Sends what stands in the lanes of what an engine serves, and hands its outcomes to the writer."""

    def __init__(self, serving: Serving, writer: Writer) -> None:
        self.serving = serving
        self.writer = writer
        self.stream = Stream(connections=IN_FLIGHT)
        self.directory = Directory()
        self.tokens = Tokens()
        #: What waits for a token, by what asks for it.
        self.parked: dict[bytes, list[Sending]] = {}
        #: Requests under way, also by organisation, when the latest began, and how many have begun.
        self.under_way: set[Sending] = set()
        self.in_flight: dict[int, int] = {}
        #: The latest rounds, oldest first.
        self.rounds: deque[Round] = deque()
        self.sent_at = 0.0
        self.sent = 0

    def start(self) -> float:
        """Start what may start now, in turn over organisations and their webhooks.

        Returns after how many seconds a rate limit, or that others have just begun, lets the next one start.
        """
        moment = time.monotonic()
        room = self.room(moment)
        if room <= 0:
            return YOUNG_SECONDS if self.stream.in_flight < IN_FLIGHT else WAIT_SECONDS
        soonest = WAIT_SECONDS
        turns: dict[int, list[tuple[int, Lane]]] = {}
        for webhook_id, lane in self.serving.lanes.items():
            if lane.waiting and lane.open() and self.serving.leases.stands(webhook_id, moment):
                wait = lane.wait(moment)
                if wait > 0.0:
                    soonest = min(soonest, wait)
                else:
                    turns.setdefault(lane.organisation_id, []).append((webhook_id, lane))
        if not turns:
            return soonest
        if self.serving.moved:
            self.directory.forget(self.serving.moved)
            self.serving.moved.clear()
        endpoints = self.directory.endpoints(pk for lanes in turns.values() for pk, _lane in lanes)
        self.sent_at = moment
        beginning = Round(moment, now())
        self.rounds.append(beginning)
        organisations = list(turns)
        random.shuffle(organisations)
        for lanes in turns.values():
            if len(lanes) > 1:
                random.shuffle(lanes)
        while organisations:
            again = []
            for pk in organisations:
                if beginning.under_way >= room:
                    return min(soonest, YOUNG_SECONDS)
                if self.start_one(turns[pk], endpoints, pk, beginning):
                    again.append(pk)
            organisations = again
        return soonest

    def room(self, moment: float) -> int:
        """How many more may begin at this moment."""
        rounds = self.rounds
        while rounds and (not rounds[0].under_way or moment - rounds[0].began >= YOUNG_SECONDS):
            rounds.popleft()
        return min(IN_FLIGHT - self.stream.in_flight, YOUNG - sum(one.under_way for one in rounds))

    def start_one(
        self,
        turns: list[tuple[int, Lane]],
        endpoints: dict[int, Endpoint | None],
        organisation_id: int,
        beginning: Round,
    ) -> bool:
        """Start one delivery of an organisation; its webhooks take turns. Returns whether it may have another."""
        under_way = self.in_flight.get(organisation_id, 0)
        while turns and under_way < SHARE * (IN_FLIGHT - len(self.under_way)):
            webhook_id, lane = turns.pop()
            endpoint = endpoints[webhook_id]
            if endpoint is None:
                # Another engine may be able to, as while keys are changed one machine after the other.
                self.serving.slow.add(webhook_id)
            if endpoint is None or not endpoint.active:
                lane.forget_waiting()
                continue
            delivery = lane.next()
            if delivery is None:
                continue
            if endpoint.url != lane.url:
                lane.turn_to(endpoint.url)
            lane.started(delivery)
            self.in_flight[organisation_id] = under_way + 1
            beginning.under_way += 1
            sending = Sending(delivery, endpoint, beginning)
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

    def send_late(self, sending: Sending) -> None:
        """Send what waited for a token, unless it may be another engine's by now."""
        if self.serving.leases.stands(sending.delivery.webhook_id, time.monotonic()):
            self.send(sending)
        else:
            self.drop(sending)

    def take_token(self, authentication: Authentication, outcome: Outcome) -> None:
        """Go on with what waited for a token. Without one the attempt has failed, unless it is our own fault."""
        given = self.tokens.take(authentication, outcome)
        for sending in self.parked.pop(authentication.key, []):
            if given:
                self.send_late(sending)
            else:
                self.take_in(sending, outcome if outcome.error in OURS else no_answer("auth"))

    def ended(self, sending: Sending) -> None:
        """One is under way no longer."""
        self.under_way.discard(sending)
        sending.round.under_way -= 1
        self.in_flight[sending.delivery.organisation_id] -= 1

    def put_off(self, sending: Sending, error: str = "", detail: str = "") -> None:
        """What goes wrong on our side is not the endpoint's: it uses up no attempt and is looked at again later.

        `error` and `detail` as an `Outcome` has them.
        """
        delivery = sending.delivery
        until = now() + (SHORTAGE if error else OUR_FAULT)
        facts = {"delivery": delivery.id, "error": error, "detail": detail}
        log.error("delivery could not be handled", exc_info=sys.exception() is not None, extra={"facts": facts})
        due.put_off(delivery.id, delivery.attempt_count, until)
        self.drop(sending)

    def drop(self, sending: Sending) -> None:
        """Forget one that was not sent: it stays due as the database has it."""
        delivery = sending.delivery
        self.ended(sending)
        lane = self.serving.lanes[delivery.webhook_id]
        lane.left(delivery)
        lane.release(delivery)
        lane.held.discard(delivery.id)
        lane.forget_followers(delivery)

    def collect(self, timeout: float) -> None:
        """Take in finished requests, waiting for one at most so many seconds."""
        for token, outcome in self.stream.poll(timeout):
            if isinstance(token, Authentication):
                self.take_token(token, outcome)
                continue
            sending = cast("Sending", token)
            authentication = sending.endpoint.authentication
            if outcome.status == 401 and authentication.asks is not None and not sending.renewed:
                # The token may have been taken back before its time: once with a new one.
                sending.renewed = True
                # A request more, of those that its rate lets through.
                self.serving.lanes[sending.delivery.webhook_id].allowance -= 1.0
                self.tokens.drop(authentication)
                self.send_late(sending)
                continue
            self.take_in(sending, outcome)

    def take_in(self, sending: Sending, outcome: Outcome) -> None:
        """Note one finished request and free its place."""
        delivery = sending.delivery
        lane = self.serving.lanes[delivery.webhook_id]
        try:
            result = record.judge(
                delivery, outcome, sending.round.at, sending.endpoint.url, sending.endpoint.strict, lane.retry_delays
            )
        except Exception:
            self.put_off(sending)
            return
        if outcome.error in OURS:
            self.put_off(sending, outcome.error, outcome.detail)
            return
        self.ended(sending)
        if outcome.error in UNSENT or sending.endpoint.url != lane.url:
            lane.left(delivery)
        else:
            lane.ended(delivery, outcome)
        # One that still blocks its lane does so until that is written: before, reading lets the next one through.
        if not result.blocks:
            lane.release(delivery)
        decides = outcome.status == GONE or lane.probing or lane.tripping
        lane.undecided += decides
        self.writer.add(result, decides=decides)
