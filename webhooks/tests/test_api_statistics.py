"""How a webhook fares, through the API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.clock import held_at, now
from organisations.tests.calls import with_scopes
from webhooks.engine import tally
from webhooks.models import Webhook
from webhooks.tallies import PERIODS
from webhooks.tests.conftest import make_webhook

NOON = datetime(2026, 6, 10, 12, 5, tzinfo=UTC)


def path(webhook: Webhook, query: str = "") -> str:
    return f"/api/v1/webhooks/{webhook.pk}/statistics{query}"


def attempts(webhook: Webhook, count: int, *, delivered: bool = True, milliseconds: int = 20) -> None:
    tally.add([(webhook.organisation_id, webhook.pk, delivered, milliseconds)] * count, 0, now())


def test_the_figures_of_the_last_day(acme: Cast, globex: Cast, webhook: Webhook, client: Client) -> None:
    with held_at(NOON):
        attempts(webhook, 3)
        attempts(webhook, 1, delivered=False, milliseconds=15_000)
        attempts(make_webhook(globex), 9)
        answer = client.get(path(webhook), headers=acme.auth)
    assert answer.status_code == 200
    found = answer.json()
    assert found["period"] == "24h"
    expected = {"attempts": 4, "delivered": 3, "failed": 1, "successRate": 0.75, "p50Ms": 20, "p95Ms": 10_000}
    assert found["total"] == expected
    assert len(found["results"]) == 24
    *quiet, last = found["results"]
    assert last == {"since": "2026-06-10T12:00:00.000Z", "until": "2026-06-10T13:00:00.000Z", **expected}
    assert {one["attempts"] for one in quiet} == {0}
    assert quiet[0]["successRate"] is quiet[0]["p50Ms"] is quiet[0]["p95Ms"] is None


@pytest.mark.parametrize("period", PERIODS)
def test_spans_follow_one_another_to_now(
    acme: Cast, webhook: Webhook, client: Client, period: str, django_assert_max_num_queries: Any
) -> None:
    for days in range(40):
        with held_at(now() - timedelta(days=days)):
            attempts(webhook, 1)
    with django_assert_max_num_queries(8):
        found = client.get(path(webhook, f"?period={period}"), headers=acme.auth).json()
    spans = found["results"]
    assert len(spans) == PERIODS[period].bars
    assert all(one["until"] == two["since"] for one, two in pairwise(spans))
    assert found["total"]["attempts"] == sum(one["attempts"] for one in spans)


@pytest.mark.parametrize("query", ["?period=1h", "?period=", "?period=24H", "?since=2026-01-01"])
def test_what_is_not_a_period_is_named(acme: Cast, webhook: Webhook, client: Client, query: str) -> None:
    answer = client.get(path(webhook, query), headers=acme.auth)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [query[1:].partition("=")[0]]


def test_others_and_weak_keys_learn_nothing(acme: Cast, globex: Cast, webhook: Webhook, client: Client) -> None:
    assert client.get(path(webhook), headers=globex.auth).status_code == 404
    weak = with_scopes(acme, "deliveries:read")
    assert client.get(path(webhook), headers=weak).status_code == 403
