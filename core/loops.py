"""Long-running loops as django-q tasks: the delivery engine, the sandbox carrier.

A loop runs in slices. Before a slice ends it queues its successor, so a worker is never held for ever and a cluster
stops when it is told to. How many run at once is limited by slots: rows with a lease that the running slice renews.
A loop that died leaves a slot whose lease runs out; `ensure` sees that and queues a start. `ensure` is called by
`manage.py up` every few seconds, by the sweep, and by wake-ups that find nobody at work.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import close_old_connections
from django.db.models import Max, Q
from django_q.brokers import Broker, get_broker
from django_q.models import Schedule
from django_q.tasks import async_task

from core.clock import now
from core.models import Slot

log = logging.getLogger("webio.loops")

#: How long a slice runs at most, seconds, where the loop does not say: well below the task time-out of 60.
SLICE_SECONDS = 20.0
#: The shortest slice, as a part of that.
SHORTEST = 0.75
#: A slot whose holder was silent for this long is free, and how often the holder speaks.
LEASE = timedelta(seconds=10)
RENEW_SECONDS = 2.0
#: A queued start that did not happen is queued again after this long.
QUEUED = timedelta(seconds=15)


@dataclass(frozen=True)
class Loop:
    """A loop: its name, the dotted path of its django-q task, the cluster it runs in and how many run at once.

    One that has nothing to do for long says that none should run. Between two slices nobody works for a moment, so a
    loop that is never to be late has longer ones.
    """

    name: str
    task: str
    cluster: str
    slots: Callable[[], int]
    slice_seconds: float | None = None


LOOPS: dict[str, Loop] = {}
#: What `manage.py up` calls every few seconds; each entry sees that its loop runs.
keepalives: list[Callable[[], object]] = []
_brokers: dict[str, Broker] = {}
#: Set when this process is told to stop: running slices leave at once.
_stopping = threading.Event()


def register(loop: Loop) -> None:
    """Make a loop known. Apps call it in `ready()`."""
    if loop.name not in LOOPS:
        LOOPS[loop.name] = loop
        keepalives.append(lambda: ensure(loop.name))


def enqueue(task: str, cluster: str) -> None:
    """Queue a task without arguments. One broker is kept per cluster: with Redis each new one is a connection."""
    if cluster not in _brokers:
        _brokers[cluster] = get_broker(list_key=cluster)
    async_task(task, broker=_brokers[cluster])


def _over(column: str, moment: datetime, span: timedelta) -> Q:
    """A time in `column` is over. One too far ahead was written by a clock that was wrong, and is over too."""
    return Q(**{f"{column}__lte": moment}) | Q(**{f"{column}__gt": moment + 2 * span})


def ensure(name: str) -> int:
    """Queue a start for each free slot that has none queued. Returns how many were queued."""
    loop = LOOPS[name]
    wanted = loop.slots()
    known = set(Slot.objects.filter(name=name).values_list("number", flat=True))
    moment = now()
    for number in set(range(wanted)) - known:
        # As if its last run had ended long ago: nobody's share is kept for it.
        past = moment - QUEUED
        Slot.objects.get_or_create(name=name, number=number, defaults={"lease_until": past, "queued_until": past})
    free = Slot.objects.filter(
        _over("lease_until", moment, LEASE), _over("queued_until", moment, QUEUED), name=name, number__lt=wanted
    )
    queued = 0
    for pk in list(free.values_list("pk", flat=True)):
        # The condition again, so that of several processes one queues.
        if free.filter(pk=pk).update(queued_until=moment + QUEUED):
            enqueue(loop.task, loop.cluster)
            queued += 1
    return queued


def alive(name: str) -> int:
    """How many runs of a loop have lately said that they are alive."""
    return len(slots_alive(name))


def slots_alive(name: str) -> list[int]:
    """The ids of their slots."""
    slots = Slot.objects.filter(~_over("lease_until", now(), LEASE), name=name).exclude(holder="")
    return list(slots.values_list("pk", flat=True))


def silent_seconds(name: str) -> float:
    """How long no run of a loop has been alive: infinite when none has ever been queued.

    0 while one is, or none should be.
    """
    if not LOOPS[name].slots():
        return 0.0
    last = Slot.objects.filter(name=name).aggregate(last=Max("lease_until"))["last"]
    return math.inf if last is None else max(0.0, (now() - last).total_seconds())


@dataclass
class Run:
    """One slice of a loop. `go_on()` says whether to continue; it also renews the lease."""

    name: str
    slot_id: int
    holder: str
    ends_at: float
    lost: bool = False
    _renewed_at: float = field(default_factory=time.monotonic)

    def go_on(self) -> bool:
        """False when the slice is over, the process is told to stop, or the slot went to somebody else."""
        if self.lost or _stopping.is_set():
            return False
        moment = time.monotonic()
        if moment - self._renewed_at >= RENEW_SECONDS:
            self._renewed_at = moment
            mine = Slot.objects.filter(pk=self.slot_id, holder=self.holder)
            self.lost = not mine.update(lease_until=now() + LEASE)
        return not self.lost and moment < self.ends_at

    @property
    def over(self) -> bool:
        """The slice is over, and nothing else hinders this run."""
        return not self.lost and not _stopping.is_set() and time.monotonic() >= self.ends_at

    def place(self) -> tuple[int, int]:
        """This run's number among the loop's runs, from 0, and how many there are.

        A run that has queued its successor counts until that is overdue, so that numbers stay between slices. A start
        that is queued again and again and never happens does not: its share would be nobody's.
        """
        moment = now()
        between = ~_over("queued_until", moment, QUEUED) & Q(lease_until__gt=moment - QUEUED)
        others = Slot.objects.filter(~_over("lease_until", moment, LEASE) | between, name=self.name)
        slots = sorted({self.slot_id, *others.values_list("pk", flat=True)})
        return slots.index(self.slot_id), len(slots)


@contextlib.contextmanager
def hold(name: str) -> Iterator[Run | None]:
    """Hold a slot of a loop for one slice; None when all are taken. On leaving, a successor is queued.

    No successor is queued when the process is told to stop or the loop has nothing to do, and none for a slot that
    was lost.
    """
    close_old_connections()
    run = _acquire(name)
    if run is None:
        yield None
        return
    with _leaving_on_interrupt():
        try:
            yield run
        finally:
            mine = Slot.objects.filter(pk=run.slot_id, holder=run.holder)
            over = now()
            if _stopping.is_set():
                mine.update(holder="", lease_until=over, queued_until=over)
            elif not LOOPS[name].slots():
                mine.update(holder="", lease_until=over, queued_until=over)
                # Whoever had work for it a moment ago saw it still running, and queued no start.
                ensure(name)
            elif mine.update(holder="", lease_until=over, queued_until=over + QUEUED):
                enqueue(LOOPS[name].task, LOOPS[name].cluster)
                bring_back_schedules()


def bring_back_schedules() -> None:
    """Let schedules be due whose next run is too far ahead: they ran by a clock that was wrong.

    The sweep would see to it, but is one of them. Loops need none.
    """
    moment = now()
    # The kinds of ours: a fixed period.
    for schedule in Schedule.objects.filter(schedule_type__in=[Schedule.MINUTES, Schedule.HOURLY]):
        period = schedule.calculate_next_run(moment) - moment
        if schedule.next_run > moment + 2 * period:
            Schedule.objects.filter(pk=schedule.pk, next_run=schedule.next_run).update(next_run=moment)


@contextlib.contextmanager
def alone(name: str, span: timedelta) -> Iterator[bool]:
    """Whether nobody else is in a block of this name, which is no loop's.

    Nobody counts as being in one for longer than `span`: who died there is in nobody's way then.
    """
    moment, holder = now(), uuid.uuid4().hex
    Slot.objects.get_or_create(name=name, number=0, defaults={"lease_until": moment})
    free = Slot.objects.filter(_over("lease_until", moment, span), name=name)
    mine = bool(free.update(holder=holder, lease_until=moment + span))
    try:
        yield mine
    finally:
        if mine:
            Slot.objects.filter(name=name, holder=holder).update(holder="", lease_until=now())


def _acquire(name: str) -> Run | None:
    holder = uuid.uuid4().hex
    moment = now()
    wanted = LOOPS[name].slots()
    if not wanted:
        # The queued start has come: the next one need not wait for it.
        Slot.objects.filter(name=name, queued_until__gt=moment).update(queued_until=moment)
        ensure(name)
        return None
    free = Slot.objects.filter(_over("lease_until", moment, LEASE), name=name, number__lt=wanted)
    for pk in list(free.values_list("pk", flat=True)):
        if free.filter(pk=pk).update(holder=holder, lease_until=moment + LEASE, queued_until=moment):
            return Run(name, pk, holder, time.monotonic() + _length(LOOPS[name]))
    return None


def _length(loop: Loop) -> float:
    """How long a slice runs, seconds: each another while, so that slices which began together seldom end so."""
    return (loop.slice_seconds or SLICE_SECONDS) * random.uniform(SHORTEST, 1.0)


@contextlib.contextmanager
def _leaving_on_interrupt() -> Iterator[None]:
    """Workers ignore SIGINT, which a stopping supervisor sends to the whole group: a slice hears it and leaves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: _stopping.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
