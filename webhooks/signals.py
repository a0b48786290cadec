"""What webhooks hear: that events were recorded. One wake-up per transaction, nothing else."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from conversations import events
from core.wakeup import wake

LOOP = "deliveries"


@receiver(events.recorded, dispatch_uid="webhooks.wake_engine")
def wake_on_events(**_: Any) -> None:
    """New events wait to be dispatched."""
    wake_engine()


def wake_engine() -> None:
    """Wake the delivery engine when the current transaction has committed."""
    wake(LOOP)
