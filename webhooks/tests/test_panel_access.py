"""Who gets to see which page of the integration panel."""

from __future__ import annotations

import pytest
from django.test import Client

from conftest import Cast
from organisations.models import AuditEntry
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_delivery
from webhooks.tests.pages import EVERYBODY, MANAGERS, at

pytestmark = pytest.mark.once

WEBHOOK_PAGES = {
    "webhook": EVERYBODY,
    "webhook_edit": MANAGERS,
    "webhook_test": MANAGERS,
    "webhook_secret": MANAGERS,
    "webhook_delete": MANAGERS,
    "deliveries": MANAGERS,
    "resend_failed": MANAGERS,
}
PAGES = {
    "overview": EVERYBODY,
    "webhooks": EVERYBODY,
    "webhook_add": MANAGERS,
    "custom_values": EVERYBODY,
    "event_catalogue": EVERYBODY,
    "log": MANAGERS,
    **WEBHOOK_PAGES,
    "delivery": MANAGERS,
}
POSTS = {
    "webhook_pause": MANAGERS,
    "webhook_resume": MANAGERS,
    "webhook_disable": MANAGERS,
    "webhook_enable": MANAGERS,
    "resend_selected": MANAGERS,
    "delivery_resend": MANAGERS,
}


def address(cast: Cast, name: str, webhook: Webhook, delivery: Delivery) -> str:
    """The address of a page, with the ids it takes."""
    if name in ("delivery", "delivery_resend"):
        return at(cast, name, delivery.pk)
    if name in WEBHOOK_PAGES or (name.startswith("webhook_") and name != "webhook_add"):
        return at(cast, name, webhook.pk)
    return at(cast, name)


@pytest.fixture
def delivery(acme: Cast, webhook: Webhook) -> Delivery:
    return make_delivery(acme, webhook, state="failed")


@pytest.mark.parametrize("name", [*PAGES, *POSTS])
def test_each_role_sees_what_it_may(
    acme: Cast, webhook: Webhook, delivery: Delivery, client: Client, name: str
) -> None:
    page = address(acme, name, webhook, delivery)
    for role, user in acme.people.items():
        client.force_login(user)
        if name in PAGES:
            expected = 200 if role in PAGES[name] else 403
            assert client.get(page).status_code == expected, role
        else:
            expected = 302 if role in POSTS[name] else 403
            assert client.post(page).status_code == expected, role


@pytest.mark.parametrize("name", [*PAGES, *POSTS])
def test_outsiders_learn_nothing_and_strangers_sign_in(
    acme: Cast, globex: Cast, webhook: Webhook, delivery: Delivery, client: Client, name: str
) -> None:
    page = address(acme, name, webhook, delivery)
    for method in (client.get, client.post):
        answer = method(page)
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")
    client.force_login(globex.owner)
    before = AuditEntry.objects.count(), Delivery.objects.count()
    assert client.get(page).status_code in (404, 405)
    assert client.post(page).status_code in (404, 405)
    inside = address(globex, name, webhook, delivery)
    if inside.rstrip("/").split("/")[-1].isdigit() or name in WEBHOOK_PAGES or name in POSTS:
        assert client.get(inside).status_code in (404, 405)
        expected = (302,) if name == "resend_selected" else (404, 405)
        assert client.post(inside).status_code in expected
    assert (AuditEntry.objects.count(), Delivery.objects.count()) == before


@pytest.mark.parametrize("name", POSTS)
def test_what_changes_things_is_no_get(
    acme: Cast, webhook: Webhook, delivery: Delivery, client: Client, name: str
) -> None:
    client.force_login(acme.owner)
    before = AuditEntry.objects.count(), Delivery.objects.count()
    assert client.get(address(acme, name, webhook, delivery)).status_code == 405
    assert (AuditEntry.objects.count(), Delivery.objects.count()) == before


def test_a_form_without_its_token_is_refused(acme: Cast, webhook: Webhook) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(acme.owner)
    assert strict.post(at(acme, "webhook_pause", webhook.pk)).status_code == 403
    webhook.refresh_from_db()
    assert webhook.state == "active"


def test_a_viewer_asks_no_endpoint(acme: Cast, client: Client) -> None:
    client.force_login(acme.viewer)
    assert client.post(at(acme, "custom_values"), {"asked": "balance"}).status_code == 403
