"""What tests of the delivery engine share: run it until it has nothing due, in this process and transaction."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from core.clock import held_at, now
from webhooks.engine.drain import Drain
from webhooks.models import Delivery, Webhook
from webhooks.tests.endpoint import Endpoint


@contextmanager
def running_drain() -> Iterator[Drain]:
    """An engine that is finished properly at the end of the block."""
    drain = Drain()
    try:
        yield drain
    finally:
        drain.finish()


def step(drain: Drain, seconds: float = 20.0) -> None:
    """Dispatch, read, send and write until nothing is due any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        drain.settle((0, 1))
        drain.look()
        drain.sender.start()
        drain.collect(0.01)
        waiting = any(lane.waiting for lane in drain.serving.lanes.values())
        more = drain.intake.found or drain.serving.freed or drain.intake.starving()
        if not more and not waiting and drain.idle():
            return
    raise AssertionError(f"The engine had not finished after {seconds} s.")


def deliver(at: datetime | None = None) -> None:
    """Everything that is due, now or at a given moment."""
    with held_at(at or now()), running_drain() as drain:
        step(drain)


def only(webhook: Webhook) -> Delivery:
    """The one delivery of `webhook`."""
    return Delivery.objects.get(webhook=webhook)


def bodies(endpoint: Endpoint) -> list[bytes]:
    """What arrived, in order."""
    return [asked.body for asked in endpoint.asked]
