"""When a webhook is left alone for a while because its endpoint fails: columns on the webhook, so that it survives us.

While the breaker is open nothing is sent and no attempt is used up; what is due stays due. After the pause one request
at a time probes. One that succeeds closes it; one that fails opens it again, for longer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

#: Failures in a row that open it; `Lane.tripping` knows of the share of failures.
FAILURES = 10
#: The first pause and the longest, seconds; each is twice the one before, and up to a tenth longer or shorter.
PAUSE, PAUSE_MOST = 30.0, 900.0
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Health:
    """How a webhook does: its columns of the same names."""

    pk: int
    consecutive_failures: int
    failing_since: datetime | None
    breaker_until: datetime | None
    breaker_level: int

    def after(self, oks: list[bool], tripping: bool, moment: datetime) -> dict[str, Any]:
        """The columns to write after these outcomes, in the order in which they came. `tripping`: too many failed."""
        trailing = next((index for index, ok in enumerate(reversed(oks)) if ok), len(oks))
        failed_only = trailing == len(oks)
        open_now = self.breaker_until is not None and self.breaker_until > moment
        values: dict[str, Any] = {}
        if not failed_only:
            values["last_success_at"] = moment
        if all(oks):
            values |= {"consecutive_failures": 0, "failing_since": None}
            # What was under way when it opened says nothing about the time after.
            if self.breaker_level and not open_now:
                values |= {"breaker_until": None, "breaker_level": 0}
            return values
        failures = trailing + (self.consecutive_failures if failed_only else 0)
        values["last_failure_at"] = moment
        values["consecutive_failures"] = failures
        values["failing_since"] = (
            (self.failing_since if failed_only and self.failing_since else moment) if trailing else None
        )
        if trailing and not open_now and (failures >= FAILURES or tripping or self.breaker_level):
            pause = min(PAUSE_MOST, PAUSE * 2 ** min(self.breaker_level, 10)) * random.uniform(1 - JITTER, 1 + JITTER)
            values["breaker_until"] = moment + timedelta(seconds=pause)
            values["breaker_level"] = self.breaker_level + 1
        return values
