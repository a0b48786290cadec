"""A webhook's page in the admin: how it fares and what is wrong with it, for staff and nobody else."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from conftest import Cast, make_user
from core.actors import SYSTEM
from core.clock import now
from organisations.models import Organisation, User
from webhooks.actions import archive_webhook, pause_webhook
from webhooks.engine import tally
from webhooks.models import Delivery, Webhook
from webhooks.tallies import PERIODS
from webhooks.tests.conftest import make_delivery, make_webhook

pytestmark = pytest.mark.once


@pytest.fixture
def staff_client(staff: User, client: Client) -> Client:
    client.force_login(staff)
    return client


def attempts(webhook: Webhook, count: int, *, delivered: bool = True, hours: float = 0) -> None:
    one = (webhook.organisation_id, webhook.pk, delivered, 20)
    tally.add([one] * count, 0, now() - timedelta(hours=hours))


def address(webhook: Webhook) -> str:
    return reverse("admin:webhooks_webhook_change", args=[webhook.pk])


def text_of(client: Client, webhook: Webhook, **query: str) -> str:
    answer = client.get(address(webhook), query)
    assert answer.status_code == 200
    return answer.content.decode()


def figures(page: str) -> dict[str, str]:
    return dict(re.findall(r"<div><dt>(?:<abbr[^>]*>)?([^<]+)(?:</abbr>)?</dt><dd[^>]*>([^<]*)</dd></div>", page))


def test_staff_see_the_charts_of_every_organisations_webhooks(acme: Cast, globex: Cast, staff_client: Client) -> None:
    ours, theirs = make_webhook(acme), make_webhook(globex)
    attempts(ours, 3)
    attempts(ours, 1, delivered=False, hours=3)
    attempts(ours, 5, hours=30)
    attempts(theirs, 7)
    page = text_of(staff_client, ours)
    assert figures(page) == {
        "Success rate": "75 %", "Median": "18 ms", "p95": "24 ms", "Attempts": "4", "Failed": "1",
    }  # fmt: skip
    assert page.count('<svg class="chart-plot"') == 3
    assert " style=" not in page
    page = text_of(staff_client, theirs)
    assert (figures(page)["Success rate"], figures(page)["Attempts"]) == ("100 %", "7")


@pytest.mark.parametrize(("period", "count"), [("24h", "4"), ("7d", "9"), ("30d", "20"), ("year", "4")])
def test_the_period_is_chosen_by_links_that_keep_the_rest(
    acme: Cast, staff_client: Client, period: str, count: str
) -> None:
    webhook = make_webhook(acme)
    for number, hours in ((4, 0), (5, 48), (11, 24 * 10)):
        attempts(webhook, number, hours=hours)
    page = text_of(staff_client, webhook, period=period, _changelist_filters="state=active")
    assert figures(page)["Attempts"] == count
    links = re.findall(r'href="(\?[^"]*period=[^"]*)"( aria-current)?', page)
    assert [key for key in PERIODS for link, _ in links if f"period={key}" in link] == list(PERIODS)
    assert [f"period={period}" in link for link, current in links if current] == [period in PERIODS]
    assert all("_changelist_filters=state" in link for link, _ in links)


def test_nobody_looks_at_deliveries_for_the_charts(
    acme: Cast, staff_client: Client, django_assert_max_num_queries: Any
) -> None:
    webhook = make_webhook(acme)
    for hours in range(200):
        attempts(webhook, 1, hours=hours)
    with django_assert_max_num_queries(14):
        page = text_of(staff_client, webhook, period="30d")
    assert figures(page)["Attempts"] == "200"
    make_delivery(acme, webhook, state="delivered", attempt_count=1)
    assert figures(text_of(staff_client, webhook, period="30d"))["Attempts"] == "200"


def test_what_is_wrong_is_told_with_what_waits(acme: Cast, staff_client: Client) -> None:
    webhook = make_webhook(acme)
    assert 'class="notice' not in text_of(staff_client, webhook)
    delivery = make_delivery(acme, webhook)
    other = make_delivery(acme, make_webhook(acme, name="other"))
    pause_webhook(webhook=webhook, actor=SYSTEM)
    page = text_of(staff_client, webhook)
    assert "1 delivery is held." in page
    link = re.search(r'<a href="([^"]*)">See what is held</a>', page)
    assert link is not None
    shown = staff_client.get(link[1].replace("&amp;", "&")).context["cl"].queryset
    assert list(shown) == [delivery]
    assert Delivery.objects.filter(pk=other.pk).exists()
    archive_webhook(webhook=webhook, actor=SYSTEM)
    assert 'class="notice' not in text_of(staff_client, webhook)


def test_times_are_those_of_the_organisation(acme: Cast, staff_client: Client) -> None:
    Organisation.objects.filter(pk=acme.organisation.pk).update(time_zone="Asia/Tokyo")
    page = text_of(staff_client, make_webhook(acme))
    assert "in its time zone, Asia/Tokyo." in page


def test_who_may_see_webhooks_only_gets_no_links_to_the_rest(acme: Cast, client: Client) -> None:
    webhook = make_webhook(acme)
    helper = make_user("helper@webio.example", is_staff=True)
    client.force_login(helper)
    assert client.get(address(webhook)).status_code == 403
    helper.user_permissions.add(Permission.objects.get(codename="view_webhook"))
    attempts(webhook, 1)
    page = text_of(client, webhook)
    assert figures(page)["Attempts"] == "1"
    assert "All its deliveries" not in page
    assert "The counts behind the charts" not in page


def test_a_members_only_account_is_sent_to_sign_in(acme: Cast, client: Client) -> None:
    webhook = make_webhook(acme)
    for user in (acme.owner, None):
        if user:
            client.force_login(user)
        else:
            client.logout()
        answer = client.get(address(webhook))
        assert answer.status_code == 302
        assert "login" in answer["Location"]
