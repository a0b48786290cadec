"""What is kept for a time and then deleted: a registry that each app fills, and the one way to delete.

Rows go in small batches, each in a transaction of its own with a pause after it, so that deliveries and requests
get their turn (SQLite has one writer). Work that does not fit into one run is left to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import Q

from core.clock import now

#: Rows deleted in one transaction.
BATCH = 500
#: How long a run goes on, seconds: below the task time-out of 60.
BUDGET_SECONDS = 40.0
#: The pause after a batch: so many times what the batch took, and at most so many seconds.
PAUSE_TIMES, PAUSE_MOST = 3.0, 1.0


@dataclass(frozen=True)
class Policy:
    """One kind of row that goes.

    `expired` gives, for the present moment, querysets of rows that may go (one for each organisation where that
    decides). They are read in the order of `key`, unique field names that an index serves.
    """

    name: str
    expired: Callable[[datetime], Iterable[models.QuerySet[Any]]]
    key: tuple[str, ...] = ("pk",)


#: In the order in which they run: what hangs on something goes before it.
POLICIES: dict[str, Policy] = {}


def register(policy: Policy) -> None:
    """Add a policy. Apps call it in `ready()`."""
    POLICIES.setdefault(policy.name, policy)


def count() -> dict[str, int]:
    """How many rows each policy would delete now, by its name."""
    moment = now()
    return {policy.name: sum(rows.count() for rows in policy.expired(moment)) for policy in POLICIES.values()}


def run(budget: float = BUDGET_SECONDS) -> tuple[dict[str, int], bool]:
    """Delete what has expired, for `budget` seconds. Returns rows deleted by policy, and whether all of it is done."""
    moment = now()
    until = time.monotonic() + budget
    deleted = dict.fromkeys(POLICIES, 0)
    for policy in POLICIES.values():
        for rows in policy.expired(moment):
            after: tuple[Any, ...] | None = None
            while True:
                if time.monotonic() >= until:
                    return deleted, False
                started = time.monotonic()
                gone, after = _delete_batch(rows, policy.key, after)
                deleted[policy.name] += gone
                if after is None:
                    break
                time.sleep(min((time.monotonic() - started) * PAUSE_TIMES, PAUSE_MOST))
    return deleted, True


def _delete_batch(
    rows: models.QuerySet[Any], key: tuple[str, ...], after: tuple[Any, ...] | None
) -> tuple[int, tuple[Any, ...] | None]:
    """Delete the next rows after a key. Returns how many, and the last key; None when there are no more."""
    ordered = rows.order_by(*key)
    if after is not None:
        ordered = ordered.filter(_beyond(key, after))
    found = list(ordered.values_list("pk", *key)[:BATCH])
    if not found:
        return 0, None
    ids = [row[0] for row in found]
    last = tuple(found[-1][1:]) if len(found) == BATCH else None
    try:
        with transaction.atomic():
            # The conditions again: a row may have come into use since it was read.
            _total, by_model = rows.filter(pk__in=ids).order_by().delete()
    except IntegrityError:
        # Something came to point at one of them in this moment: the next run finds out which.
        return 0, last
    return by_model.get(rows.model._meta.label, 0), last


def _beyond(key: tuple[str, ...], after: tuple[Any, ...]) -> Q:
    """The condition that a row's key comes after `after`."""
    first, *rest = key
    beyond = Q(**{f"{first}__gt": after[0]})
    if rest:
        beyond |= Q(**{first: after[0]}) & _beyond(tuple(rest), after[1:])
    return beyond
