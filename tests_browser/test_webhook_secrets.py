"""Stored secrets and the signing secret in the panel: what must be entered again, what must be ticked."""

from __future__ import annotations

from playwright.sync_api import expect

from conftest import Cast
from tests_browser.conftest import Visit
from webhooks.endpoint_auth import settings_of
from webhooks.models import Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.pages import at


def test_a_password_is_entered_again_when_the_address_moves(visit: Visit, acme: Cast) -> None:
    basic = {"type": "basic", "username": "webio", "password": "pa55w0rd"}
    webhook = make_webhook(acme, authentication=basic, headers={"X-Key": "hush"})
    page = visit.page
    visit.sign_in(acme.developer.email)
    visit.go(at(acme, "webhook_edit", webhook.pk))
    page.get_by_label("Callback URL").fill("https://elsewhere.example.com/in")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Nothing was saved yet: see the marked fields.")).to_be_visible()
    expect(page.locator("#id_password_error")).to_contain_text("Enter it again")
    expect(page.locator("#id_headers_error")).to_contain_text("X-Key: Enter it again")
    page.get_by_label("Password").fill("another")
    page.get_by_label("Extra headers").fill("")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    saved = Webhook.objects.get()
    assert (saved.callback_url, saved.headers) == ("https://elsewhere.example.com/in", "")
    assert settings_of(saved)["password"] == "another"


def test_a_second_rotation_wants_a_tick(visit: Visit, acme: Cast) -> None:
    webhook = make_webhook(acme)
    page = visit.page
    visit.sign_in(acme.developer.email)
    visit.go(at(acme, "webhook_secret", webhook.pk))
    expect(page.get_by_label("End the overlap now")).to_have_count(0)
    page.get_by_role("button", name="Make a new secret").click()
    second = Webhook.objects.get().secret
    expect(page.get_by_label("Secret", exact=True)).to_have_value(second)

    visit.go(at(acme, "webhook_secret", webhook.pk))
    expect(page.get_by_text("The last rotation still overlaps until")).to_be_visible()
    page.get_by_role("button", name="Make a new secret").click()
    expect(page.get_by_text("The secret before the present one signs until")).to_be_visible()
    assert Webhook.objects.get().secret == second
    page.get_by_label("End the overlap now").check()
    page.get_by_role("button", name="Make a new secret").click()
    saved = Webhook.objects.get()
    expect(page.get_by_label("Secret", exact=True)).to_have_value(saved.secret)
    assert saved.previous_secret == second
