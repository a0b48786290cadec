"""A newcomer plays a conversation in the sandbox and sees the webhook deliver it: with scripts and without."""

from __future__ import annotations

import re

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from conftest import Cast
from conversations.models import Conversation
from core.clock import now
from gateways.sandbox import carrier
from gateways.sandbox.models import SandboxReport
from tests_browser.conftest import Visit
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver
from webhooks.tests.pages import at

EVENTS = ["inboundMessage", "messageSend", "deliveryReport", "conversationClosed"]


def report() -> None:
    """Let the carrier say at once what it has to say."""
    SandboxReport.objects.update(due_at=now())
    while carrier.report_due():
        pass


def test_a_conversation_from_start_to_the_webhooks_answer(
    visit: Visit, acme: Cast, endpoint: Endpoint, javascript: bool
) -> None:
    make_webhook(acme, callback_url=endpoint.url, events=EVENTS)
    page = visit.page

    def news() -> None:
        if not javascript:
            page.get_by_role("link", name="Refresh").click()

    visit.sign_in(acme.owner.email)
    visit.go(at(acme, "overview"))
    page.get_by_role("main").get_by_role("link", name="sandbox").click()
    expect(page).to_have_title(re.compile("Sandbox"))

    # Start: a bad address first; what was typed is still there. Then one of the table, which fails.
    page.get_by_label("Contact's address").fill("12")
    page.get_by_label("First message").fill("Are you home tomorrow?")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("Must be 7 to 15 digits")).to_be_visible()
    expect(page.get_by_label("First message")).to_have_value("Are you home tomorrow?")
    page.get_by_role("link", name="447700900021").click()
    expect(page.get_by_label("Contact's address")).to_have_value("447700900021")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("heading", name=re.compile("Conversation"))).to_be_visible()
    said = page.locator("#talk li")
    expect(said).to_contain_text(["Hello from Acme"])
    expect(said.last).to_contain_text("statusCode 1")
    report()
    news()
    expect(said.last).to_contain_text("statusCode 21")
    expect(said.last).to_contain_text("Invalid number")

    # Answer, send, and what was typed is not lost when the page looks for news.
    page.locator("#id_answer-body").fill("Who is this?")
    page.get_by_role("button", name="Answer").click()
    expect(said.last).to_contain_text("Who is this?")
    page.locator("#id_send-body").fill("Your supplier")
    page.get_by_role("button", name="Send").click()
    expect(said).to_have_count(3)
    report()
    deliver()
    news()
    arrived = page.locator("#events").get_by_role("row").filter(has_text="inboundMessage")
    expect(arrived).to_contain_text("Delivered")
    assert len(endpoint.asked) == 5

    # Close; the delivery is a link into the log.
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("heading", name=re.compile("Closed"))).to_be_visible()
    arrived.get_by_role("link").click()
    expect(page.get_by_text("Attempt 1")).to_be_visible()
    assert Delivery.objects.filter(event_type="inboundMessage").get().state == "delivered"


@pytest.mark.parametrize("javascript", [True], indirect=True)
def test_news_come_by_themselves_and_leave_the_forms_alone(visit: Visit, acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url, events=EVENTS)
    page = visit.page
    visit.sign_in(acme.owner.email)
    visit.go(reverse("sandbox:conversation", args=["acme", acme.conversation.pk]))
    page.locator("#id_send-body").fill("One")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("More is on its way")).to_be_visible()
    page.evaluate("window.kept = true")
    page.locator("#id_answer-body").fill("Half a sentence")
    report()
    deliver()
    expect(page.get_by_text("More is on its way")).to_have_count(0)
    expect(page.locator("#talk li").last).to_contain_text("Delivered")
    expect(page.locator("#events").get_by_role("row").filter(has_text="deliveryReport")).to_contain_text("200")
    expect(page.locator("#id_answer-body")).to_have_value("Half a sentence")
    assert page.evaluate("window.kept") is True
    assert page.locator("#talk[hx-get]").count() == 0
    assert Conversation.objects.count() == 1
