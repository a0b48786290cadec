"""What django-q calls. The rows are the truth; these only say that somebody should look at them."""

from __future__ import annotations

from core import loops
from core.wakeup import Waiter
from webhooks.engine.drain import Drain
from webhooks.signals import LOOP


def drain() -> dict[str, int]:
    """One slice of the delivery engine. Returns how many requests were made; a surplus call returns at once."""
    waiter = Waiter(LOOP)
    try:
        with loops.hold(LOOP) as run:
            return {"sent": Drain().run(run, waiter) if run is not None else 0}
    finally:
        waiter.close()


def sweep() -> dict[str, int]:
    """See that every loop runs. Returns how many starts were queued."""
    return {name: loops.ensure(name) for name in loops.LOOPS}
