"""What django-q calls. The rows are the truth; these only say that somebody should look at them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import sys
from typing import Any

from django.apps import AppConfig
from django.db import connection
from django_q.models import Schedule

from core import loops
from core.wakeup import Waiter
from webhooks import failing, replaying
from webhooks.engine import tidying
from webhooks.engine.desk import Desk, Line
from webhooks.engine.drain import Drain
from webhooks.replay import LOOP as REPLAYS
from webhooks.signals import LOOP
from webhooks.stranded import settle_stranded

#: The garbage collector looks at new objects when there are so many, and threads change after so long, seconds.
COLLECT_AFTER = 20_000
SWITCH_SECONDS = 0.0005
#: What glibc keeps of freed memory, takes in advance, and maps apart, by the numbers of mallopt(3), bytes.
MEMORY = {-1: 16 * 1024 * 1024, -2: 1024 * 1024, -3: 4 * 1024 * 1024}
#: How long a slice of the engine runs at most, seconds. With what it then still waits for it stays below the time-out
#: of the `deliveries` cluster.
SLICE_SECONDS = 60.0
SWEEP = "webhooks.tasks.sweep"


@functools.cache
def _settle_down() -> None:
    """Make a process an engine's, once.

    What is loaded by now stays, so the garbage collector need not go through it again and again: that was a tenth of
    the engine's time. Nor once more now: that would take longer than sending a thousand deliveries. And the thread that
    hears of jobs (`webhooks.engine.desk`) shall not wait 5 ms for the one that does them. What a batch needed is needed
    by the next: to give memory back and take it anew was a page fault for each delivery.
    """
    tidying.inherit()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    sys.setswitchinterval(SWITCH_SECONDS)
    # Another library of C may not have it.
    with contextlib.suppress(AttributeError, OSError):
        for parameter, value in MEMORY.items():
            ctypes.CDLL(None).mallopt(parameter, value)


def drain() -> dict[str, int]:
    """One slice of the delivery engine. Returns how many requests were made; a surplus call returns at once."""
    _settle_down()
    # SQLite has one writer at a time.
    lines = len(Line) if connection.vendor == "postgresql" else 1
    # The desk before all that asks the database.
    with Desk(lines) as desk, contextlib.closing(Waiter(LOOP)) as waiter, loops.hold(LOOP) as run:
        return {"sent": Drain(run.slot_id, desk).run(run, waiter) if run is not None else 0}


def replay() -> dict[str, int]:
    """One slice of working replays off. Returns how many deliveries were made; a surplus call returns at once."""
    with loops.hold(REPLAYS) as run:
        return {"made": replaying.work(run) if run is not None else 0}


def sweep() -> dict[str, int]:
    """See that every loop runs, that nothing lies between two states, and what has failed for too long.

    Returns starts queued, rows settled and webhooks disabled.
    """
    found = {"settled": settle_stranded(), **{name: loops.ensure(name) for name in loops.LOOPS}}
    # The last, as it may wait for a mail server.
    return found | {"disabled": failing.check()}


def install_schedules(sender: AppConfig, using: str, **_: Any) -> None:
    """`post_migrate` receiver: the schedule of the sweep, every minute, once, however often it is called."""
    if sender.name == "django_q":
        defaults = {"name": "sweep", "schedule_type": Schedule.MINUTES, "minutes": 1}
        Schedule.objects.using(using).get_or_create(func=SWEEP, defaults=defaults)
