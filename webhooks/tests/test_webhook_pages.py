"""The list of webhooks, one webhook, switching it off and on, its secret, deleting it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.clock import now
from webhooks.models import Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.pages import at

pytestmark = pytest.mark.once


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def test_an_empty_list_says_what_to_do_next(acme: Cast, client: Client) -> None:
    client.force_login(acme.developer)
    assert at(acme, "webhook_add") in client.get(at(acme, "webhooks")).content.decode()
    client.force_login(acme.viewer)
    page = client.get(at(acme, "webhooks")).content.decode()
    assert at(acme, "webhook_add") not in page
    assert "No webhook yet" in page


def test_the_list_takes_as_many_queries_for_many_as_for_one(
    acme: Cast, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        make_webhook(acme, name=f"hook {number}")
    with django_assert_max_num_queries(12):
        page = signed_in.get(at(acme, "webhooks")).content.decode()
    assert "hook 19" in page


def test_the_list_shows_no_strangers_and_nothing_deleted(acme: Cast, globex: Cast, signed_in: Client) -> None:
    make_webhook(globex, name="theirs")
    gone = make_webhook(acme, name="gone")
    signed_in.post(at(acme, "webhook_delete", gone.pk))
    page = signed_in.get(at(acme, "webhooks"), follow=True).content.decode()
    assert "theirs" not in page
    assert ">gone<" not in page


def test_a_webhook_shows_how_it_fares(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    for _ in range(12):
        make_delivery(acme, webhook, state="failed", last_status_code=500)
    Webhook.objects.update(failing_since=now(), consecutive_failures=3)
    page = signed_in.get(at(acme, "webhook", webhook.pk))
    assert "The last 3 attempts failed" in page.content.decode()
    assert len(page.context["deliveries"]) == 10


@pytest.mark.parametrize(
    ("verbs", "state"),
    [
        (["pause"], "paused"),
        (["pause", "resume"], "active"),
        (["disable"], "disabled"),
        (["disable", "enable"], "active"),
        (["disable", "resume"], "disabled"),
        (["disable", "pause"], "disabled"),
    ],
)
def test_a_webhook_is_switched_off_and_on(
    acme: Cast, webhook: Webhook, signed_in: Client, verbs: list[str], state: str
) -> None:
    for verb in verbs:
        answer = signed_in.post(at(acme, f"webhook_{verb}", webhook.pk), follow=True)
    assert answer.status_code == 200
    webhook.refresh_from_db()
    assert webhook.state == state
    assert [str(message) for message in answer.context["messages"]]


def test_a_rotated_secret_is_shown_once(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    old = webhook.secret
    page = signed_in.post(at(acme, "webhook_secret", webhook.pk))
    webhook.refresh_from_db()
    assert webhook.secret != old
    assert webhook.secret in page.content.decode()
    assert page["Cache-Control"] == "no-store"
    again = signed_in.get(at(acme, "webhook_secret", webhook.pk)).content.decode()
    assert webhook.secret not in again
    assert "still overlaps" in again


def test_a_second_rotation_within_the_overlap_wants_a_tick(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    address = at(acme, "webhook_secret", webhook.pk)
    assert "End the overlap now" not in signed_in.get(address).content.decode()
    signed_in.post(address)
    webhook.refresh_from_db()
    second = webhook.secret
    page = signed_in.post(address)
    assert page.status_code == 400
    assert "The secret before the present one signs until" in page.content.decode()
    assert 'name="end_overlap"' in page.content.decode()
    webhook.refresh_from_db()
    assert webhook.secret == second
    page = signed_in.post(address, {"end_overlap": "on"})
    webhook.refresh_from_db()
    assert (page.status_code, webhook.previous_secret) == (200, second)
    assert webhook.secret in page.content.decode()


def test_deleting_asks_first(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    signed_in.get(at(acme, "webhook_delete", webhook.pk))
    webhook.refresh_from_db()
    assert webhook.archived_at is None
    assert signed_in.post(at(acme, "webhook_delete", webhook.pk))["Location"] == at(acme, "webhooks")
    webhook.refresh_from_db()
    assert webhook.archived_at is not None
    assert signed_in.get(at(acme, "webhook", webhook.pk)).status_code == 404
