"""Charts over time as shapes: numbers become SVG lengths here, a template writes them down.

A chart is `WIDTH` by `HEIGHT` and stretched to the room there is, so it holds shapes only; its texts stand around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _

from webhooks.tallies import Bucket, Figures, Period
from webhooks.templatetags.figures import duration, percent

WIDTH, HEIGHT = 1000, 100
#: The part of a bar's place that it fills.
FILLED = 0.72
#: Times under a chart, evenly spread.
LABELS = 4
#: The scale of durations, milliseconds, from the bottom up: from answers that nobody waits for to time-outs.
DECADES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of a series."""

    series: str
    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a series as an SVG path, broken where there was nothing, and the points that stand alone."""

    series: str
    path: str
    dots: str


@dataclass(frozen=True, slots=True)
class Place:
    """The place of one bucket: the whole height, with what a pointer is told there."""

    x: str
    width: str
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart. `scale` holds (value, height) of its grid from the top down, `legend` (series, label)."""

    key: str
    title: str
    description: str
    scale: list[tuple[str, str]]
    legend: list[tuple[str, str]]
    rects: list[Rect]
    lines: list[Line]
    places: list[Place]


def charts_of(buckets: Sequence[Bucket], period: Period) -> list[Chart]:
    """Volume, success rate and durations of the buckets."""
    return [_volume(buckets, period), _success(buckets, period), _durations(buckets, period)]


def when(bucket: Bucket, period: Period) -> str:
    """The bucket's time in words: a day, or from when to when on a day."""
    day = date_format(bucket.start, "D j M")
    if period.hours >= 24:
        return day
    return f"{day} {bucket.start:%H:%M}–{bucket.end:%H:%M}"


def labels(buckets: Sequence[Bucket], period: Period) -> list[str]:
    """Times under the charts, each at the beginning of its part."""
    step = len(buckets) // LABELS
    form = "H:i" if period.hours == 1 else "D j M"
    return [date_format(bucket.start, form) for bucket in buckets[: step * LABELS : step]]


def _volume(buckets: Sequence[Bucket], period: Period) -> Chart:
    top = nice(max(bucket.figures.attempts for bucket in buckets))
    rects = []
    for number, bucket in enumerate(buckets):
        below = 0.0
        for series, count in (("ok", bucket.figures.delivered), ("bad", bucket.figures.failed)):
            if count:
                # What happened once among thousands is still seen.
                height = max(1.5, count / top * HEIGHT)
                rects.append(_bar(series, number, len(buckets), below, height))
                below += height
    return Chart(
        key="volume",
        title=_("Attempts"),
        description=_("Bars of accepted and failed attempts over time."),
        scale=_scale(number_format(value, force_grouping=True) for value in (top, top // 2, 0)),
        legend=[("ok", _("accepted")), ("bad", _("failed"))],
        rects=rects,
        lines=[],
        places=_places(
            buckets,
            period,
            lambda figures: (
                _("%(delivered)s accepted, %(failed)s failed")
                % {
                    "delivered": number_format(figures.delivered, force_grouping=True),
                    "failed": number_format(figures.failed, force_grouping=True),
                }
            ),
        ),
    )


def _success(buckets: Sequence[Bucket], period: Period) -> Chart:
    rects = []
    for number, bucket in enumerate(buckets):
        rate = bucket.figures.rate
        if rate is not None:
            series = "ok" if rate >= 0.99 else "warn" if rate >= 0.9 else "bad"
            rects.append(_bar(series, number, len(buckets), 0, max(1.5, rate * HEIGHT)))
    return Chart(
        key="success",
        title=_("Success rate"),
        description=_("Bars of the share of attempts that were accepted, over time."),
        scale=_scale(percent(share) for share in (1, 0.5, 0)),
        legend=[("ok", _("99 % and more")), ("warn", _("90 % and more")), ("bad", _("less"))],
        rects=rects,
        lines=[],
        places=_places(buckets, period, lambda figures: percent(figures.rate)),
    )


def _durations(buckets: Sequence[Bucket], period: Period) -> Chart:
    series = {
        "p50": [bucket.figures.p50 for bucket in buckets],
        "p95": [bucket.figures.p95 for bucket in buckets],
    }
    return Chart(
        key="durations",
        title=_("Time to answer"),
        description=_("Lines of the median and of the 95th percentile of the attempts' durations, over time."),
        scale=_scale(duration(value) for value in reversed(DECADES)),
        legend=[("p50", _("median")), ("p95", _("p95"))],
        rects=[],
        lines=[_line(name, values) for name, values in series.items()],
        places=_places(
            buckets,
            period,
            lambda figures: (
                _("median %(p50)s, p95 %(p95)s") % {"p50": duration(figures.p50), "p95": duration(figures.p95)}
            ),
        ),
    )


def nice(value: float) -> int:
    """The first of 2, 4, 6, 10, 20, 40, 60, 100, … that is not below `value`: its half is whole, too."""
    scale = 10 ** max(0, floor(log10(value))) if value > 0 else 1
    return int(next(step * scale for step in (2, 4, 6, 10) if step * scale >= ceil(value)))


def _scale(values: Iterable[str]) -> list[tuple[str, str]]:
    told = list(values)
    return [(value, _length(HEIGHT * number / (len(told) - 1))) for number, value in enumerate(told)]


def _bar(series: str, number: int, count: int, below: float, height: float) -> Rect:
    place = WIDTH / count
    x = place * (number + (1 - FILLED) / 2)
    return Rect(series, _length(x), _length(HEIGHT - below - height), _length(place * FILLED), _length(height))


def _line(series: str, values: Sequence[float | None]) -> Line:
    """Straight lines between neighbours. A dot is a line without length."""
    place = WIDTH / len(values)
    points = [
        None if value is None else f"{_length(place * (number + 0.5))} {_length(HEIGHT * (1 - _height(value)))}"
        for number, value in enumerate(values)
    ]
    path, dots = [], []
    for before, point, after in zip([None, *points], points, [*points[1:], None], strict=False):
        if point is None:
            continue
        if before is None and after is None:
            dots.append(f"M{point}h0")
        else:
            path.append(f"M{point}" if before is None else f"L{point}")
    return Line(series, "".join(path), "".join(dots))


def _height(milliseconds: float) -> float:
    """How high on the scale of `DECADES` a duration is, from 0 to 1."""
    lowest, highest = DECADES[0], DECADES[-1]
    return log10(min(highest, max(lowest, milliseconds)) / lowest) / log10(highest / lowest)


def _places(buckets: Sequence[Bucket], period: Period, tell: Callable[[Figures], Any]) -> list[Place]:
    place = WIDTH / len(buckets)
    return [
        Place(
            _length(place * number),
            _length(place),
            f"{when(bucket, period)}: {tell(bucket.figures) if bucket.figures.attempts else _('nothing was sent')}",
        )
        for number, bucket in enumerate(buckets)
    ]


def _length(value: float) -> str:
    """A number as SVG wants it, whatever the reader's language."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
