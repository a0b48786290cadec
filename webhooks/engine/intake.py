"""How an engine comes by deliveries: it dispatches events, takes what was made of them, and reads what is due."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection
from functools import partial
from itertools import starmap

from core import wakeup
from webhooks.engine import dispatch, due, leases, tidying
from webhooks.engine.desk import Course
from webhooks.engine.dispatch import Dispatched
from webhooks.engine.due import Due, Wanting
from webhooks.engine.pace import OTHERS_BUSY_SECONDS, Pace
from webhooks.engine.serving import Serving

#: Deliveries read ahead of sending.
AHEAD = 2000
#: Events dispatched at a look at least, where there are any.
DISPATCH_LEAST = 250
#: With less than this left to start it looks for more at once.
HUNGRY = AHEAD // 2
#: While it has more, of what can start within so many seconds, it lets known events wait so long: to dispatch 1,000 at
#: once takes a fifth less time for each than to dispatch 250.
FULL_SECONDS = 0.1
#: After so long at most the reading starts again at the oldest, where lanes may have become free, seconds.
REWIND_SECONDS = 2.0


class Intake:
    """Fills the lanes of what an engine serves."""

    def __init__(self, serving: Serving, pace: Pace, begin: Callable[[], None]) -> None:
        self.serving = serving
        self.pace = pace
        #: Called as soon as something may be sent for which somebody waits.
        self.begin = begin
        #: It is looking for work; whether the latest look left any that could be taken, events that nobody dispatched.
        self.looking = False
        self.found = False
        self.undispatched = False
        #: Another engine was dispatching at the latest look.
        self.elsewhere = False
        #: Others have dispatched, or were about to, since it last read.
        self.unread = False
        #: Events up to the first of these were there some time ago, up to the second at that moment (`time.monotonic`).
        self.aged, self.newest, self.noted_at = 0, 0, -math.inf
        #: A glance goes on. What it took while deliveries are read, and what was read while it goes on: either may find
        #: what the other has.
        self.glancing = False
        self.taken: set[int] = set()
        self.loaded: set[int] = set()
        #: Webhooks of which there turned out to be further deliveries since the latest reading began.
        self.further: set[int] = set()
        #: When events were last dispatched, by `time.monotonic`.
        self.dispatched_at = time.monotonic()
        #: The slice is over: what a look still finds is left to whoever comes next.
        self.over = False

    def starving(self) -> bool:
        """There is more to take, and something would wait for it."""
        return self.hungry() and (self.undispatched or any(lane.starving() for lane in self.serving.lanes.values()))

    def hungry(self) -> bool:
        """Little is left to start."""
        return sum(len(lane.waiting) for lane in self.serving.lanes.values()) < HUNGRY

    def startable(self, seconds: float) -> int:
        """How many of those at hand can start within so many seconds: their endpoints, rates and breakers let them."""
        return sum(min(len(lane.waiting), lane.soon(seconds)) for lane in self.serving.lanes.values() if lane.waiting)

    def full(self) -> bool:
        """There were more events at the latest look, a moment ago, and what was made of those can start soon."""
        if not self.undispatched or time.monotonic() - self.dispatched_at >= FULL_SECONDS:
            return False
        return self.startable(FULL_SECONDS) >= HUNGRY

    def look(self, quiet: bool, hinted: bool, thorough: bool, patient: bool, loop: str) -> Course:
        """The course of a look: take new events and, if `thorough`, read due deliveries.

        Then `found` tells whether there is more. `quiet`: nothing else happens, and an event is sent without a further
        look at the database; `hinted`: somebody said that there are events; `patient`: it may wait for another engine
        that dispatches; `loop`: the name by which others are told.
        """
        self.serving.freed = False
        self.looking = True
        place = self.serving.place
        polite = place[1] > 1 and not quiet
        noting = polite and time.monotonic() - self.noted_at >= OTHERS_BUSY_SECONDS
        if noting:
            self.aged, self.noted_at = self.newest, time.monotonic()
        others = self.aged if polite else dispatch.ALL
        # What others have dispatched comes before what is dispatched now, which could not be taken before it. But what
        # somebody has just told of waits for no reading.
        before = thorough and polite and not hinted
        if before:
            yield from self.read()
        wanted, room = self.room(hinted and not quiet)
        wait = patient and self.hungry()
        taken: Dispatched = yield partial(take_events, hinted, wait, place, others, wanted, room)
        whole = self.accept([Due(*row) for row in taken.fresh], taken.others) and len(taken.fresh) <= room
        if quiet and taken.fresh and not self.over:
            # Before all that is merely to be asked as well.
            self.begin()
        self.note(taken.events)
        if taken.events and quiet and not hinted and place[1] > 1 and loop:
            # Nobody else may have heard of these either.
            yield partial(wakeup.send, loop)
        self.elsewhere = taken.elsewhere
        self.undispatched = taken.events >= DISPATCH_LEAST
        after = not before and (thorough or not whole or taken.elsewhere or (hinted and not taken.events))
        if after:
            yield from self.read()
        if noting:
            self.newest = yield dispatch.newest
        more = any(lane.wants() for lane in self.serving.lanes.values())
        # What was heard of may have been dispatched by others, also beside what was not, or is left to them.
        seen = after and (taken.events or not polite)
        untold = hinted and place[1] > 1 and not seen
        self.unread = taken.elsewhere or untold or (self.unread and not (before or after))
        self.found = more or self.undispatched or self.unread
        self.looking = False

    def glance(self) -> Course:
        """The course of taking new events of one's own while a look goes on."""
        wanted, room = self.room(read=True)
        self.glancing, self.loaded = True, set()
        taken: Dispatched = yield partial(take_events, False, False, self.serving.place, 0, wanted, room)
        self.glancing = False
        self.accept(list(starmap(Due, taken.fresh)), taken.others, self.loaded)
        if taken.elsewhere or taken.events >= DISPATCH_LEAST:
            self.pace.missed()
        self.note(taken.events)

    def note(self, events: int) -> None:
        """So many events were dispatched just now."""
        if events:
            tidying.left.events += events
            self.dispatched_at = time.monotonic()

    def room(self, read: bool) -> tuple[list[int], int]:
        """The webhooks of which `accept` could take deliveries just made, and how many.

        With `read`, only webhooks of which no more was due at the latest reading than was read: not before older ones.
        """
        serving = self.serving
        quotas = {
            pk: lane.quota()
            for pk, lane in serving.lanes.items()
            if lane.settled and serving.serves(pk) and not (read and lane.backlog)
        }
        wanted = {pk: quota for pk, quota in quotas.items() if quota > 0}
        return list(wanted), max(0, min(sum(wanted.values()), AHEAD - sum(serving.waiting().values())))

    def accept(self, fresh: list[Due], others: list[int], known: Collection[int] = ()) -> bool:
        """Take deliveries just made, except where reading has to decide; `others` are webhooks with further ones.

        Those `known` are here already, or have been; what comes behind them in a lane still does.
        Returns whether that was all there is for this engine now: what finds no room is read when there is some.
        """
        whole = True
        waiting = self.serving.waiting()
        latest: dict[tuple[int, int], int] = {}
        #: Of each webhook: whether it is served and may be sent to, and how many more can start soon.
        takes: dict[int, bool] = {}
        quotas: dict[int, int] = {}
        for one in fresh:
            webhook_id = one.webhook_id
            if one.lane is not None:
                one.behind = latest.get((webhook_id, one.lane), one.behind)
                latest[webhook_id, one.lane] = one.id
            if one.id in known:
                continue
            lane = self.serving.lane(webhook_id)
            if webhook_id not in takes:
                takes[webhook_id] = lane.settled and self.serving.serves(webhook_id) and not self.over
                quotas[webhook_id] = lane.quota()
            room = quotas[webhook_id] > 0 and waiting.get(one.organisation_id, 0) < AHEAD // 4
            if takes[webhook_id] and room and self.serving.follows(one):
                lane.take(one)
                self.taken.add(one.id)
                quotas[webhook_id] -= 1
                waiting[one.organisation_id] = waiting.get(one.organisation_id, 0) + 1
            else:
                lane.more = True
                self.further.add(webhook_id)
                whole = whole and takes[webhook_id] and not room
        for webhook_id in filter(self.serving.mine, others):
            lane = self.serving.lane(webhook_id)
            lane.more = True
            self.further.add(webhook_id)
            whole = whole and lane.settled and self.serving.serves(webhook_id) and lane.quota() <= 0
        return whole

    def read(self) -> Course:
        """The course of reading due deliveries, of all webhooks that this engine serves or may begin to serve."""
        self.pace.read()
        serving = self.serving
        serving.released, serving.changed = set(), set()
        self.further = set()
        wanting: list[Wanting] = yield due.webhooks_with_due_work
        serving.homes.update((one.webhook_id, one.home) for one in wanting)
        wanting = [one for one in wanting if serving.mine(one.webhook_id) and one.webhook_id not in serving.slow]
        missing = [one.webhook_id for one in wanting if one.webhook_id not in serving.leases]
        if missing:
            serving.leases.add((yield partial(leases.ask, serving.leases.token, missing)))
        yield from self.load(self.quotas(wanting))

    def quotas(self, wanting: list[Wanting]) -> list[tuple[int, int]]:
        """How much to read of each webhook: equal parts for organisations, then for their webhooks."""
        by_organisation: dict[int, list[tuple[int, int]]] = {}
        for pk, lane in self.serving.lanes.items():
            lane.more, lane.more_retries = pk in self.further, False
        for one in wanting:
            lane = self.serving.lane(one.webhook_id)
            lane.more = self.serving.serves(one.webhook_id)
            if one.webhook_id in self.serving.changed:
                continue
            lane.settle(one)
            quota = lane.quota()
            if quota > 0 and lane.more:
                by_organisation.setdefault(one.organisation_id, []).append((one.webhook_id, quota))
        return share(by_organisation, self.serving.waiting(), AHEAD)

    def load(self, quotas: list[tuple[int, int]]) -> Course:
        """Read up to `quota` further due deliveries of each webhook."""
        serving, lanes = self.serving, self.serving.lanes
        moment = time.monotonic()
        wanted = []
        for webhook_id, quota in quotas:
            lane = lanes[webhook_id]
            retries = lane.reads_retries()
            if not retries or moment - lane.rewound_at >= REWIND_SECONDS:
                lane.rewind()
            lane.reading = True
            wanted.append(due.Part(webhook_id, quota, lane.after, list(lane.held), retries))
        firsts = {part.webhook_id for part in wanted if not part.retries}
        found = dict.fromkeys((webhook_id for webhook_id, _quota in quotas), 0)
        passed: set[int] = set()
        self.taken, self.further = set(), self.further - found.keys()
        rows = yield partial(due.load, wanted)
        for one in starmap(Due, rows):
            lane = lanes[one.webhook_id]
            found[one.webhook_id] += 1
            if not lane.reading:
                passed.add(one.webhook_id)
                continue
            if one.id in self.taken:
                continue
            lane.after = one.place
            # One whose predecessor is due later, after a pause or a jump of the clock, is read again after that.
            if serving.follows(one):
                lane.take(one)
                lane.loaded = True
                if self.glancing:
                    self.loaded.add(one.id)
            else:
                passed.add(one.webhook_id)
        for webhook_id, quota in quotas:
            lane, whole = lanes[webhook_id], found[webhook_id] < quota
            lane.backlog = not whole
            lane.more_retries = webhook_id in firsts
            if webhook_id in firsts:
                lane.rewind()
                if whole or webhook_id in passed:
                    # Whoever begins at the oldest each time would find the same again.
                    lane.more = webhook_id in self.further
                    lane.first_attempts_first = False
            elif whole:
                lane.rewind()
                lane.more = webhook_id in passed or webhook_id in self.further


def take_events(
    hinted: bool, wait: bool, place: tuple[int, int], others: int, wanted: list[int], room: int
) -> Dispatched:
    """Dispatch events, if there are any: about as many as there is room for, or their deliveries would have to be read
    again. `others`: as `dispatch.dispatch` has it."""
    limit = min(dispatch.BATCH, max(DISPATCH_LEAST, room))
    if (hinted and others == dispatch.ALL) or dispatch.waiting(limit, place=place, others=others):
        # One more than there is room for tells that there are more.
        return dispatch.dispatch(limit, wait=wait, place=place, others=others, wanted=wanted, room=room + 1)
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
