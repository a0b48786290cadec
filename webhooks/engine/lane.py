"""What an engine holds for one webhook, and how much of it may be under way: the webhook's cap, its rate, its breaker.

All of it is in memory, which is enough because one engine serves a webhook (`webhooks.engine.leases`). Only that the
breaker is open is written down, with the outcomes that opened it (`webhooks.engine.record`).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from core.outbound import Outcome
from webhooks.engine.breaker import FAILURES
from webhooks.engine.due import START, Due, Wanting

#: Requests at once to a webhook: at first, at most, and how they divide between first attempts and retries.
CAP_START = 8
CAP_MOST = 64
RETRY_SHARE = 0.5
#: Deliveries of a webhook that are read ahead: as many as it can take within so many seconds.
AHEAD_MOST = 200
AHEAD_SECONDS = 4.0
#: Of a rate limit, the share that may start at once after a rest: an engine that is late for a moment makes up for it.
BURST_SHARE = 0.05
#: An endpoint keeps up while it answers within this many times its best, plus seconds that are our own.
KEEPS_UP = 2.0
OUR_OWN_SECONDS = 0.005
#: A cap that lets through so many a second at the endpoint's best is enough: more connections only cost time.
ENOUGH_A_SECOND = 5000
#: The breaker opens when, within so many seconds, so many attempts were made and such a share of them failed.
WINDOW_SECONDS = 60.0
WINDOW_LEAST = 20
WINDOW_FAILED = 0.5


@dataclass(slots=True)
class Lane:
    """Waiting deliveries of a webhook, how many are under way, and how it does."""

    organisation_id: int = 0
    #: Its settings have been read, and it may be sent to.
    settled: bool = False
    waiting: deque[Due] = field(default_factory=deque)
    in_flight: int = 0
    #: How many of both are retries, and whether the latest to start was one.
    retries_waiting: int = 0
    retries_in_flight: int = 0
    retried: bool = False
    #: The callback URL of the latest request, "" before the first. Cap, pace and window are about what is there.
    url: str = ""
    #: How many may be under way: grows while the endpoint keeps up, halves when it does not answer.
    cap: float = CAP_START
    #: The cap kept more from being under way when the latest began.
    full: bool = False
    #: Moving average of seconds per request and the best lately; None until the first answer.
    pace: float | None = None
    best: float | None = None
    #: One request at a time, until it succeeds: the breaker was open. Every second probe is a first attempt if one is
    #: due: retries of what an endpoint never takes would keep all else back.
    probing: bool = False
    breaker_level: int = 0
    first_attempts_first: bool = False
    #: Outcomes not yet written that decide whether anything may start; until then nothing does.
    undecided: int = 0
    #: (requests, seconds) of the rate limit, the requests that may start now, and when that was reckoned.
    rate: tuple[int, int] | None = None
    allowance: float = 0.0
    reckoned_at: float = 0.0
    #: The webhook's own retry schedule, None for the platform's.
    retry_delays: list[float] | None = None
    #: Attempts and failures since the window began, and failures since the latest success.
    window_began: float = 0.0
    attempts: int = 0
    failures: int = 0
    streak: int = 0
    #: Conversations with a delivery under way: the next one of the same waits.
    busy: set[int] = field(default_factory=set)
    #: Deliveries that wait, are under way or not yet written: reading finds them again.
    held: set[int] = field(default_factory=set)
    #: Where reading goes on.
    after: tuple[str, int] = START
    #: Some of what is held was read, not taken as it was made.
    loaded: bool = False
    #: More is due than is held; retries, too, which the latest reading left out for want of room.
    more: bool = False
    more_retries: bool = False
    #: The latest reading has left some for the next.
    backlog: bool = False
    #: Reading goes on from there; False once it has begun at the start again, or was told to.
    reading: bool = False
    #: When it last began at the start, by `time.monotonic`.
    rewound_at: float = 0.0

    def settle(self, wanting: Wanting) -> None:
        """Take over the webhook's present settings."""
        self.settled = True
        self.organisation_id = wanting.organisation_id
        self.retry_delays = wanting.retry_delays
        self.probing = wanting.breaker_level > 0
        if wanting.breaker_level != self.breaker_level:
            self.breaker_level = wanting.breaker_level
            self.first_attempts_first = self.probing and self.breaker_level % 2 == 0
        rate = None if wanting.rate_limit is None else (wanting.rate_limit, wanting.rate_seconds)
        if rate != self.rate:
            self.rate = rate
            # An engine begins where the one before it left off.
            idle = WINDOW_SECONDS if wanting.idle_seconds is None else max(0.0, wanting.idle_seconds)
            self.allowance, self.reckoned_at = 0.0, time.monotonic() - idle

    def turn_to(self, url: str) -> None:
        """Requests go to another callback URL from now on: what the one before did says nothing about it."""
        self.url = url
        # What is still under way to that one has its part of the cap.
        self.cap, self.pace, self.best = max(self.cap, CAP_START), None, None
        self.forget_window()

    def take(self, delivery: Due) -> None:
        """Have a delivery wait until it may start."""
        self.held.add(delivery.id)
        self.waiting.append(delivery)
        self.retries_waiting += delivery.attempt_count > 0

    def quota(self) -> int:
        """How many more to read: what can start soon, but for what is held. Retries that are more than half of it take
        no room from first attempts."""
        return self.soon() - len(self.waiting) - self.in_flight + max(0, -self.room_for_retries())

    def room_for_retries(self) -> int:
        """How many more retries to read: half of what can start soon, but for those held. Below zero with more."""
        half = max(1, int(self.soon() * RETRY_SHARE))
        return half - self.retries_waiting - self.retries_in_flight

    def reads_retries(self) -> bool:
        """Whether the next reading takes retries, too."""
        return self.room_for_retries() > 0 and not self.first_attempts_first

    def wants(self) -> bool:
        """There is more to read, and room for it."""
        return (self.more or (self.more_retries and self.room_for_retries() > 0)) and self.quota() > 0

    def starving(self) -> bool:
        """Half of what can start soon is not even read, though there is more."""
        return self.wants() and 2 * self.quota() > self.soon()

    def soon(self, seconds: float = AHEAD_SECONDS) -> int:
        """How many can start within so many seconds."""
        if self.probing:
            return 1
        soon = CAP_START
        if self.pace is not None:
            soon = min(AHEAD_MOST, max(soon, int(self.cap * seconds / max(self.pace, 0.001))))
        if self.rate is not None:
            soon = min(soon, max(1, int(self.rate[0] * seconds / self.rate[1])))
        return soon

    def open(self) -> bool:
        """Whether a further request may be under way."""
        return not self.undecided and self.in_flight < (1 if self.probing else int(self.cap))

    def wait(self, moment: float) -> float:
        """Seconds until the rate limit lets the next request start; 0.0 when it may start now."""
        if self.rate is None:
            return 0.0
        requests, seconds = self.rate
        # What may start at once after a rest, and what is added meanwhile, are together never more than the limit.
        burst = max(1.0, requests * BURST_SHARE)
        pace = (requests + 1.0 - burst) / seconds
        self.allowance = min(burst, self.allowance + (moment - self.reckoned_at) * pace)
        self.reckoned_at = moment
        return max(0.0, (1.0 - self.allowance) / pace)

    def next(self) -> Due | None:
        """Take out the next delivery that may start: not behind one of its conversation; retries leave room for first
        attempts, and take turns with them where there is room for one request only."""
        if self.retries_in_flight >= max(1, int(self.cap * RETRY_SHARE)):
            return self._next(room_for_retry=False)
        if self.retried and self.retries_waiting and self.cap < 2.0:
            return self._next(room_for_retry=False) or self._next(room_for_retry=True)
        return self._next(room_for_retry=True)

    def _next(self, *, room_for_retry: bool) -> Due | None:
        first = self.waiting[0] if self.waiting else None
        if first is None or (first.lane not in self.busy and (room_for_retry or not first.attempt_count)):
            return self._taken_out(self.waiting.popleft()) if first else None
        behind: list[Due] = []
        found = None
        passed: set[int] = set()
        while self.waiting:
            delivery = self.waiting.popleft()
            blocked = delivery.lane is not None and (delivery.lane in self.busy or delivery.lane in passed)
            if not blocked and (room_for_retry or not delivery.attempt_count):
                found = delivery
                break
            behind.append(delivery)
            if delivery.lane is not None and delivery.blocks:
                passed.add(delivery.lane)
        self.waiting.extendleft(reversed(behind))
        return self._taken_out(found) if found else None

    def _taken_out(self, delivery: Due) -> Due:
        self.retries_waiting -= delivery.attempt_count > 0
        return delivery

    def started(self, delivery: Due) -> None:
        """A request began."""
        self.in_flight += 1
        self.full = not self.open()
        self.allowance -= 1.0
        self.retried = delivery.attempt_count > 0
        if self.retried:
            self.retries_in_flight += 1
        if delivery.lane is not None:
            self.busy.add(delivery.lane)

    def release(self, delivery: Due) -> None:
        """The next one of its conversation may start."""
        if delivery.lane is not None:
            self.busy.discard(delivery.lane)

    def left(self, delivery: Due) -> None:
        """A request is no longer under way."""
        self.in_flight -= 1
        if delivery.attempt_count:
            self.retries_in_flight -= 1

    def ended(self, delivery: Due, outcome: Outcome) -> None:
        """A request ended: take its place back and learn from it."""
        self.left(delivery)
        seconds = outcome.timings["total"] / 1000
        self.pace = seconds if self.pace is None else self.pace * 0.8 + seconds * 0.2
        # Forgets slowly, so that an endpoint that became slower for good is measured anew.
        self.best = seconds if self.best is None else min(self.best * 1.001 + 0.000_001, seconds)
        if outcome.error or outcome.status in (429, 503):
            self.cap = max(1.0, self.cap / 2)
        elif self.cap < CAP_START:
            self.cap += 1.0
        elif self.full and self.pace <= self.best * KEEPS_UP + OUR_OWN_SECONDS:
            self.cap = min(CAP_MOST, max(self.cap, min(self.cap + 1.0, self.best * ENOUGH_A_SECOND)))
        elif self.cap > CAP_START and self.pace > self.best * KEEPS_UP * 2 + OUR_OWN_SECONDS:
            self.cap -= 1.0
        self._note(outcome.ok)

    def _note(self, ok: bool) -> None:
        moment = time.monotonic()
        if moment - self.window_began >= WINDOW_SECONDS:
            self.window_began, self.attempts, self.failures = moment, 0, 0
        self.attempts += 1
        self.failures += not ok
        self.streak = 0 if ok else self.streak + 1

    @property
    def tripping(self) -> bool:
        """Too much has failed lately."""
        share = self.attempts >= WINDOW_LEAST and self.failures >= self.attempts * WINDOW_FAILED
        return share or self.streak >= FAILURES

    def forget_window(self) -> None:
        """Judge from here on: the breaker opened or closed."""
        self.attempts = self.failures = self.streak = 0

    def rewind(self) -> None:
        """Begin reading at the oldest again."""
        self.after = START
        self.reading = False
        self.rewound_at = time.monotonic()

    def forget_waiting(self) -> None:
        """Drop what has not started: it is still due, and read again by whoever may send it."""
        self.held.difference_update(one.id for one in self.waiting)
        self.waiting.clear()
        self.retries_waiting = 0
        self.rewind()

    def forget_followers(self, delivery: Due) -> None:
        """A delivery still blocks its lane: what was read behind it waits in the database."""
        followers = {one.id for one in self.waiting if delivery.lane is not None and one.lane == delivery.lane}
        if followers:
            self.waiting = deque(one for one in self.waiting if one.id not in followers)
            self.retries_waiting = sum(one.attempt_count > 0 for one in self.waiting)
            self.held -= followers
        self.rewind()
