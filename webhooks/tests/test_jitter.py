"""What failed together does not come back together."""

from __future__ import annotations

from datetime import datetime

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from core.clock import now
from core.outbound import no_answer
from webhooks.engine.breaker import FAILURES, PAUSE, PAUSE_MOST
from webhooks.engine.schedule import DELAYS, next_delay
from webhooks.models import Outstanding
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver
from webhooks.tests.test_breaker import health, pause

NOON = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
DRAWS = 300


def spread(found: list[float], middle: float) -> bool:
    """Whether these are up to a tenth less and more than the middle, and both ways nearly that."""
    return middle * 0.9 <= min(found) <= middle * 0.92 and middle * 1.08 <= max(found) <= middle * 1.1


@pytest.mark.parametrize("delays", [None, [100, 172_800]])
def test_each_delay_is_up_to_a_tenth_longer_or_shorter(delays: list[float] | None) -> None:
    for number, delay in enumerate(delays or DELAYS, start=1):
        found = [next_delay(number, no_answer("timeout"), NOON, delays) for _ in range(DRAWS)]
        assert spread([one for one in found if one is not None], delay)


@pytest.mark.parametrize(("level", "seconds"), [(0, PAUSE), (1, 2 * PAUSE), (9, PAUSE_MOST)])
def test_each_pause_of_the_breaker_too(level: int, seconds: float) -> None:
    before = health(consecutive_failures=FAILURES, breaker_level=level)
    assert spread([pause(before.after([False], False, NOON)) for _ in range(DRAWS)], seconds)


@pytest.mark.django_db
def test_retries_of_what_failed_at_one_moment_are_due_at_different_ones(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    make_webhook(acme, callback_url=endpoint.url, retry_delays=[1000])
    for number in range(FAILURES - 1):
        conversation_actions.receive_message(channel=acme.channel, address=f"44771747{number:04}", body="x")
    moment = now()
    deliver(moment)
    waits = [(due - moment).total_seconds() for due in Outstanding.objects.values_list("next_attempt_at", flat=True)]
    assert len(set(waits)) == FAILURES - 1
    assert 900 <= min(waits) < max(waits) - 20 < 1100
