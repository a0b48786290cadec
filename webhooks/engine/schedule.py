"""When a delivery is tried again, and when it has failed for good."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from core.outbound import Outcome

#: Seconds to wait after the first, second, … attempt. One attempt more than there are entries.
DELAYS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: Each delay is made up to this share longer or shorter: endpoints that failed together do not return together.
JITTER = 0.1
#: An endpoint may not ask for more than this, seconds.
RETRY_AFTER_MAXIMUM = 86_400
GONE = 410
#: A delivery that failed inside the engine itself waits this long; what the machine lacks it may have again soon.
OUR_FAULT = timedelta(minutes=5)
SHORTAGE = timedelta(seconds=30)
#: Error classes that no later attempt can mend; that failed before they reached the endpoint, and so say nothing about
#: it; and that are the platform's own, and so use up no attempt.
HOPELESS = frozenset({"invalid_url", "body_too_large"})
UNSENT = frozenset({"body_too_large"})
OURS = frozenset({"proxy", "local"})


def next_delay(
    attempt_count: int, outcome: Outcome, at: datetime, delays: Sequence[float] | None = None
) -> float | None:
    """Seconds until the next attempt after the failed attempt number `attempt_count` (from 1); None: no more.

    `delays` is the webhook's own schedule, None for `DELAYS`.

    An answer 429 or 503 may ask for a later time with Retry-After (RFC 9110 §10.2.3): never earlier than asked,
    up to a day.
    """
    delays = DELAYS if delays is None else delays
    if outcome.error in HOPELESS or attempt_count > len(delays):
        return None
    delay = delays[attempt_count - 1] * random.uniform(1 - JITTER, 1 + JITTER)
    if outcome.status in (429, 503):
        asked = retry_after(dict(outcome.headers).get("retry-after", ""), at)
        if asked is not None:
            delay = max(delay, min(asked, RETRY_AFTER_MAXIMUM))
    return delay


def retry_after(value: str, at: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, counted from `at`; None when it is neither seconds nor a date."""
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError, IndexError):
        # One odd header must not stop the deliveries of everybody.
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - at).total_seconds())
