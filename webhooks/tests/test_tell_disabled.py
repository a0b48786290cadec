"""The other webhooks of an organisation are told that one was disabled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from conftest import Cast
from conversations.events import EVENT_TYPES
from conversations.models import Event
from core.actors import SYSTEM, Actor
from core.clock import now
from organisations.models import User
from webhooks.actions import disable_webhook, enable_webhook, pause_webhook
from webhooks.listening import body_of
from webhooks.models import Delivery, Webhook
from webhooks.payloads import local_time, render, standard
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.engine import deliver

pytestmark = pytest.mark.django_db

DISABLED = "webhookDisabled"
ADA = Actor("user", "31", "ada@example.com")


def watcher(cast: Cast, endpoint: Endpoint, **changes: Any) -> Webhook:
    """A webhook that wants to hear when another is disabled."""
    return make_webhook(cast, name="watcher", callback_url=endpoint.url, events=[DISABLED], **changes)


@pytest.mark.parametrize("reason", ["user", "staff"])
def test_a_webhook_that_subscribes_hears_that_another_was_disabled(acme: Cast, endpoint: Endpoint, reason: str) -> None:
    watcher(acme, endpoint)
    other = make_webhook(acme, name="Orders", callback_url="https://hooks.example.com/in?key=secret")
    disable_webhook(webhook=other, actor=ADA, reason=reason)
    deliver()
    event = Event.objects.get(type=DISABLED)
    (asked,) = endpoint.asked
    assert json.loads(asked.body) == {
        "type": DISABLED,
        "dateCreated": local_time(event.created_at, acme.organisation.time_zone),
        "webhookId": str(other.pk),
        "webhookName": "Orders",
        "callbackUrl": "https://hooks.example.com/in",
        "reason": reason,
    }
    assert (event.conversation_id, event.seq, event.actor_label) == (None, 0, ADA.label)


def test_the_standard_format_tells_who_did_it(acme: Cast, endpoint: Endpoint) -> None:
    watcher(acme, endpoint, format="standard")
    other = make_webhook(acme)
    disable_webhook(webhook=other, actor=ADA)
    deliver()
    body = json.loads(endpoint.asked[0].body)
    assert set(body) == {"id", "type", "timestamp", "data"}
    assert body["data"] == {
        "webhookId": str(other.pk),
        "webhookName": "orders",
        "callbackUrl": "https://hooks.example.com/in",
        "reason": "user",
        "actor": {"kind": "user", "id": "31", "name": "ada@example.com"},
    }


def test_an_endpoint_that_is_gone_is_told_to_the_others(acme: Cast, endpoint: Endpoint) -> None:
    with running_endpoint() as gone:
        gone.status = 410
        watcher(acme, endpoint)
        other = make_webhook(acme, callback_url=gone.url)
        make_delivery(acme, other)
        deliver()
        deliver()
    other.refresh_from_db()
    assert (other.state, other.state_reason) == ("disabled", "gone")
    assert [json.loads(asked.body)["reason"] for asked in endpoint.asked] == ["gone"]


def test_nothing_is_told_twice_nor_of_a_pause(acme: Cast) -> None:
    webhook = make_webhook(acme)
    pause_webhook(webhook=webhook, actor=ADA)
    assert not Event.objects.filter(type=DISABLED).exists()
    disable_webhook(webhook=webhook, actor=ADA)
    disable_webhook(webhook=webhook, actor=ADA)
    assert Event.objects.filter(type=DISABLED).count() == 1


def test_the_disabled_one_itself_and_other_organisations_hear_nothing(
    acme: Cast, globex: Cast, endpoint: Endpoint
) -> None:
    own = watcher(acme, endpoint)
    watcher(globex, endpoint)
    disable_webhook(webhook=own, actor=ADA)
    deliver()
    assert endpoint.asked == []


@pytest.mark.parametrize(("state", "kept"), [("paused", ["held"]), ("disabled", [])])
def test_a_paused_one_hears_of_it_when_it_goes_on_and_a_disabled_one_never(
    acme: Cast, endpoint: Endpoint, state: str, kept: list[str]
) -> None:
    own = watcher(acme, endpoint)
    Webhook.objects.filter(pk=own.pk).update(state=state)
    disable_webhook(webhook=make_webhook(acme), actor=ADA)
    deliver()
    assert list(Delivery.objects.filter(webhook=own).values_list("state", flat=True)) == kept
    enable_webhook(webhook=own, actor=ADA)
    deliver()
    assert len(endpoint.asked) == len(kept)


def test_the_pull_tells_it_and_the_listener_makes_the_same_body_of_it(acme: Cast, client: Client) -> None:
    disable_webhook(webhook=make_webhook(acme), actor=ADA)
    deliver()
    results = client.get("/api/v1/events", headers=acme.auth).json()["results"]
    event = Event.objects.get(type=DISABLED)
    assert results[-1] == standard(event)
    zone = acme.organisation.time_zone
    assert body_of(results[-1], "webio", zone) == render(event, "webio")


def test_it_is_chosen_in_api_and_panel(acme: Cast, client: Client) -> None:
    body = {"name": "ops", "callbackUrl": "https://hooks.example.com/ops", "events": [DISABLED]}
    answer = client.post("/api/v1/webhooks", json.dumps(body), "application/json", headers=acme.auth)
    assert answer.status_code == 201
    assert answer.json()["events"] == [DISABLED]
    client.force_login(acme.owner)
    page = client.get(reverse("integrations:webhook_add", args=[acme.organisation.slug])).content.decode()
    assert f'value="{DISABLED}"' in page


def test_enabling_begins_the_time_of_failing_anew(acme: Cast) -> None:
    webhook = make_webhook(acme)
    Webhook.objects.update(failing_since=now(), failing_told=100)
    disable_webhook(webhook=webhook, actor=SYSTEM, reason="failing")
    enable_webhook(webhook=webhook, actor=ADA)
    webhook.refresh_from_db()
    assert (webhook.failing_since, webhook.failing_told) == (None, 0)
    assert not Delivery.objects.exists()


def test_every_page_shows_an_event_without_a_conversation(
    acme: Cast, client: Client, endpoint: Endpoint, staff: User
) -> None:
    own = watcher(acme, endpoint)
    disable_webhook(webhook=make_webhook(acme), actor=ADA)
    deliver()
    delivery = Delivery.objects.get(webhook=own)
    answer = client.get(f"/api/v1/deliveries/{delivery.pk}", headers=acme.auth)
    assert (answer.status_code, answer.json()["conversationId"]) == (200, None)
    client.force_login(acme.owner)
    slug = acme.organisation.slug
    for address in (
        reverse("integrations:log", args=[slug]),
        reverse("integrations:webhook", args=[slug, own.pk]),
        reverse("integrations:delivery", args=[slug, delivery.pk]),
        reverse("integrations:event_catalogue", args=[slug]),
    ):
        page = client.get(address)
        assert (page.status_code, DISABLED in page.content.decode()) == (200, True), address
    client.force_login(staff)
    for address in (
        reverse("admin:conversations_event_changelist"),
        reverse("admin:conversations_event_change", args=[delivery.event_id]),
        reverse("admin:webhooks_delivery_change", args=[delivery.pk]),
    ):
        page = client.get(address)
        assert (page.status_code, DISABLED in page.content.decode()) == (200, True), address


def test_the_catalogue_shows_it_last() -> None:
    assert list(EVENT_TYPES)[-1] == DISABLED
