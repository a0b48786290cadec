"""A developer adds a webhook, tests it, reads the log and sends something again: with scripts and without."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from conftest import Cast
from conversations.actions import receive_message
from tests_browser.conftest import Visit
from webhooks.engine.drain import Drain
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.pages import at


def deliver_what_is_due() -> None:
    """Let the engine work until nothing is due and everything is written."""
    drain = Drain()
    drain.look()
    drain.sender.start()
    while not drain.idle():
        drain.collect(0.02)
        drain.sender.start()
    drain.finish()


def test_a_webhook_from_sign_in_to_resend(visit: Visit, acme: Cast, endpoint: Endpoint) -> None:
    page = visit.page
    visit.sign_in(acme.developer.email)
    visit.go(at(acme, "overview"))
    expect(page).to_have_title(re.compile("Integrations"))

    # Add: a refused address first, then the real one; what was typed is still there.
    visit.go(at(acme, "webhooks"))
    page.get_by_role("link", name="Add webhook").first.click()
    page.get_by_label("Name", exact=True).fill("orders")
    page.get_by_label("Callback URL").fill("http://10.0.0.1/hook")
    page.locator("#id_events_inboundMessage").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("not on the public internet")).to_be_visible()
    assert Webhook.objects.count() == 0
    expect(page.locator("#id_events_inboundMessage")).to_be_checked()
    page.get_by_label("Callback URL").fill(endpoint.url)
    page.get_by_text("Example body").first.click()
    page.get_by_role("button", name="Save", exact=True).click()
    webhook = Webhook.objects.get()
    expect(page.get_by_label("Secret", exact=True)).to_have_value(webhook.secret)

    # Test: the answer is on the page at once.
    page.get_by_label("What to send").select_option("inboundMessage")
    page.get_by_role("button", name="Send test").click()
    expect(page.get_by_role("heading", name=re.compile("Answered 200"))).to_be_visible()
    assert endpoint.asked[-1].headers["x-webio-test"] == "true"
    endpoint.status, endpoint.body = 503, b"try later"
    page.get_by_label("What to send").select_option("payment")
    page.get_by_role("button", name="Send test").click()
    expect(page.get_by_role("heading", name=re.compile("Answered 503"))).to_be_visible()
    expect(page.get_by_text("try later")).to_be_visible()

    # Something happens; the log has it.
    receive_message(channel=acme.channel, address="447700900123", body="Hello again")
    deliver_what_is_due()
    delivery = Delivery.objects.get()
    assert len(endpoint.asked) == 3
    page.get_by_role("link", name="Deliveries", exact=True).click()
    row = page.get_by_role("row").filter(has_text=f"#{delivery.pk}")
    expect(row).to_contain_text("Retrying")
    expect(row).to_contain_text("503")
    page.get_by_label("State").select_option("delivered")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("link", name="Show all").click()

    # One delivery, and again.
    page.get_by_role("link", name="inboundMessage").first.click()
    expect(page.get_by_text("Attempt 1")).to_be_visible()
    expect(page.locator("pre").filter(has_text="Hello again").first).to_be_visible()
    page.get_by_role("button", name="Resend").click()
    again = Delivery.objects.get(kind="resend")
    expect(page.get_by_text(f"Being sent again, as delivery {again.pk}.")).to_be_visible()

    endpoint.status = 204
    deliver_what_is_due()
    page.reload()
    expect(page.get_by_text("Delivered", exact=True).first).to_be_visible()
    expect(page.get_by_text("Attempt 1")).to_be_visible()
    assert endpoint.asked[-1].headers["webhook-id"] == endpoint.asked[2].headers["webhook-id"]
    assert endpoint.asked[-1].body == endpoint.asked[2].body

    # The ticked ones of the log.
    visit.go(at(acme, "log"))
    page.get_by_label(f"Delivery {delivery.pk}").check()
    page.get_by_role("button", name="Resend selected").click()
    expect(page.get_by_text("1 delivery is being sent again.")).to_be_visible()
    assert Delivery.objects.filter(kind="resend").count() == 2


@pytest.mark.parametrize("javascript", [True], indirect=True)
def test_a_test_is_answered_in_place(visit: Visit, acme: Cast, endpoint: Endpoint) -> None:
    """With scripts nothing is reloaded, and what is wrong with the form shows all the same."""
    webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
    page = visit.page
    visit.sign_in(acme.owner.email)
    visit.go(at(acme, "webhook_test", webhook.pk))
    page.evaluate("window.kept = true")
    page.get_by_label("What to send").select_option("customValue")
    page.get_by_role("button", name="Send test").click()
    expect(page.get_by_text("Name at least one field to ask for.")).to_be_visible()
    assert endpoint.asked == []
    endpoint.body = b'{"balance": 12.50}'
    page.get_by_label("Field names").fill("balance")
    page.get_by_role("button", name="Send test").click()
    expect(page.locator("#result").get_by_text("12.50", exact=True)).to_be_visible()
    expect(page.get_by_text("Name at least one field to ask for.")).to_have_count(0)
    expect(page.locator("#result button.copy")).to_have_count(1)
    assert page.evaluate("window.kept") is True
