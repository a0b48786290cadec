"""Deliveries that were fanned out while their webhook changed its state, and so got the state before.

Fan-out reads a webhook without locking it, since a lock would make it wait for every outcome. A delivery inserted
beside a deletion is committed as pending after the deletion has cancelled what it saw. (A resume waits for who fans
out: `webhooks.outstanding.release_all`.)

And times that were written before the clock was put back.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import OuterRef, Q, Subquery

from core.clock import now
from webhooks import outstanding
from webhooks.actions import RETRY_DELAY_MAX
from webhooks.engine import breaker
from webhooks.engine.schedule import DELAYS, JITTER, OUR_FAULT, RETRY_AFTER_MAXIMUM
from webhooks.models import Outstanding, Webhook
from webhooks.signals import wake_engine

#: How far ahead a first attempt is ever due by intent, with as much again to spare, and a later one.
FIRST_AHEAD = 2 * OUR_FAULT
LATER_AHEAD = timedelta(seconds=max(RETRY_DELAY_MAX, RETRY_AFTER_MAXIMUM, *DELAYS) * (1 + JITTER))
#: The same of a webhook's times. Clocks of several machines differ.
DIFFER = timedelta(minutes=1)
WEBHOOK_AHEAD = {
    "breaker_until": timedelta(seconds=breaker.PAUSE_MOST * (1 + breaker.JITTER)) + DIFFER,
    "failing_since": DIFFER,
    "last_failure_at": DIFFER,
    # A rate limit would wait for it.
    "last_success_at": DIFFER,
}


def settle_stranded() -> int:
    """Make held deliveries of active webhooks due and cancel unsent ones of deleted webhooks. Returns how many.

    What is due later than it can be was put off before the clock was put back: it is due at once.

    Runs regularly; can run twice and beside anything.
    """
    active = Webhook.objects.filter(state=Webhook.State.ACTIVE, archived_at=None, organisation__suspended_at=None)
    held = Outstanding.objects.filter(webhook__in=active, next_attempt_at=None)
    released = outstanding.release(held) if held.exists() else 0
    unsent = Outstanding.objects.filter(webhook__in=Webhook.objects.exclude(archived_at=None))
    cancelled = outstanding.cancel(unsent) if unsent.exists() else 0
    moment = now()
    early = _bring_back_deliveries(moment)
    if _bring_back_webhooks(moment) or released or early:
        wake_engine()
    return released + cancelled + early


def _bring_back_deliveries(moment: datetime) -> int:
    """Make due what is due too far ahead. Returns how many."""
    own = Outstanding.objects.filter(webhook=OuterRef("pk"), next_attempt_at__isnull=False)
    # One look into the index for each webhook, however much is outstanding.
    latest = Subquery(own.order_by("-next_attempt_at").values("next_attempt_at")[:1])
    ahead = Webhook.objects.alias(latest=latest).filter(latest__gt=moment + FIRST_AHEAD)
    too_far = Q(attempt_count=0) | Q(next_attempt_at__gt=moment + LATER_AHEAD)
    return Outstanding.objects.filter(
        too_far, webhook__in=list(ahead.values_list("pk", flat=True)), next_attempt_at__gt=moment + FIRST_AHEAD
    ).update(next_attempt_at=moment)


def _bring_back_webhooks(moment: datetime) -> bool:
    """Let no time of a webhook be too far ahead. Whether one was."""
    too_far = {f"{column}__gt": moment + most for column, most in WEBHOOK_AHEAD.items()}
    if not Webhook.objects.filter(Q(**too_far, _connector=Q.OR)).exists():
        return False
    for column in WEBHOOK_AHEAD:
        name = f"{column}__gt"
        Webhook.objects.filter(**{name: too_far[name]}).update(**{column: moment})
    return True
