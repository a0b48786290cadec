"""What staff see of how webhooks fare, across organisations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils.html import escape

from conftest import Cast
from core.clock import now
from organisations.models import User
from webhooks.engine import tally
from webhooks.models import Tally, Webhook
from webhooks.tests.conftest import make_webhook
from webio.dashboard import health


@pytest.fixture
def staff_client(staff: User, client: Client) -> Client:
    client.force_login(staff)
    return client


def attempts(webhook: Webhook, count: int, *, delivered: bool = True, hours: int = 0) -> None:
    one = (webhook.organisation_id, webhook.pk, delivered, 20)
    tally.add([one] * count, 0, now() - timedelta(hours=hours))


def test_the_dashboard_tells_the_last_hour_of_all_organisations(acme: Cast, globex: Cast, staff_client: Client) -> None:
    ours, theirs = make_webhook(acme), make_webhook(globex)
    attempts(ours, 3)
    attempts(theirs, 1, delivered=False)
    attempts(theirs, 9, delivered=False, hours=2)
    page = staff_client.get(reverse("admin:index")).content.decode()
    assert "<dt>Success rate, last hour</dt><dd>75 %</dd>" in page
    assert "<dt>p95, last hour</dt><dd>24 ms</dd>" in page


def test_the_dashboard_lists_open_breakers_and_no_others(acme: Cast, globex: Cast, staff_client: Client) -> None:
    moment = now()
    open_, over, well = make_webhook(globex, name="open"), make_webhook(acme), make_webhook(acme, name="well")
    paused = make_webhook(acme, name="paused")
    Webhook.objects.filter(pk__in=[open_.pk, paused.pk]).update(breaker_until=moment + timedelta(minutes=5))
    Webhook.objects.filter(pk=over.pk).update(breaker_until=moment - timedelta(minutes=5))
    Webhook.objects.filter(pk=paused.pk).update(state="paused")
    assert health().breakers == [open_]
    assert well.breaker_until is None
    page = staff_client.get(reverse("admin:index")).content.decode()
    assert f"{globex.organisation}: open</a> for 4" in page


def test_a_webhook_links_to_the_counts_behind_its_charts(acme: Cast, globex: Cast, staff_client: Client) -> None:
    webhook, other = make_webhook(acme), make_webhook(globex)
    attempts(webhook, 3)
    attempts(other, 7)
    page = staff_client.get(reverse("admin:webhooks_webhook_change", args=[webhook.pk]))
    listing = page.context["tallies"]
    assert f'href="{escape(listing)}"' in page.content.decode()
    shown = staff_client.get(listing).context["cl"].queryset
    assert {row.webhook_id for row in shown} == {webhook.pk}


def test_tallies_are_found_by_webhook_and_cannot_be_changed(acme: Cast, globex: Cast, staff_client: Client) -> None:
    webhook = make_webhook(acme)
    for other in (make_webhook(globex), webhook):
        attempts(other, 1)
        attempts(other, 1, hours=1)
    address = reverse("admin:webhooks_tally_changelist")
    found = staff_client.get(address, {"q": f"#{webhook.pk}"}).context["cl"].queryset
    assert set(Tally.objects.filter(webhook=webhook)) <= set(found)
    row = Tally.objects.earliest("pk")
    page = staff_client.get(reverse("admin:webhooks_tally_change", args=[row.pk]))
    assert b'name="_save"' not in page.content
    assert staff_client.post(reverse("admin:webhooks_tally_delete", args=[row.pk])).status_code == 403
