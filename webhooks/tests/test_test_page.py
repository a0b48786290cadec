"""Testing a webhook in the panel, and the page of custom values."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.events import EVENT_TYPES
from core.clock import now
from organisations.models import WebioToken
from webhooks.models import Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.pages import at

pytestmark = pytest.mark.once


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def choices(page: Any) -> list[str]:
    return [value for _group, options in page.context["form"].fields["event"].choices for value, _label in options]


def test_the_drop_down_has_every_event_it_receives_first(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    found = choices(signed_in.get(at(acme, "webhook_test", webhook.pk)))
    assert found[:2] == ["inboundMessage", "payment"]
    assert set(found) == set(EVENT_TYPES)
    serving = make_webhook(acme, custom_values=True)
    assert "customValue" in choices(signed_in.get(at(acme, "webhook_test", serving.pk)))


def test_what_came_back_is_shown_at_once(acme: Cast, endpoint: Endpoint, signed_in: Client) -> None:
    endpoint.status, endpoint.body, endpoint.headers = 418, b"<i>teapot</i>", {"X-Pot": "short & stout"}
    webhook = make_webhook(acme, callback_url=endpoint.url, headers={"X-Key": "hush"})
    page = signed_in.post(at(acme, "webhook_test", webhook.pk), {"event": "payment"})
    assert page.status_code == 200
    text = page.content.decode()
    assert "Answered 418 in" in text
    assert "&lt;i&gt;teapot&lt;/i&gt;" in text
    assert "short &amp; stout" in text
    assert "INV-2041" in text
    assert endpoint.asked[0].headers["x-key"] == "hush"
    assert "hush" not in text
    assert page.context["form"]["event"].value() == "payment"


def test_who_asks_is_shown_masked_and_left_to_fill_in(acme: Cast, endpoint: Endpoint, signed_in: Client) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication={"type": "bearer", "token": "hush"})
    page = signed_in.post(at(acme, "webhook_test", webhook.pk), {"event": "payment"})
    assert endpoint.asked[0].headers["authorization"] == "Bearer hush"
    assert ("authorization", "Bearer …") in page.context["shown_headers"]
    assert "authorization: Bearer …" in page.context["curl"]
    assert "in the place of each …" in page.content.decode()
    assert "hush" not in page.content.decode()
    assert "--cert" not in page.context["curl"]


def test_the_step_that_failed_is_named(acme: Cast, signed_in: Client) -> None:
    webhook = make_webhook(acme, callback_url="https://nowhere.invalid/")
    text = signed_in.post(at(acme, "webhook_test", webhook.pk), {"event": "payment"}).content.decode()
    assert "No answer after" in text
    assert "The host name could not be resolved." in text


@pytest.mark.parametrize("data", [{}, {"event": ""}, {"event": "nothing"}, {"event": "customValue"}])
def test_what_cannot_be_tested_is_refused(
    acme: Cast, endpoint: Endpoint, signed_in: Client, data: dict[str, str]
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    page = signed_in.post(at(acme, "webhook_test", webhook.pk), data)
    assert page.status_code == 400
    assert page.context["form"].errors["event"]
    assert endpoint.asked == []


@pytest.mark.parametrize("asked", ["", "  \n ", "a<b", "x" * 101])
def test_bad_field_names_are_refused(acme: Cast, endpoint: Endpoint, signed_in: Client, asked: str) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
    for url in (at(acme, "webhook_test", webhook.pk), at(acme, "custom_values")):
        page = signed_in.post(url, {"event": "customValue", "asked": asked})
        assert page.status_code == 400
        assert page.context["form"].errors["asked"]
    assert endpoint.asked == []


def test_custom_values_are_asked_and_shown(acme: Cast, endpoint: Endpoint, signed_in: Client) -> None:
    endpoint.body = b'{"balance": 150.50, "nested": {"a": 1}}'
    webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
    data = {"event": "customValue", "asked": "balance\n\ndue date\nnested", "customer_uid": "C-1", "address": "44771"}
    for url in (at(acme, "webhook_test", webhook.pk), at(acme, "custom_values")):
        page = signed_in.post(url, data)
        assert page.status_code == 200
        text = page.content.decode()
        assert "150.50" in text
        assert text.count("Missing") == 2
        assert "Not a usable string, number or boolean: nested." in text
    assert endpoint.asked[0].path.endswith("param1=balance&param2=due%20date&param3=nested")


def test_without_an_endpoint_the_page_says_how_to_get_one(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    page = signed_in.get(at(acme, "custom_values")).content.decode()
    assert "No webhook serves custom values" in page
    assert at(acme, "webhook_edit", webhook.pk) in page
    assert signed_in.post(at(acme, "custom_values"), {"asked": "balance"}).status_code == 400


def test_the_catalogue_has_every_event_in_both_formats(acme: Cast, signed_in: Client) -> None:
    page = signed_in.get(at(acme, "event_catalogue"))
    assert [entry.name for entry, _sample in page.context["events"]] == list(EVENT_TYPES)
    text = page.content.decode()
    assert "&quot;dateCreated&quot;: &quot;2021-01-28 12:22:15.397&quot;" in text
    assert "&quot;timestamp&quot;: &quot;2021-01-28T12:22:15.397Z&quot;" in text


def test_the_overview_tells_what_needs_attention(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    assert "Needs attention" not in signed_in.get(at(acme, "overview")).content.decode()
    Webhook.objects.update(state="paused")
    assert "Needs attention" in signed_in.get(at(acme, "overview")).content.decode()


def test_the_overview_leads_a_newcomer_step_by_step(acme: Cast, signed_in: Client) -> None:
    def done() -> list[bool]:
        return [step.done for step in signed_in.get(at(acme, "overview")).context["steps"]]

    assert done() == [True, False, False, False]
    make_webhook(acme)
    WebioToken.objects.create(organisation=acme.organisation, token="t")
    assert done() == [True, True, True, False]
    Webhook.objects.update(last_success_at=now())
    assert done() == []


def test_an_overview_of_many_webhooks_takes_few_queries(
    acme: Cast, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    for _ in range(10):
        make_webhook(acme)
    with django_assert_max_num_queries(12):
        signed_in.get(at(acme, "overview"))
