"""The health of the platform as staff see it first. Every figure is read through an index or stops at a limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, QuerySet
from django_q.brokers import get_broker
from django_q.models import Failure

from conversations.models import Undispatched
from core import loops
from core.clock import now
from core.models import Slot
from organisations.models import Organisation
from webhooks.models import Delivery, Lease, Outstanding, Tally, Webhook
from webhooks.tallies import Figures, summary

#: Figures are counted up to here; more is shown as "or more".
LIMIT = 10_000
#: The newest deliveries that are looked at for recent failures and volumes.
RECENT = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """A count that stopped at `LIMIT` when `more` is true."""

    count: int
    more: bool


@dataclass(frozen=True, slots=True)
class Volume:
    """How many of the newest deliveries are one organisation's."""

    organisation: Organisation
    deliveries: int


@dataclass(frozen=True, slots=True)
class Health:
    """Everything the dashboard shows. `queues` holds django-q's depth by cluster, None when the broker is silent."""

    queues: dict[str, int | None]
    due: Figure
    served: int
    held: Figure
    undispatched: Figure
    oldest_due: datetime | None
    hour: Figures
    breakers: list[Webhook]
    failing: list[Webhook]
    stopped: list[Webhook]
    slots: list[Slot]
    failures: list[Delivery]
    task_failures: list[Failure]
    volumes: list[Volume]

    @property
    def oldest_due_age(self) -> timedelta:
        """How late the oldest due delivery is; zero when none is."""
        return max(now() - self.oldest_due, timedelta()) if self.oldest_due else timedelta()


def bounded(rows: QuerySet) -> Figure:
    """Counts at most `LIMIT` rows."""
    count = rows.order_by()[: LIMIT + 1].count()
    return Figure(min(count, LIMIT), count > LIMIT)


def health() -> Health:
    """Read the platform's state."""
    moment = now()
    # The index of what is outstanding leads with the webhook, and webhooks are few.
    webhooks = Webhook.objects.filter(archived_at=None)
    outstanding = Outstanding.objects.filter(webhook__in=Webhook.objects.values("pk"))
    due = outstanding.filter(next_attempt_at__lte=moment)
    held = outstanding.filter(next_attempt_at=None)
    newest = list(Delivery.objects.order_by("-pk").values_list("pk", flat=True)[:RECENT])
    recent = Delivery.objects.filter(pk__gte=newest[-1]) if newest else Delivery.objects.none()
    grouped = recent.order_by().values("organisation").annotate(made=Count("pk")).order_by("-made")
    counts: dict[int, int] = {row["organisation"]: row["made"] for row in grouped[:10]}
    organisations = Organisation.objects.in_bulk(list(counts))
    return Health(
        queues={name: queue_depth(name) for name in ("webio", "deliveries")},
        due=bounded(due),
        served=Lease.objects.filter(until__gt=moment).count(),
        held=bounded(held),
        undispatched=bounded(Undispatched.objects.all()),
        oldest_due=due.order_by("next_attempt_at").values_list("next_attempt_at", flat=True).first(),
        # The index of tallies' times begins with the organisation.
        hour=summary(Tally.objects.filter(organisation__in=Organisation.objects.values("pk")), timedelta(hours=1)),
        breakers=list(
            webhooks.filter(state=Webhook.State.ACTIVE, breaker_until__gt=moment)
            .select_related("organisation")
            .order_by("-breaker_level", "pk")[:10]
        ),
        failing=list(
            webhooks.exclude(failing_since=None).select_related("organisation").order_by("failing_since")[:10]
        ),
        stopped=list(
            webhooks.filter(state=Webhook.State.DISABLED)
            .select_related("organisation")
            .order_by("-state_changed_at")[:10]
        ),
        slots=wanted_slots(),
        failures=list(
            recent.filter(state=Delivery.State.FAILED).select_related("webhook", "organisation").order_by("-pk")[:10]
        ),
        task_failures=list(Failure.objects.order_by("-stopped").defer("args", "kwargs", "result")[:5]),
        volumes=[Volume(organisations[pk], count) for pk, count in counts.items()],
    )


def wanted_slots() -> list[Slot]:
    """The slots that somebody should hold: a loop that has nothing to do wants none."""
    wanted = {name: loop.slots() for name, loop in loops.LOOPS.items()}
    return [slot for slot in Slot.objects.order_by("name", "number") if slot.number < wanted.get(slot.name, 0)]


def queue_depth(cluster: str) -> int | None:
    """Tasks waiting in a django-q cluster's queue; None when the broker does not answer."""
    try:
        return get_broker(cluster).queue_size()
    except Exception:
        return None
