"""How a webhook fares, as figures and charts on its page."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.clock import held_at, now
from webhooks.engine import tally
from webhooks.models import Webhook
from webhooks.panel.charts import DECADES, charts_of, nice
from webhooks.panel.timings import phases_of
from webhooks.tallies import PERIODS, history
from webhooks.templatetags.figures import duration, pause, percent
from webhooks.tests.conftest import make_webhook
from webhooks.tests.pages import at

pytestmark = pytest.mark.once

NOON = datetime(2026, 6, 10, 12, 5, tzinfo=UTC)


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.viewer)
    return client


def attempts(webhook: Webhook, moment: datetime, count: int, *, delivered: bool = True, milliseconds: int = 80) -> None:
    one = (webhook.organisation_id, webhook.pk, delivered, milliseconds)
    tally.add([one] * count, 0, moment)


def shown(signed_in: Client, cast: Cast, webhook: Webhook, period: str = "") -> str:
    page = signed_in.get(at(cast, "webhook", webhook.pk), {"period": period} if period else {})
    assert page.status_code == 200
    return page.content.decode()


def svgs(page: str) -> list[ET.Element]:
    """The drawings of a page; they are well-formed, too."""
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_without_attempts_there_is_a_word_instead_of_charts(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    page = shown(signed_in, acme, webhook)
    assert "Nothing was sent in this time" in page
    assert not svgs(page)


def test_the_charts_hold_what_was_counted(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    with held_at(NOON):
        attempts(webhook, NOON, 1500)
        attempts(webhook, NOON, 500, delivered=False, milliseconds=20_000)
        attempts(webhook, NOON - timedelta(hours=3), 10)
        page = shown(signed_in, acme, webhook)
    assert '<dd class="text-bad">75.1 %</dd>' in page
    assert "<dd>2,010</dd>" in page
    assert "over 10 s" in page
    volume, success, durations = svgs(page)
    bars = [
        (one.get("class"), float(one.get("height", 0)))
        for one in volume.iter("rect")
        if one.get("class") != "chart-place"
    ]
    assert bars == [("series-ok", 1.5), ("series-ok", 75), ("series-bad", 25)]
    assert [one.get("class") for one in success.iter("rect")].count("series-bad") == 1
    assert [one.get("class") for one in durations.iter("path")] == [
        "chart-grid",
        "chart-line chart-dots series-p50",
        "chart-line chart-dots series-p95",
    ]
    told = [str(one.text) for one in volume.iter("title")]
    assert told[0] == "Attempts"
    assert sum("nothing was sent" in one for one in told) == 22
    assert told[-1].endswith("1,500 accepted, 500 failed")


def test_lines_are_broken_where_nothing_was_sent(webhook: Webhook) -> None:
    with held_at(NOON):
        for hours, milliseconds in ((0, 80), (1, 8), (5, 20_000)):
            attempts(webhook, NOON - timedelta(hours=hours), 1, milliseconds=milliseconds)
        (line, _p95) = charts_of(history(webhook, PERIODS["24h"]), PERIODS["24h"])[2].lines
    assert line.path == "M937.5 100L979.17 70.83"
    assert line.dots == "M770.83 0h0"


@pytest.mark.parametrize("period", PERIODS)
def test_every_chart_is_told_to_those_who_cannot_see_it(
    acme: Cast, webhook: Webhook, signed_in: Client, period: str
) -> None:
    attempts(webhook, now(), 3)
    page = shown(signed_in, acme, webhook, period)
    for drawing in svgs(page):
        ids = str(drawing.get("aria-labelledby")).split()
        assert [drawing.find(name).get("id") for name in ("title", "desc")] == ids  # type: ignore[union-attr]
        assert drawing.get("role") == "img"
    assert page.count('<th scope="row" class="nowrap">') == PERIODS[period].bars
    assert f'href="?period={period}" aria-current="true"' in page
    assert " style=" not in page


def test_an_unknown_period_is_the_last_day(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    assert 'href="?period=24h" aria-current="true"' in shown(signed_in, acme, webhook, "year")


def test_more_tallies_take_no_more_queries(
    acme: Cast, globex: Cast, webhook: Webhook, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    theirs = make_webhook(globex)
    for hours in range(200):
        attempts(webhook, now() - timedelta(hours=hours), 1)
        attempts(theirs, now() - timedelta(hours=hours), 1)
    with django_assert_max_num_queries(13):
        page = shown(signed_in, acme, webhook, "30d")
    assert "<dd>200</dd>" in page


def test_the_tabs_are_the_same_on_all_pages_of_a_webhook(acme: Cast, webhook: Webhook, client: Client) -> None:
    client.force_login(acme.developer)
    found = {}
    for name in ("webhook", "deliveries", "webhook_edit", "webhook_test", "webhook_delete", "resend_failed"):
        page = client.get(at(acme, name, webhook.pk)).content.decode()
        tabs = re.search(r'<nav class="tabs".*?</nav>', page, re.DOTALL)
        assert tabs is not None
        assert tabs[0].count("aria-current") == 1
        found[name] = re.findall(r">([^<]+)</a>", tabs[0])
    assert len(set(map(tuple, found.values()))) == 1
    assert found["webhook"][:3] == ["Deliveries", "Overview", "Settings"]


def test_figures_are_written_for_people() -> None:
    assert [percent(share) for share in (None, 0.0, 0.0001, 0.5, 0.985, 0.9999, 1.0)] == [
        "–", "0 %", "0.1 %", "50 %", "98.5 %", "99.9 %", "100 %",
    ]  # fmt: skip
    assert [duration(value) for value in (None, 0.4, 80, 999.6, 1000, 1250, 9_990, float("inf"))] == [
        "–", "0 ms", "80 ms", "1 s", "1 s", "1.2 s", "10 s", "over 10 s",
    ]  # fmt: skip
    assert [pause(timedelta(seconds=value)) for value in (0.02, 5, 119, 300, 5_400, 18_000, 172_800)] == [
        "20 ms", "5 s", "119 s", "5 min", "90 min", "5 h", "2 days",
    ]  # fmt: skip
    assert [nice(value) for value in (0, 1, 3, 7, 11, 60, 61, 1001)] == [2, 2, 4, 10, 20, 60, 100, 2000]
    assert DECADES[0] < DECADES[-1]


def test_phases_of_a_request() -> None:
    reused = phases_of({"dns": 0, "connect": 0, "tls": 0, "firstByte": 9, "total": 12})
    assert [(one.key, one.ms, one.x, one.width) for one in reused] == [
        ("firstByte", 9, "0.00%", "75.00%"),
        ("total", 3, "75.00%", "25.00%"),
    ]
    silent = phases_of({"dns": 1, "connect": 3, "tls": 0, "firstByte": 0, "total": 15_000})
    assert [(one.key, str(one.label), one.ms) for one in silent][-1] == ("total", "waiting", 14_997)
    assert phases_of({}) == []
    assert phases_of({"dns": 0, "connect": 0, "tls": 0, "firstByte": 0, "total": 0}) == []
