"""What django-q calls. The rows are the truth; these only say that somebody should look at them."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django_q.models import Schedule

from core import loops
from core.wakeup import Waiter
from webhooks import failing, replaying
from webhooks.engine.drain import Drain
from webhooks.replay import LOOP as REPLAYS
from webhooks.signals import LOOP
from webhooks.stranded import settle_stranded

SWEEP = "webhooks.tasks.sweep"


def drain() -> dict[str, int]:
    """One slice of the delivery engine. Returns how many requests were made; a surplus call returns at once."""
    waiter = Waiter(LOOP)
    try:
        with loops.hold(LOOP) as run:
            return {"sent": Drain(run.slot_id).run(run, waiter) if run is not None else 0}
    finally:
        waiter.close()


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
