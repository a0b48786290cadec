"""The carrier's loop as a django-q task."""

from __future__ import annotations

import time
from datetime import datetime

from core.clock import now
from core.loops import Loop, hold
from core.wakeup import Waiter
from gateways.sandbox import carrier

LOOP = Loop(name=carrier.KIND, task="gateways.sandbox.tasks.carry", cluster="webio", slots=lambda: 1)

#: The rows are looked at this often even when nobody said anything.
POLL_SECONDS = 1.0
#: Nor more often when much is said, as on SQLite with every commit of anybody: what is new is due later (`DELAY`).
GATHER_SECONDS = 0.1


def carry() -> int:
    """Report what falls due, for one slice. Returns how many reports were made."""
    done = 0
    with hold(LOOP.name) as run:
        if run is None:
            return 0
        waiter = Waiter(LOOP.name)
        try:
            while run.go_on():
                due = carrier.next_due()
                # To claim what nobody has is to write: not before something is due.
                claimed = carrier.report_due() if due is not None and due <= now() else 0
                done += claimed
                if not claimed:
                    rest(waiter, due)
        finally:
            waiter.close()
    return done


def rest(waiter: Waiter, due: datetime | None) -> None:
    """Wait until the next report is due; when there is none, until somebody says there may be one."""
    if due is not None:
        # A report made in the meantime is due later than this one: no need to listen.
        time.sleep(min(max((due - now()).total_seconds(), 0.001), POLL_SECONDS))
    elif waiter.wait(POLL_SECONDS):
        time.sleep(GATHER_SECONDS)
