"""Figures of webhooks, read from tallies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import pytest

from conftest import Cast
from core import retention
from core.clock import held_at, now
from webhooks.engine import tally
from webhooks.models import DURATION_CLASSES, Tally, Webhook
from webhooks.tallies import PERIODS, Figures, by_webhook, history, summary, total
from webhooks.tests.conftest import make_webhook

NOON = datetime(2026, 6, 10, 12, 5, tzinfo=UTC)


def made(webhook: Webhook, at: datetime, durations: list[int], *, delivered: bool = True) -> None:
    """Attempts of a webhook as the engine counts them."""
    tally.add([(webhook.organisation_id, webhook.pk, delivered, one) for one in durations], 0, at)


def figures(**classes: int) -> Figures:
    return Figures(sum(classes.values()), 0, tuple(classes.get(name, 0) for name in DURATION_CLASSES))


def test_quantiles_lie_within_their_class() -> None:
    spread = figures(upto_10=50, upto_25=40, upto_1000=10)
    assert spread.p50 == 10
    assert spread.quantile(0.7) == pytest.approx(10 + 15 * 20 / 40)
    assert spread.p95 == pytest.approx(500 + 500 * 5 / 10)
    assert figures(upto_10=1, longer=9).p95 == inf
    assert Figures().p50 is None
    assert Figures().rate is None
    assert Figures(3, 1).rate == 0.75


@pytest.mark.parametrize("zone", ["Europe/Dublin", "Asia/Kathmandu", "America/St_Johns", "UTC"])
@pytest.mark.parametrize("key", PERIODS)
def test_bars_follow_the_clock_on_the_wall_and_hold_every_attempt(webhook: Webhook, zone: str, key: str) -> None:
    webhook.organisation.time_zone = zone
    period = PERIODS[key]
    with held_at(NOON):
        edges = [bucket.start for bucket in history(webhook, period)]
        assert len(edges) == period.bars
        assert all(edge.minute == 0 and edge.hour % period.hours == 0 for edge in edges)
        for number, edge in enumerate(edges):
            made(webhook, edge.astimezone(UTC), [5] * (number + 1))
        made(webhook, edges[0].astimezone(UTC) - timedelta(minutes=15), [5])
        found = history(webhook, period)
    assert [bucket.figures.delivered for bucket in found] == list(range(1, period.bars + 1))
    assert found[-1].start <= NOON < found[-1].end


def test_a_bar_adds_up_its_quarters_of_an_hour(webhook: Webhook) -> None:
    with held_at(NOON):
        made(webhook, NOON - timedelta(minutes=70), [8, 40])
        made(webhook, NOON - timedelta(minutes=70), [20_000], delivered=False)
        made(webhook, NOON - timedelta(minutes=130), [8])
        found = history(webhook, PERIODS["24h"])
    assert found[-2].figures == Figures()
    assert sum(bucket.figures.attempts > 0 for bucket in found) == 2
    whole = total(found)
    assert (whole.delivered, whole.failed) == (3, 1)
    assert whole.classes[-1] == 1


def test_the_hour_that_comes_twice_is_one_bar_and_the_one_that_is_skipped_is_empty(webhook: Webhook) -> None:
    webhook.organisation.time_zone = "Europe/Dublin"
    twice = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    made(webhook, twice, [5])
    made(webhook, twice + timedelta(hours=1), [5])
    with held_at(twice + timedelta(hours=8)):
        found = history(webhook, PERIODS["24h"])
    assert [bucket.figures.delivered for bucket in found if bucket.figures.attempts] == [2]
    made(webhook, datetime(2026, 3, 29, 0, 30, tzinfo=UTC), [5])
    made(webhook, datetime(2026, 3, 29, 1, 30, tzinfo=UTC), [5])
    with held_at(datetime(2026, 3, 29, 9, tzinfo=UTC)):
        found = history(webhook, PERIODS["24h"])
    assert [bucket.start.hour for bucket in found if bucket.figures.attempts] == [0, 2]


def test_the_last_day_by_webhook_leaves_out_what_is_older_and_others(
    acme: Cast, globex: Cast, webhook: Webhook, django_assert_num_queries: Any
) -> None:
    other, theirs = make_webhook(acme, name="other"), make_webhook(globex)
    with held_at(NOON):
        made(webhook, NOON, [5, 5])
        made(other, NOON, [5], delivered=False)
        made(theirs, NOON, [5])
        made(webhook, NOON - timedelta(hours=25), [5])
        own = Tally.objects.filter(organisation=acme.organisation)
        with django_assert_num_queries(2):
            found, whole = by_webhook(own), summary(own)
    assert {pk: (one.delivered, one.failed) for pk, one in found.items()} == {webhook.pk: (2, 0), other.pk: (0, 1)}
    assert whole == sum(found.values(), Figures())


def test_tallies_go_after_ninety_days(webhook: Webhook) -> None:
    made(webhook, now() - timedelta(days=91), [5])
    made(webhook, now() - timedelta(days=89), [5])
    deleted, done = retention.run()
    assert done
    assert deleted["tallies"] == 1
    assert Tally.objects.get().period > now() - timedelta(days=90)
