"""The delivery log: filters, pages by key, and sending again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from django.test import Client

from conftest import Cast
from core.clock import now
from webhooks.models import Delivery, Webhook
from webhooks.panel.paging import PAGE_SIZE
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.pages import at


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def rows(client: Client, url: str) -> list[Delivery]:
    page = client.get(url)
    assert page.status_code == 200
    return page.context["page"].rows


def test_an_empty_log_says_what_to_do_next(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    assert at(acme, "webhook_test", webhook.pk) in signed_in.get(at(acme, "deliveries", webhook.pk)).content.decode()
    assert at(acme, "webhook_add") in signed_in.get(at(acme, "log")).content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("state=failed", ["failed"]),
        ("state=delivered", ["delivered"]),
        ("state=", ["delivered", "failed"]),
        ("event=inboundMessage", ["delivered", "failed"]),
        ("event=payment", []),
        ("status=500", ["failed"]),
        ("status=200&state=delivered", ["delivered"]),
        ("status=200&state=failed", []),
        ("conversation=999999", []),
        ("since=2020-01-01&until=2020-01-02", []),
        ("since=2020-01-01", ["delivered", "failed"]),
        ("until=2020-01-01", []),
        ("state=nonsense", []),
        ("status=abc", []),
        ("since=yesterday", []),
        ("since=0001-01-01", []),
        ("until=9999-12-31", []),
        ("conversation=-1", []),
        ("conversation=99999999999999999999999", []),
    ],
)
@pytest.mark.parametrize("name", ["deliveries", "log"])
def test_the_log_is_filtered_by_its_query_string(
    acme: Cast, webhook: Webhook, signed_in: Client, name: str, query: str, found: list[str]
) -> None:
    make_delivery(acme, webhook, state="failed", last_status_code=500)
    make_delivery(acme, webhook, state="delivered", last_status_code=200)
    url = at(acme, name, webhook.pk) if name == "deliveries" else at(acme, name)
    assert [row.state for row in rows(signed_in, f"{url}?{query}")] == found


def test_the_log_is_filtered_by_conversation_and_webhook(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook)
    other = make_delivery(acme, make_webhook(acme))
    assert rows(signed_in, f"{at(acme, 'log')}?conversation={acme.conversation.pk}") == ANY
    assert rows(signed_in, f"{at(acme, 'log')}?webhook={webhook.pk}") == [delivery]
    assert rows(signed_in, at(acme, "log")) == [other, delivery]


def test_days_are_days_of_the_organisations_time_zone(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    acme.organisation.time_zone = "Pacific/Auckland"
    acme.organisation.save()
    make_delivery(acme, webhook, created_at=datetime(2026, 6, 1, 13, 0, tzinfo=UTC))
    url = at(acme, "deliveries", webhook.pk)
    assert len(rows(signed_in, f"{url}?since=2026-06-02&until=2026-06-02")) == 1
    assert rows(signed_in, f"{url}?since=2026-06-01&until=2026-06-01") == []


@pytest.mark.parametrize("name", ["deliveries", "log"])
def test_pages_go_by_key_and_show_nothing_twice(
    acme: Cast, webhook: Webhook, signed_in: Client, django_assert_max_num_queries: Any, name: str
) -> None:
    moment = now()
    made = [
        make_delivery(acme, webhook, state="failed", created_at=moment + timedelta(seconds=number // 3)).pk
        for number in range(2 * PAGE_SIZE + 5)
    ]
    url = at(acme, name, webhook.pk) if name == "deliveries" else at(acme, name)
    seen: list[int] = []
    query = "state=failed"
    with django_assert_max_num_queries(3 * 12):
        while query:
            page = signed_in.get(f"{url}?{query}")
            seen += [row.pk for row in page.context["page"].rows]
            query = page.context["older"]
    assert seen == made[::-1]


def test_a_forged_or_foreign_cursor_is_not_found(acme: Cast, globex: Cast, webhook: Webhook, signed_in: Client) -> None:
    theirs = make_webhook(globex)
    for _ in range(PAGE_SIZE + 1):
        make_delivery(globex, theirs)
    client = Client()
    client.force_login(globex.owner)
    foreign = client.get(at(globex, "log")).context["older"]
    assert foreign
    for query in (foreign, "before=nonsense", "before=1"):
        assert signed_in.get(f"{at(acme, 'log')}?{query}").status_code == 404


def test_a_strangers_delivery_is_in_no_log(acme: Cast, globex: Cast, webhook: Webhook, signed_in: Client) -> None:
    theirs = make_webhook(globex)
    make_delivery(globex, theirs)
    assert rows(signed_in, at(acme, "log")) == []
    assert rows(signed_in, f"{at(acme, 'log')}?webhook={theirs.pk}") == []


def test_the_ticked_deliveries_are_sent_again(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    one, two = (make_delivery(acme, webhook, state="failed") for _ in range(2))
    back = f"{at(acme, 'log')}?state=failed"
    answer = signed_in.post(at(acme, "resend_selected"), {"delivery": [one.pk, two.pk], "next": back})
    assert answer["Location"] == back
    assert Delivery.objects.filter(state="pending", kind="resend").count() == 2


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_nobody_is_sent_elsewhere_afterwards(acme: Cast, signed_in: Client, target: str) -> None:
    answer = signed_in.post(at(acme, "resend_selected"), {"next": target})
    assert answer["Location"] == at(acme, "log")


def test_one_foreign_tick_and_nothing_is_sent(acme: Cast, globex: Cast, webhook: Webhook, signed_in: Client) -> None:
    mine = make_delivery(acme, webhook, state="failed")
    theirs = make_delivery(globex, make_webhook(globex), state="failed")
    for ticked in ([mine.pk, theirs.pk], [mine.pk, "x"], [mine.pk, 10**30]):
        assert signed_in.post(at(acme, "resend_selected"), {"delivery": ticked}).status_code == 404
    assert Delivery.objects.count() == 2


def test_what_failed_is_counted_and_then_sent_again(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    failed = make_delivery(acme, webhook, state="failed")
    url = at(acme, "resend_failed", webhook.pk)
    since = (failed.created_at - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M")
    assert signed_in.get(url).context["count"] is None
    assert signed_in.get(f"{url}?since={since}").context["count"] == 1
    assert signed_in.get(f"{url}?since=2999-01-01T00:00").context["count"] == 0
    assert Delivery.objects.count() == 1
    assert signed_in.post(url, {"since": since})["Location"] == at(acme, "deliveries", webhook.pk)
    assert Delivery.objects.filter(kind="resend", state="pending").count() == 1


def test_a_moment_that_is_none_sends_nothing(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    make_delivery(acme, webhook, state="failed")
    for since in ("", "soon", "2026-13-01T00:00", "0001-01-01T00:00", "9999-12-31T23:59"):
        assert signed_in.post(at(acme, "resend_failed", webhook.pk), {"since": since}).status_code == 400
    assert Delivery.objects.count() == 1
