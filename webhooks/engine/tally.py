"""Count attempts by outcome, duration and reason as they are written: for charts by webhook, for metrics by engine."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from webhooks.engine import sql
from webhooks.models import DURATION_BOUNDS, DURATION_CLASSES, EngineTotal

#: Length of a tally's period, seconds.
PERIOD_SECONDS = 900

#: Columns of `webhooks.models.Durations`.
_COUNTS = ("delivered", "failed", "duration_ms", *DURATION_CLASSES)
_KEYS = {"organisation_id": "bigint", "webhook_id": "bigint", "period": "timestamptz"}
_SLOT = {"slot": "smallint"}
_ADD = """
INSERT INTO {{table}} ({columns}) SELECT {columns} FROM given WHERE true
ON CONFLICT ({key}) DO UPDATE SET {sums}
"""


def add(attempts: Iterable[tuple[int, int, bool, int]], slot: int, moment: datetime) -> None:
    """Add attempts, each (organisation, webhook, whether it was delivered, milliseconds), of the engine in `slot`."""
    seconds = int(moment.timestamp())
    period = datetime.fromtimestamp(seconds - seconds % PERIOD_SECONDS, UTC)
    by_webhook: dict[tuple[int, int], list[int]] = {}
    for organisation_id, webhook_id, delivered, milliseconds in attempts:
        counts = by_webhook.get((organisation_id, webhook_id))
        if counts is None:
            counts = by_webhook[organisation_id, webhook_id] = [0] * len(_COUNTS)
        counts[0 if delivered else 1] += 1
        counts[2] += milliseconds
        counts[3 + bisect_left(DURATION_BOUNDS, milliseconds)] += 1
    if not by_webhook:
        return
    # In one order: others may be waiting for the same rows after a lease went from one engine to another.
    rows = [(*key, period, *by_webhook[key]) for key in sorted(by_webhook)]
    _upsert("{tally}", _KEYS, "webhook_id, period", _COUNTS, rows)
    _upsert("{total}", _SLOT, "slot", _COUNTS, [(slot, *map(sum, zip(*by_webhook.values(), strict=True)))])


def add_failures(reasons: Iterable[str], slot: int) -> None:
    """Add failed attempts of the engine in `slot`, for each its reason as `FailureTotal` has them."""
    counts = Counter(reasons)
    if counts:
        rows = [(slot, reason, counts[reason]) for reason in sorted(counts)]
        _upsert("{failure_total}", {**_SLOT, "reason": "text"}, "slot, reason", ("failed",), rows)


def tell_in_flight(slot: int, count: int) -> None:
    """Note how many requests the engine in `slot` has under way."""
    EngineTotal.objects.update_or_create(slot=slot, defaults={"in_flight": count})


def _upsert(
    table: str, keys: dict[str, str], unique: str, counts: Sequence[str], rows: Sequence[tuple[object, ...]]
) -> None:
    columns = {**keys, **dict.fromkeys(counts, "bigint")}
    given, parameters = sql.rows_of("given", columns, rows)
    sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in counts)
    statement = _ADD.format(columns=", ".join(columns), key=unique, sums=sums).replace("{table}", table)
    sql.run(given + statement, parameters)
