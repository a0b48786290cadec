"""Works replays off: makes their deliveries in small batches, each in one transaction with how far it has come.

So a process that dies at any point neither loses nor doubles one; whoever comes next goes on behind `position`.
Deliveries are made in the order of their events, and no faster than the webhook takes them.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from django.db import transaction
from django.db.models import Q, QuerySet

from core.clock import now
from core.loops import Run
from webhooks.copies import copy_all
from webhooks.models import Delivery, Outstanding, Replay, Webhook
from webhooks.replay import chosen
from webhooks.signals import wake_engine

#: The pause between two batches, seconds.
TICK_SECONDS = 0.1
#: What was not made in time is made up for so many seconds at most.
ARREARS_SECONDS = 2 * TICK_SECONDS
#: So many deliveries are looked up at once: the work of that many seconds, since it may mean to sort a whole log.
AHEAD_SECONDS = 20
#: While so many deliveries of the webhook are due no more are made: new events would wait behind them.
BACKLOG = 1000


def workable() -> QuerySet[Replay]:
    """Running replays whose webhook takes deliveries now."""
    unbroken = Q(webhook__breaker_until=None) | Q(webhook__breaker_until__lte=now())
    return Replay.objects.filter(
        unbroken,
        state=Replay.State.RUNNING,
        webhook__state=Webhook.State.ACTIVE,
        webhook__archived_at=None,
        organisation__suspended_at=None,
    )


def wanted() -> int:
    """How many runs of the loop there should be: it does not keep a worker waiting for replays to come."""
    return int(workable().exists())


@dataclass
class Worker:
    """One replay being worked off: which deliveries come next, and how many may be made by now."""

    #: Where the replay stood when we last saw it; None before.
    position: int | None = None
    #: (event, delivery), in the order of events.
    ahead: deque[tuple[int, int]] = field(default_factory=deque)
    allowance: float = 0.0
    counted_at: float = field(default_factory=time.monotonic)

    def step(self, replay: Replay) -> int:
        """Make what may be made by now; see when there is nothing left. Returns how many were made."""
        if replay.position != self.position:
            self.position = replay.position
            self.ahead.clear()
        count = min(self.earned(replay.rate), room(replay.webhook_id))
        if count < 1:
            return 0
        if not self.ahead:
            self.ahead.extend(following(replay, replay.rate * AHEAD_SECONDS))
        batch = [self.ahead.popleft() for _ in range(min(count, len(self.ahead)))]
        made = advance(replay, batch)
        self.allowance -= len(batch)
        if batch:
            self.position = batch[-1][0]
        return made

    def earned(self, rate: int) -> int:
        """How many may be made by now."""
        moment = time.monotonic()
        most = max(1.0, rate * ARREARS_SECONDS)
        self.allowance = min(most, self.allowance + (moment - self.counted_at) * rate)
        self.counted_at = moment
        return int(self.allowance)


def room(webhook_id: int) -> int:
    """How many deliveries of a webhook may be added to those that are due."""
    due = Outstanding.objects.filter(webhook_id=webhook_id, next_attempt_at__lte=now()).order_by("next_attempt_at")
    return BACKLOG - due[:BACKLOG].count()


def following(replay: Replay, limit: int) -> list[tuple[int, int]]:
    """(event, delivery) of what comes next. Outside a transaction, since it may read much."""
    rows = chosen(replay).filter(event_id__gt=replay.position)
    return list(rows.order_by("event_id").values_list("event_id", "pk")[:limit])


def advance(replay: Replay, batch: list[tuple[int, int]]) -> int:
    """Make a batch's deliveries and move the replay behind it; with an empty batch it is done.

    Nothing happens when the replay or its webhook was stopped or somebody else has moved it meanwhile. Returns how
    many were made: what was sent again since it was looked up is left alone.
    """
    with transaction.atomic():
        webhook = Webhook.objects.select_for_update(no_key=True).get(pk=replay.webhook_id)
        locked = Replay.objects.select_for_update(no_key=True).get(pk=replay.pk)
        if (
            locked.state != Replay.State.RUNNING
            or locked.position != replay.position
            or webhook.state != Webhook.State.ACTIVE
            or webhook.archived_at is not None
        ):
            return 0
        if not batch:
            locked.state, locked.finished_at = Replay.State.DONE, now()
            locked.save(update_fields=["state", "finished_at"])
            return 0
        made = copy_all(chosen(locked).filter(pk__in=[pk for _event, pk in batch]), Delivery.Kind.REPLAY)
        locked.made += made
        locked.position = batch[-1][0]
        locked.save(update_fields=["made", "position"])
        wake_engine()
    return made


def work(run: Run) -> int:
    """Work off all replays for one slice, or until none can be. Returns how many deliveries were made."""
    workers: dict[int, Worker] = {}
    made = 0
    while run.go_on():
        replays = list(workable().order_by("id"))
        if not replays:
            break
        workers = {replay.pk: workers.get(replay.pk) or Worker() for replay in replays}
        for replay in replays:
            made += workers[replay.pk].step(replay)
        time.sleep(TICK_SECONDS)
    return made
