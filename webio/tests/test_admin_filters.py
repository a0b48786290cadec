"""How staff narrow the lists of webhooks and deliveries of all organisations."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from conftest import Cast
from organisations.models import User
from organisations.staff import OFFERED
from webhooks.models import Delivery
from webhooks.tests.conftest import make_delivery, make_webhook

DELIVERIES = reverse("admin:webhooks_delivery_changelist")


@pytest.fixture
def staff_client(staff: User, client: Client) -> Client:
    client.force_login(staff)
    return client


def listed(client: Client, **query: Any) -> Any:
    answer = client.get(DELIVERIES, query)
    assert answer.status_code == 200
    return answer.context["cl"]


def offered(changelist: Any, title: str) -> list[str]:
    return [
        str(choice["display"])
        for spec in changelist.filter_specs
        if spec.title == title
        for choice in spec.choices(changelist)
    ]


def test_deliveries_of_all_organisations_are_found_by_state(acme: Cast, globex: Cast, staff_client: Client) -> None:
    made = {
        (cast.organisation.slug, state): make_delivery(cast, webhook, state=state)
        for cast in (acme, globex)
        for webhook in [make_webhook(cast)]
        for state in Delivery.State.values
    }
    for state in Delivery.State.values:
        found = listed(staff_client, state=state)
        assert set(found.queryset) == {made["acme", state], made["globex", state]}
        assert found.result_count == 2
        found = listed(staff_client, state=state, organisation__id__exact=globex.organisation.pk)
        assert list(found.queryset) == [made["globex", state]]
    assert listed(staff_client, state="nonsense").result_count == 0
    # An address from before it was a filter of its own.
    assert set(listed(staff_client, state__exact="failed").queryset) == {
        made["acme", "failed"],
        made["globex", "failed"],
    }


@pytest.mark.parametrize("state", ["failed", "held", "cancelled", "pending"])
def test_the_rare_states_are_asked_for_as_indexes_hold_them(acme: Cast, staff_client: Client, state: str) -> None:
    make_delivery(acme, make_webhook(acme), state=state)
    sql = str(listed(staff_client, state=state).queryset.query)
    assert '"state" =' not in sql
    assert ('"exception" IN' in sql) != ('"next_attempt_at" IS NOT NULL' in sql)


def test_deliveries_are_found_by_the_webhooks_of_the_chosen_organisation(
    acme: Cast, globex: Cast, staff_client: Client
) -> None:
    orders, stock, theirs = make_webhook(acme), make_webhook(acme, name="stock"), make_webhook(globex, name="theirs")
    ours, other = make_delivery(acme, orders), make_delivery(acme, stock)
    make_delivery(globex, theirs)
    assert offered(listed(staff_client), "webhook") == []
    found = listed(staff_client, organisation__id__exact=acme.organisation.pk)
    assert offered(found, "webhook") == ["All", "orders", "stock"]
    assert set(found.queryset) == {ours, other}
    found = listed(staff_client, webhook__id__exact=orders.pk)
    assert offered(found, "webhook") == ["All", "orders", "stock"]
    assert list(found.queryset) == [ours]
    # A webhook of somebody else is still named, so that it can be let go of.
    found = listed(staff_client, webhook__id__exact=orders.pk, organisation__id__exact=globex.organisation.pk)
    assert offered(found, "webhook") == ["All", "orders", "theirs"]
    assert list(found.queryset) == []


def test_few_webhooks_are_offered_and_the_chosen_one(
    acme: Cast, staff_client: Client, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.WEBHOOKS_PER_ORGANISATION = 100
    rows = [make_webhook(acme, name=f"hook {number:03}") for number in range(OFFERED + 5)]
    make_delivery(acme, rows[-1])
    with django_assert_max_num_queries(10):
        found = listed(staff_client, webhook__id__exact=rows[-1].pk)
    names = offered(found, "webhook")
    assert names[1:] == [row.name for row in rows[:OFFERED]] + [rows[-1].name]


@pytest.mark.parametrize("value", ["x", "²", "9" * 30])
def test_nonsense_for_a_webhook_is_told_and_not_more(acme: Cast, staff_client: Client, value: str) -> None:
    assert staff_client.get(DELIVERIES, {"webhook__id__exact": value}).status_code in (200, 302)
