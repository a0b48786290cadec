"""How staff narrow the lists of webhooks and deliveries of all organisations."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from conftest import Cast
from core.clock import now
from organisations.models import User
from organisations.staff import OFFERED
from webhooks.admin import TroubleFilter
from webhooks.incidents import Kind, kind_of
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook

DELIVERIES = reverse("admin:webhooks_delivery_changelist")
WEBHOOKS = reverse("admin:webhooks_webhook_changelist")


@pytest.fixture
def staff_client(staff: User, client: Client) -> Client:
    client.force_login(staff)
    return client


def changelist(client: Client, address: str = DELIVERIES, **query: Any) -> Any:
    answer = client.get(address, query)
    assert answer.status_code == 200
    return answer.context["cl"]


def listed(client: Client, **query: Any) -> list[Webhook]:
    return sorted(changelist(client, WEBHOOKS, **query).queryset, key=lambda webhook: webhook.pk)


def offered(found: Any, title: str) -> list[str]:
    return [
        str(choice["display"]) for spec in found.filter_specs if spec.title == title for choice in spec.choices(found)
    ]


def test_deliveries_of_all_organisations_are_found_by_state(acme: Cast, globex: Cast, staff_client: Client) -> None:
    made = {
        (cast.organisation.slug, state): make_delivery(cast, webhook, state=state)
        for cast in (acme, globex)
        for webhook in [make_webhook(cast)]
        for state in Delivery.State.values
    }
    for state in Delivery.State.values:
        found = changelist(staff_client, state=state)
        assert set(found.queryset) == {made["acme", state], made["globex", state]}
        assert found.result_count == 2
        found = changelist(staff_client, state=state, organisation__id__exact=globex.organisation.pk)
        assert list(found.queryset) == [made["globex", state]]
    assert changelist(staff_client, state="nonsense").result_count == 0
    # An address from before it was a filter of its own.
    assert set(changelist(staff_client, state__exact="failed").queryset) == {
        made["acme", "failed"],
        made["globex", "failed"],
    }


@pytest.mark.parametrize("state", ["failed", "held", "cancelled", "pending"])
def test_the_rare_states_are_asked_for_as_indexes_hold_them(acme: Cast, staff_client: Client, state: str) -> None:
    make_delivery(acme, make_webhook(acme), state=state)
    sql = str(changelist(staff_client, state=state).queryset.query)
    assert '"state" =' not in sql
    assert ('"exception" IN' in sql) != ('"next_attempt_at" IS NOT NULL' in sql)


def test_deliveries_are_found_by_the_webhooks_of_the_chosen_organisation(
    acme: Cast, globex: Cast, staff_client: Client
) -> None:
    orders, stock, theirs = make_webhook(acme), make_webhook(acme, name="stock"), make_webhook(globex, name="theirs")
    ours, other = make_delivery(acme, orders), make_delivery(acme, stock)
    make_delivery(globex, theirs)
    assert offered(changelist(staff_client), "webhook") == []
    found = changelist(staff_client, organisation__id__exact=acme.organisation.pk)
    assert offered(found, "webhook") == ["All", "orders", "stock"]
    assert set(found.queryset) == {ours, other}
    found = changelist(staff_client, webhook__id__exact=orders.pk)
    assert offered(found, "webhook") == ["All", "orders", "stock"]
    assert list(found.queryset) == [ours]
    # A webhook of somebody else is still named, so that it can be let go of.
    found = changelist(staff_client, webhook__id__exact=orders.pk, organisation__id__exact=globex.organisation.pk)
    assert offered(found, "webhook") == ["All", "orders", "theirs"]
    assert list(found.queryset) == []


def test_few_webhooks_are_offered_and_the_chosen_one(
    acme: Cast, staff_client: Client, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.WEBHOOKS_PER_ORGANISATION = 100
    rows = [make_webhook(acme, name=f"hook {number:03}") for number in range(OFFERED + 5)]
    make_delivery(acme, rows[-1])
    with django_assert_max_num_queries(10):
        found = changelist(staff_client, webhook__id__exact=rows[-1].pk)
    names = offered(found, "webhook")
    assert names[1:] == [row.name for row in rows[:OFFERED]] + [rows[-1].name]


def test_webhooks_of_all_organisations_are_found_by_what_is_wrong_with_them(
    acme: Cast, globex: Cast, staff_client: Client
) -> None:
    moment = now()
    rows: dict[Kind | None, list[Webhook]] = {kind: [] for kind in (*Kind, None)}
    times = (None, moment - timedelta(hours=1), moment + timedelta(hours=1))
    for number, (state, until, since) in enumerate(product(Webhook.State.values, times, times[:2])):
        webhook = make_webhook((acme, globex)[number % 2], name=str(number))
        Webhook.objects.filter(pk=webhook.pk).update(state=state, breaker_until=until, failing_since=since)
        webhook.refresh_from_db()
        rows[kind_of(webhook)].append(webhook)
    Webhook.objects.filter(pk=make_webhook(acme).pk).update(state="disabled", archived_at=moment)
    for kind in Kind:
        assert len(rows[kind]) > 0
        assert listed(staff_client, trouble=kind) == rows[kind]
    assert listed(staff_client, trouble="any") == [
        row for row in Webhook.objects.filter(archived_at=None) if row not in rows[None]
    ]
    assert listed(staff_client, trouble="nonsense") == []
    counts = offered(changelist(staff_client, WEBHOOKS, _facets="True"), "what needs attention")
    assert counts[2:] == [f"{label} ({len(rows[kind])})" for kind, label in TroubleFilter.labels.items()]
    assert len(listed(staff_client)) == Webhook.objects.count()


@pytest.mark.parametrize("value", ["x", "²", "9" * 30])
def test_nonsense_for_a_webhook_is_told_and_not_more(acme: Cast, staff_client: Client, value: str) -> None:
    assert staff_client.get(DELIVERIES, {"webhook__id__exact": value}).status_code in (200, 302)
