"""The carrier's loop as a django-q task."""

from __future__ import annotations

import select
import time

from core.clock import now
from core.loops import Loop, hold
from core.wakeup import Waiter
from gateways.sandbox import carrier

LOOP = Loop(name=carrier.KIND, task="gateways.sandbox.tasks.carry", cluster="webio", slots=lambda: 1)

#: A wake-up may come this much late without a report coming late, since every new report is due after `DELAY`.
LOOK_SECONDS = carrier.DELAY.total_seconds() / 3
#: The rows are looked at this often even when nobody said anything.
POLL_SECONDS = 1.0


def carry() -> int:
    """Report what falls due, for one slice. Returns how many reports were made."""
    done = 0
    with hold(LOOP.name) as run:
        if run is None:
            return 0
        waiter = Waiter(LOOP.name)
        try:
            while run.go_on():
                claimed = carrier.report_due()
                done += claimed
                if not claimed:
                    rest(waiter)
        finally:
            waiter.close()
    return done


def rest(waiter: Waiter) -> None:
    """Wait until the next report is due; when there is none, until somebody says there may be one."""
    due = carrier.next_due()
    if due is not None:
        # A report made in the meantime is due later than this one: no need to listen.
        time.sleep(min(max((due - now()).total_seconds(), 0.001), POLL_SECONDS))
        return
    until = time.monotonic() + POLL_SECONDS
    while (left := until - time.monotonic()) > 0:
        descriptor = waiter.fileno()
        if descriptor is None:
            time.sleep(min(left, LOOK_SECONDS))
        else:
            select.select([descriptor], [], [], left)
        if waiter.woken():
            return
