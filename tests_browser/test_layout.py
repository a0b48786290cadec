"""Every page of the integration panel fits a phone, has one heading, names its fields and its title."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse

from conftest import Cast, make_user
from core.clock import now
from tests_browser.conftest import Visit
from webhooks.engine import tally
from webhooks.models import Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.pages import at

UNNAMED = """
    [...document.querySelectorAll("main input:not([type=hidden]), main select, main textarea, main button, main a")]
        .filter((one) => !(one.labels && one.labels.length) && !one.ariaLabel && !one.textContent.trim())
        .map((one) => one.outerHTML)
"""


@pytest.fixture
def webhook(acme: Cast) -> Webhook:
    return make_webhook(
        acme, custom_values=True, callback_url="https://hooks.example.com/" + "a-long-path/" * 20 + "?key=value"
    )


@pytest.mark.parametrize("javascript", [True], indirect=True)
@pytest.mark.parametrize("width", [390, 1280])
def test_every_page_fits_and_names_its_parts(visit: Visit, acme: Cast, webhook: Webhook, width: int) -> None:
    for state in ("delivered", "failed", "held", "pending"):
        delivery = make_delivery(acme, webhook, state=state, last_error="refused_address", attempt_count=2)
    tally.add([(acme.organisation.pk, webhook.pk, True, 4_000)] * 123_456, 0, now())
    tally.add([(acme.organisation.pk, webhook.pk, False, 20_000)] * 9, 0, now() - timedelta(hours=3))
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.sign_in(acme.owner.email)
    titles = set()
    pages = [
        *(
            at(acme, name)
            for name in ("overview", "webhooks", "webhook_add", "custom_values", "event_catalogue", "log")
        ),
        *(
            at(acme, name, webhook.pk)
            for name in (
                "webhook",
                "webhook_edit",
                "webhook_test",
                "webhook_verify",
                "webhook_secret",
                "webhook_delete",
                "deliveries",
            )
        ),
        at(acme, "resend_failed", webhook.pk),
        at(acme, "delivery", delivery.pk),
        reverse("sandbox:index", args=["acme"]),
        reverse("sandbox:conversation", args=["acme", acme.conversation.pk]),
    ]
    for path in pages:
        visit.go(path)
        assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{path} is too wide"
        assert visit.page.locator("h1").count() == 1, path
        assert visit.page.evaluate(UNNAMED) == [], path
        assert visit.page.evaluate("document.documentElement.lang"), path
        titles.add(visit.page.title())
    assert len(titles) == len(pages)


@pytest.mark.parametrize("javascript", [False], indirect=True)
@pytest.mark.parametrize("width", [390, 1280])
def test_charts_fit_into_their_card_and_follow_the_period(
    visit: Visit, acme: Cast, webhook: Webhook, width: int
) -> None:
    tally.add([(acme.organisation.pk, webhook.pk, True, 4_000)] * 123_456, 0, now())
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.sign_in(acme.viewer.email)
    visit.go(at(acme, "webhook", webhook.pk))
    for label in ("24 hours", "7 days", "30 days"):
        visit.page.get_by_role("link", name=label).click()
        assert visit.page.locator('.switch [aria-current="true"]').inner_text() == label
        card = visit.page.locator(".card", has=visit.page.locator("#history")).bounding_box()
        assert card is not None
        plots = visit.page.get_by_role("img").all()
        assert len(plots) == 3
        for plot in plots:
            box = plot.bounding_box()
            assert box is not None
            assert box["width"] > 200
            assert card["x"] < box["x"] < box["x"] + box["width"] < card["x"] + card["width"]
        bar = visit.page.locator(".chart-volume rect.series-ok").bounding_box()
        assert bar is not None
        assert bar["height"] > 20


@pytest.mark.parametrize("javascript", [True], indirect=True)
@pytest.mark.parametrize("width", [390, 1280])
def test_what_staff_see_of_the_panel_fits_and_copies(visit: Visit, acme: Cast, webhook: Webhook, width: int) -> None:
    make_user("staff@webio.example", is_staff=True, is_superuser=True)
    tally.add([(acme.organisation.pk, webhook.pk, True, 4_000)] * 123_456, 0, now())
    delivery = make_delivery(acme, webhook, attempt_count=1)
    page = visit.page
    page.set_viewport_size({"width": width, "height": 800})
    visit.sign_in("staff@webio.example")
    visit.go(reverse("admin:webhooks_webhook_change", args=[webhook.pk]))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_role("link", name="30 days").click()
    assert page.locator('.switch [aria-current="true"]').inner_text() == "30 days"
    bar = page.locator(".chart-volume rect.series-ok").bounding_box()
    assert bar is not None
    assert bar["height"] > 20
    visit.go(reverse("admin:webhooks_delivery_change", args=[delivery.pk]))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.get_by_text("As curl, with secrets masked").click()
    page.get_by_role("button", name="Copy").click()
    assert page.url.endswith(reverse("admin:webhooks_delivery_change", args=[delivery.pk]))
