"""How long attempts, deliveries and events are kept: each organisation decides. Tallies are kept as long for all.

Pending and held deliveries never go, nor do events that the engine has not taken yet or that have any delivery left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet

from conversations.models import Event
from core.retention import Policy, register
from organisations.models import Organisation
from webhooks.models import Attempt, Delivery, Replay, Tally

#: Charts look back 30 days; people who compare months, further.
TALLIES_KEPT = timedelta(days=90)
FINISHED = (Delivery.State.DELIVERED, Delivery.State.FAILED, Delivery.State.CANCELLED)


def each(
    days: str, rows: Callable[[Organisation, datetime], QuerySet[Any]]
) -> Callable[[datetime], Iterator[QuerySet[Any]]]:
    """`rows` for each organisation, with the moment before which they go: so many days ago as its field says."""

    def expired(moment: datetime) -> Iterator[QuerySet[Any]]:
        for organisation in Organisation.objects.order_by("pk").iterator():
            yield rows(organisation, moment - timedelta(days=getattr(organisation, days)))

    return expired


def attempts(organisation: Organisation, before: datetime) -> QuerySet[Attempt]:
    """Attempts, whatever became of their delivery."""
    return Attempt.objects.filter(organisation=organisation, attempted_at__lt=before)


def deliveries(organisation: Organisation, before: datetime) -> QuerySet[Delivery]:
    """Deliveries that were finished, and made, before."""
    return Delivery.objects.filter(
        organisation=organisation, created_at__lt=before, finished_at__lt=before, state__in=FINISHED
    )


def replays(organisation: Organisation, before: datetime) -> QuerySet[Replay]:
    """Replays that were finished before."""
    return Replay.objects.filter(organisation=organisation, finished_at__lt=before)


def events(organisation: Organisation, before: datetime) -> QuerySet[Event]:
    """Events that were taken by the engine and have no delivery left."""
    rows = Event.objects.filter(organisation=organisation, created_at__lt=before, undispatched=None)
    return rows.filter(~Exists(Delivery.objects.filter(event=OuterRef("pk"))))


def tallies(moment: datetime) -> Iterator[QuerySet[Tally]]:
    """Tallies of long ago, organisation by organisation: so begins the index of their times."""
    for organisation in Organisation.objects.order_by("pk").iterator():
        yield Tally.objects.filter(organisation=organisation, period__lt=moment - TALLIES_KEPT)


register(Policy("attempts", each("attempt_retention_days", attempts), ("attempted_at", "pk")))
register(Policy("deliveries", each("delivery_retention_days", deliveries), ("created_at", "pk")))
register(Policy("replays", each("delivery_retention_days", replays), ("finished_at", "pk")))
register(Policy("events", each("event_retention_days", events), ("created_at", "pk")))
register(Policy("tallies", tallies, ("period", "pk")))
