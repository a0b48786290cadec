"""The overview's list of webhooks in trouble, and the last day's figures."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from webhooks.actions import disable_webhook, pause_webhook
from webhooks.engine import tally
from webhooks.incidents import Kind, incidents
from webhooks.models import Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.pages import at


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def change(webhook: Webhook, **values: Any) -> Webhook:
    Webhook.objects.filter(pk=webhook.pk).update(**values)
    webhook.refresh_from_db()
    return webhook


def test_all_is_calm_when_all_is_well(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    tally.add([(acme.organisation.pk, webhook.pk, True, 20)] * 3, 0, now())
    page = signed_in.get(at(acme, "overview")).content.decode()
    assert "All webhooks do well" in page
    assert "<dd>100 %</dd>" in page
    assert "Needs attention" not in page
    assert "100 % of 3 attempts in 24 hours" in page


def test_the_figures_are_of_all_webhooks_of_this_organisation(
    acme: Cast, globex: Cast, webhook: Webhook, signed_in: Client
) -> None:
    other, theirs = make_webhook(acme, name="other"), make_webhook(globex)
    tally.add([(acme.organisation.pk, webhook.pk, True, 20)] * 3, 0, now())
    tally.add([(acme.organisation.pk, other.pk, False, 20)], 0, now())
    tally.add([(globex.organisation.pk, theirs.pk, False, 20)] * 9, 0, now())
    assert signed_in.get(at(acme, "overview")).context["figures"].rate == 0.75


def test_the_worst_comes_first_with_what_is_held(acme: Cast, globex: Cast) -> None:
    moment = now()
    well, paused, failing, open_, disabled = (make_webhook(acme, name=name) for name in "wpfbd")
    make_delivery(acme, paused)
    pause_webhook(webhook=paused, actor=SYSTEM)
    change(failing, failing_since=moment, consecutive_failures=2)
    change(open_, failing_since=moment, breaker_until=moment + timedelta(minutes=1), breaker_level=1)
    for _ in range(3):
        make_delivery(acme, disabled)
    disable_webhook(webhook=disabled, actor=SYSTEM, reason="gone")
    found = incidents(Webhook.objects.filter(organisation=acme.organisation))
    assert [(one.kind, one.webhook, one.held) for one in found] == [
        (Kind.DISABLED, disabled, 3),
        (Kind.BREAKER, open_, 0),
        (Kind.FAILING, failing, 0),
        (Kind.PAUSED, paused, 1),
    ]
    assert [one.bad for one in found] == [True, True, True, False]
    assert well not in [one.webhook for one in found]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("gone", "answered 410 Gone"), ("staff", "our staff switched it off"), ("anything new", "Disabled since")],
)
def test_a_disabled_webhook_says_why_and_what_to_do(
    acme: Cast, webhook: Webhook, signed_in: Client, reason: str, words: str
) -> None:
    make_delivery(acme, webhook)
    disable_webhook(webhook=webhook, actor=SYSTEM, reason=reason)
    for page in ("overview", "webhook"):
        text = signed_in.get(at(acme, page, *([webhook.pk] if page == "webhook" else []))).content.decode()
        assert words in text
        assert "1 delivery is held" in text
        assert "then enable the webhook" in text
        assert f"{at(acme, 'deliveries', webhook.pk)}?state=held" in text


def test_a_breaker_that_is_over_is_only_a_failure(acme: Cast, webhook: Webhook) -> None:
    change(webhook, failing_since=now(), breaker_until=now() - timedelta(seconds=1), breaker_level=1)
    assert [one.kind for one in incidents([webhook])] == [Kind.FAILING]


def test_the_overview_takes_as_many_queries_for_many_as_for_one(
    acme: Cast, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(15):
        made = make_webhook(acme, name=f"hook {number}")
        make_delivery(acme, made)
        disable_webhook(webhook=made, actor=SYSTEM)
        tally.add([(acme.organisation.pk, made.pk, False, 20)], 0, now())
    with django_assert_max_num_queries(14):
        page = signed_in.get(at(acme, "overview")).content.decode()
    assert page.count("1 delivery is held") == 15
