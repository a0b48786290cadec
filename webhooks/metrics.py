"""What /metrics tells about deliveries, read from the database when asked: the same from every process.

Work is counted webhook by webhook, because that is how the indexes of deliveries begin.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate

from django.db.models import Count, Min, OuterRef, Q, QuerySet, Subquery, Sum
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from conversations.models import Undispatched
from core import loops, metrics
from core.clock import now
from core.outbound import ERRORS
from webhooks.engine.schedule import OURS
from webhooks.models import (
    DURATION_BOUNDS,
    DURATION_CLASSES,
    EngineTotal,
    FailureTotal,
    Lease,
    Outstanding,
    Webhook,
)
from webhooks.signals import LOOP

#: Reasons that are told from the start, so that the first failure of a kind shows as one; what is ours is no attempt.
REASONS = (*(error for error in ERRORS if error not in OURS), "http_3xx", "http_4xx", "http_5xx")


def collect() -> Iterable[Metric]:
    """Work that waits, its age, and every attempt ever made."""
    moment = now()
    kept = Webhook.objects.filter(archived_at=None)
    active = kept.filter(state=Webhook.State.ACTIVE, organisation__suspended_at=None)
    stopped = active.filter(breaker_until__gt=moment)
    served = active.filter(Q(breaker_until=None) | Q(breaker_until__lte=moment))
    due = Outstanding.objects.filter(next_attempt_at__lte=moment)
    alive = loops.slots_alive(LOOP)
    under_way = EngineTotal.objects.filter(slot__in=alive).aggregate(sum=Sum("in_flight", default=0))["sum"]
    oldest = served.aggregate(oldest=Min(Subquery(_own(due).order_by("next_attempt_at").values("next_attempt_at")[:1])))
    for name, text, value in (
        ("due", "Deliveries to be sent now, those under way included", _count(served, due)),
        ("oldest_due_seconds", "How long the oldest due delivery has waited", _age(oldest["oldest"], moment)),
        ("behind_breakers", "Due deliveries that wait until a breaker lets them pass", _count(stopped, due)),
        ("served_webhooks", "Webhooks that an engine serves", Lease.objects.filter(until__gt=moment).count()),
        (
            "held",
            "Deliveries kept for webhooks that are not active",
            _count(kept, Outstanding.objects.filter(next_attempt_at=None)),
        ),
        ("drains", "Engines that are alive", len(alive)),
        ("in_flight", "Requests under way, as engines said within seconds", under_way),
    ):
        yield GaugeMetricFamily(f"webio_deliveries_{name}", text, value=value)
    yield from _webhooks(kept, stopped)
    yield from _untaken(moment)
    yield from _attempts()


def _own(deliveries: QuerySet[Outstanding]) -> QuerySet[Outstanding]:
    """Those among `deliveries` of the webhook that is looked at."""
    return deliveries.filter(webhook=OuterRef("pk")).order_by()


def _count(webhooks: QuerySet[Webhook], deliveries: QuerySet[Outstanding]) -> int:
    """How many of `deliveries` are of one of `webhooks`."""
    counted = _own(deliveries).values("webhook").annotate(count=Count("pk")).values("count")
    found: int = webhooks.aggregate(sum=Sum(Subquery(counted), default=0))["sum"]
    return found


def _age(since: datetime | None, moment: datetime) -> float:
    return max(0.0, (moment - since).total_seconds()) if since else 0.0


def _webhooks(kept: QuerySet[Webhook], stopped: QuerySet[Webhook]) -> Iterable[Metric]:
    states = dict(kept.order_by().values_list("state").annotate(count=Count("pk")))
    family = GaugeMetricFamily("webio_webhooks", "Webhooks by state", labels=["state"])
    for state in Webhook.State.values:
        family.add_metric([state], states.get(state, 0))
    yield family
    text = "Active webhooks that are left alone for a while because their endpoint fails"
    yield GaugeMetricFamily("webio_webhooks_breaker_open", text, value=stopped.count())


def _untaken(moment: datetime) -> Iterable[Metric]:
    """Events that no engine has looked at: without an engine work shows up here, not among the deliveries."""
    found = Undispatched.objects.aggregate(count=Count("pk"), oldest=Min("event__created_at"))
    age = _age(found["oldest"], moment)
    yield GaugeMetricFamily("webio_events_waiting", "Events that no engine has taken yet", value=found["count"])
    yield GaugeMetricFamily("webio_events_oldest_waiting_seconds", "How long the oldest has waited", value=age)


def _attempts() -> Iterable[Metric]:
    """Since the platform was set up, from the totals that the engines keep: one row each."""
    found = EngineTotal.objects.aggregate(
        **{name: Sum(name, default=0) for name in ("delivered", "failed", "duration_ms", *DURATION_CLASSES)}
    )
    outcomes = CounterMetricFamily("webio_attempts", "Attempts by outcome", labels=["outcome"])
    for outcome in ("delivered", "failed"):
        outcomes.add_metric([outcome], found[outcome])
    yield outcomes
    failures = CounterMetricFamily("webio_failed_attempts", "Failed attempts by reason", labels=["reason"])
    by_reason = FailureTotal.objects.order_by().values_list("reason").annotate(sum=Sum("failed"))
    for reason, count in {**dict.fromkeys(REASONS, 0), **dict(by_reason)}.items():
        failures.add_metric([reason], count)
    yield failures
    bounds = [*(str(bound / 1000) for bound in DURATION_BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(found[name] for name in DURATION_CLASSES), strict=True))
    yield HistogramMetricFamily(
        "webio_attempt_duration_seconds",
        "How long attempts took",
        buckets=buckets,
        sum_value=found["duration_ms"] / 1000,
    )


metrics.register(collect)
