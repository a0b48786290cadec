"""What /metrics tells about deliveries, read from the database when asked: the same from every process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Avg, Count, Max, Min, Q
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from conversations.models import Event
from core import loops, metrics
from core.clock import now
from organisations.models import Organisation
from webhooks.models import Attempt, Delivery, Lease, Webhook
from webhooks.signals import LOOP

#: The period over which attempts are summed up.
RECENT = timedelta(minutes=1)


def collect() -> Iterable[Metric]:
    """Work that waits, its age, and the attempts of the last minute by outcome."""
    moment = now()
    pending = Delivery.objects.filter(state=Delivery.State.PENDING)
    active = Q(webhook__state=Webhook.State.ACTIVE, webhook__organisation__suspended_at=None)
    due = pending.filter(active, next_attempt_at__lte=moment)
    waiting = due.aggregate(count=Count("id"), oldest=Min("next_attempt_at"))
    age = (moment - waiting["oldest"]).total_seconds() if waiting["oldest"] else 0.0
    # Webhook by webhook, because that is how the index of states begins.
    held = sum(
        Delivery.objects.filter(webhook_id=pk, state=Delivery.State.HELD).count()
        for pk in Webhook.objects.filter(archived_at=None).values_list("pk", flat=True)
    )
    for name, text, value in (
        ("due", "Deliveries to be sent now, those under way included", waiting["count"]),
        ("oldest_due_seconds", "How long the oldest due delivery has waited", age),
        ("served_webhooks", "Webhooks that an engine serves", Lease.objects.filter(until__gt=moment).count()),
        ("held", "Deliveries kept for webhooks that are not active", held),
        ("drains", "Engines that are alive", loops.alive(LOOP)),
    ):
        yield GaugeMetricFamily(f"webio_deliveries_{name}", text, value=value)
    yield from _untaken(moment)
    yield from _attempts(moment - RECENT)


def _untaken(moment: datetime) -> Iterable[Metric]:
    """Events that no engine has looked at: without an engine work shows up here, not among the deliveries."""
    found = Event.objects.filter(position=None).aggregate(count=Count("id"), oldest=Min("created_at"))
    age = max(0.0, (moment - found["oldest"]).total_seconds()) if found["oldest"] else 0.0
    yield GaugeMetricFamily("webio_events_waiting", "Events that no engine has taken yet", value=found["count"])
    yield GaugeMetricFamily("webio_events_oldest_waiting_seconds", "How long the oldest has waited", value=age)


def _attempts(since: datetime) -> Iterable[Metric]:
    count = GaugeMetricFamily("webio_attempts_last_minute", "Attempts by outcome", labels=["outcome"])
    mean = GaugeMetricFamily("webio_attempt_seconds_mean", "Their mean duration", labels=["outcome"])
    longest = GaugeMetricFamily("webio_attempt_seconds_max", "Their longest duration", labels=["outcome"])
    # The index of times begins with the organisation.
    own = Attempt.objects.filter(organisation__in=Organisation.objects.all(), attempted_at__gte=since)
    answered = Q(error="", status_code__gte=200, status_code__lt=300)
    for outcome, chosen in (("delivered", own.filter(answered)), ("failed", own.exclude(answered))):
        found = chosen.aggregate(count=Count("id"), mean=Avg("duration_ms"), longest=Max("duration_ms"))
        count.add_metric([outcome], found["count"])
        mean.add_metric([outcome], (found["mean"] or 0) / 1000)
        longest.add_metric([outcome], (found["longest"] or 0) / 1000)
    yield from (count, mean, longest)


metrics.register(collect)
