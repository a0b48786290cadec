"""Read tallies: success rate, durations and volume of one webhook or many, without a look at deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from itertools import pairwise
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import IntegerField, QuerySet, Sum
from django.db.models.functions import Cast, ExtractHour, TruncDate
from django.utils.translation import gettext_lazy as _

from core.clock import now
from webhooks.models import DURATION_BOUNDS, DURATION_CLASSES, Durations, Tally, Webhook

SUMS = {f"sum_{name}": Sum(name) for name in ("delivered", "failed", *DURATION_CLASSES)}


@dataclass(frozen=True, slots=True)
class Figures:
    """What some attempts came to."""

    delivered: int = 0
    failed: int = 0
    classes: tuple[int, ...] = (0,) * len(DURATION_CLASSES)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Figures:
        """From a row of `SUMS`, which are empty over no rows."""
        return cls(
            row["sum_delivered"] or 0, row["sum_failed"] or 0, tuple(row[f"sum_{n}"] or 0 for n in DURATION_CLASSES)
        )

    @classmethod
    def counted(cls, counts: Durations) -> Figures:
        """From one row of counts."""
        return cls(counts.delivered, counts.failed, tuple(getattr(counts, name) for name in DURATION_CLASSES))

    def __add__(self, other: Figures) -> Figures:
        classes = tuple(one + two for one, two in zip(self.classes, other.classes, strict=True))
        return Figures(self.delivered + other.delivered, self.failed + other.failed, classes)

    @property
    def attempts(self) -> int:
        return self.delivered + self.failed

    @property
    def rate(self) -> float | None:
        """The share of attempts that were accepted; None without attempts."""
        return self.delivered / self.attempts if self.attempts else None

    @property
    def p50(self) -> float | None:
        return self.quantile(0.5)

    @property
    def p95(self) -> float | None:
        return self.quantile(0.95)

    def quantile(self, share: float) -> float | None:
        """Milliseconds within which this share of the attempts ended, estimated along the classes.

        None without attempts, infinity when it lies in the class that has no upper bound.
        """
        total = sum(self.classes)
        if not total:
            return None
        wanted, below, lower = share * total, 0, 0
        for bound, count in zip(DURATION_BOUNDS, self.classes, strict=False):
            if count and below + count >= wanted:
                return lower + (bound - lower) * (wanted - below) / count
            below, lower = below + count, bound
        return inf


@dataclass(frozen=True, slots=True)
class Bucket:
    """The figures of one bar of a chart."""

    start: datetime
    end: datetime
    figures: Figures


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time up to now that charts show: so many bars of so many hours."""

    key: str
    label: Any
    bars: int
    hours: int


PERIODS = {
    period.key: period
    for period in (
        Period("24h", _("24 hours"), 24, 1),
        Period("7d", _("7 days"), 28, 6),
        Period("30d", _("30 days"), 30, 24),
    )
}
LAST_DAY = timedelta(days=1)


def history(webhook: Webhook, period: Period) -> list[Bucket]:
    """The bars of a period, oldest first, along the hours and days of the organisation's time zone."""
    zone = ZoneInfo(webhook.organisation.time_zone)
    edges = _edges(now().astimezone(zone), period)
    hour = Cast(ExtractHour("period", tzinfo=zone), IntegerField())
    rows = (
        Tally.objects.filter(webhook=webhook, period__gte=edges[0])
        .annotate(day=TruncDate("period", tzinfo=zone), part=hour / period.hours)
        .values("day", "part")
        .order_by()
        .annotate(**SUMS)
    )
    found = {(row["day"], row["part"]): Figures.of(row) for row in rows}
    return [
        Bucket(start, end, found.get((start.date(), start.hour // period.hours), Figures()))
        for start, end in pairwise(edges)
    ]


def _edges(moment: datetime, period: Period) -> list[datetime]:
    """Where the bars begin, and where the last one ends; by the clock on the wall, in which a day may be shorter."""
    first = moment.hour - moment.hour % period.hours
    end = datetime.combine(moment.date(), time(), moment.tzinfo) + timedelta(hours=first + period.hours)
    return [end - timedelta(hours=period.hours * back) for back in range(period.bars, -1, -1)]


def total(buckets: Iterable[Bucket]) -> Figures:
    """The figures of all the bars."""
    return sum((bucket.figures for bucket in buckets), Figures())


def summary(rows: QuerySet[Tally], length: timedelta = LAST_DAY) -> Figures:
    """The figures of the tallies of the last day, or as long as asked."""
    return Figures.of(rows.filter(period__gt=now() - length).aggregate(**SUMS))


def by_webhook(rows: QuerySet[Tally], length: timedelta = LAST_DAY) -> dict[int, Figures]:
    """The same for each webhook that made an attempt, by its id."""
    found = rows.filter(period__gt=now() - length).values("webhook").order_by().annotate(**SUMS)
    return {row["webhook"]: Figures.of(row) for row in found}
