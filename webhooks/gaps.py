"""Why a delivery that is not finished is not sent right now, and what waits for it in turn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import QuerySet

from core.clock import now
from webhooks.incidents import breaker_open
from webhooks.models import Delivery, Outstanding, Webhook

#: Followers are counted up to here.
FOLLOWERS_MAX = 100


class Reason(StrEnum):
    """What a delivery waits for."""

    STOPPED = "stopped"
    SUSPENDED = "suspended"
    BREAKER = "breaker"
    EARLIER = "earlier"
    RETRY = "retry"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Wait:
    """One thing a delivery waits for: `until` a moment, or for an `earlier` delivery of its conversation."""

    reason: Reason
    until: datetime | None = None
    earlier: Delivery | None = None


def waits_of(delivery: Delivery) -> list[Wait]:
    """Everything that an unfinished delivery waits for, in the order in which it must end; none when it is sent now."""
    webhook = delivery.webhook
    if delivery.state not in (Delivery.State.PENDING, Delivery.State.HELD):
        return []
    if webhook.organisation.suspended_at is not None:
        return [Wait(Reason.SUSPENDED)]
    if webhook.state != Webhook.State.ACTIVE or delivery.state == Delivery.State.HELD:
        return [Wait(Reason.STOPPED)]
    waits = []
    if breaker_open(webhook):
        waits.append(Wait(Reason.BREAKER, until=webhook.breaker_until))
    earlier = earlier_in_lane(delivery)
    if earlier is not None:
        waits.append(Wait(Reason.EARLIER, earlier=earlier))
    if delivery.next_attempt_at is not None and delivery.next_attempt_at > now():
        waits.append(Wait(Reason.RETRY, until=delivery.next_attempt_at))
    elif webhook.rate_limit is not None:
        waits.append(Wait(Reason.RATE))
    return waits


def earlier_in_lane(delivery: Delivery) -> Delivery | None:
    """The first delivery of the same webhook and conversation that this one must not overtake."""
    if delivery.kind != Delivery.Kind.EVENT or delivery.conversation_id is None:
        return None
    first = _lane(delivery).filter(seq__lt=delivery.seq).order_by("seq").select_related("delivery").first()
    return first.delivery if first else None


def followers(delivery: Delivery) -> int:
    """How many later deliveries of its conversation wait for this one, counted up to `FOLLOWERS_MAX`."""
    own = Outstanding.objects.filter(pk=delivery.pk, blocks=True, next_attempt_at__isnull=False)
    if not own.exists():
        return 0
    return _lane(delivery).filter(seq__gt=delivery.seq).order_by()[:FOLLOWERS_MAX].count()


def _lane(delivery: Delivery) -> QuerySet[Outstanding]:
    """What keeps others of the delivery's webhook and conversation waiting."""
    return Outstanding.objects.filter(
        webhook_id=delivery.webhook_id, lane=delivery.conversation_id, blocks=True, next_attempt_at__isnull=False
    )
