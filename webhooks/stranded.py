"""Deliveries that were fanned out while their webhook changed its state, and so got the state before.

Fan-out reads a webhook without locking it, since a lock would make it wait for every outcome. A delivery inserted
beside a resume is committed as held after the resume has released what it saw; beside a deletion, as pending.
"""

from __future__ import annotations

from core.clock import now
from webhooks import outstanding
from webhooks.engine.schedule import OUR_FAULT
from webhooks.models import Outstanding, Webhook
from webhooks.signals import wake_engine


def settle_stranded() -> int:
    """Make held deliveries of active webhooks due and cancel unsent ones of deleted webhooks. Returns how many.

    First attempts that are due long from now were made before the clock was put back: they are due at once.

    Runs regularly; can run twice and beside anything.
    """
    active = Webhook.objects.filter(state=Webhook.State.ACTIVE, archived_at=None, organisation__suspended_at=None)
    held = Outstanding.objects.filter(webhook__in=active, next_attempt_at=None)
    released = outstanding.release(held) if held.exists() else 0
    unsent = Outstanding.objects.filter(webhook__in=Webhook.objects.exclude(archived_at=None))
    cancelled = outstanding.cancel(unsent) if unsent.exists() else 0
    # The longest that a first attempt is ever put off by intent is `OUR_FAULT`.
    early = Outstanding.objects.filter(attempt_count=0, next_attempt_at__gt=now() + 2 * OUR_FAULT).update(
        next_attempt_at=now()
    )
    if released or early:
        wake_engine()
    return released + cancelled + early
