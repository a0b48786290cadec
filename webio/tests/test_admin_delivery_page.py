"""A delivery's page in the admin: its attempts, what it waits for, and its request without anything secret."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from conftest import Cast, make_user
from core.actors import SYSTEM
from core.clock import now
from core.encryption import Sealed, key_id_of
from organisations.models import Organisation, User, WebioToken
from webhooks.actions import pause_webhook
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_attempt, make_delivery, make_webhook

pytestmark = pytest.mark.once


@pytest.fixture
def staff_client(staff: User, client: Client) -> Client:
    client.force_login(staff)
    return client


def attempted(delivery: Delivery, number: int, **values: Any) -> None:
    timings = {"dns": 1, "connect": 2, "tls": 4, "firstByte": 11, "total": 12}
    make_attempt(delivery, number, attempted_at=now() + timedelta(seconds=5 * number), timings=timings, **values)


def address(delivery: Delivery) -> str:
    return reverse("admin:webhooks_delivery_change", args=[delivery.pk])


def text_of(client: Client, delivery: Delivery) -> str:
    answer = client.get(address(delivery))
    assert answer.status_code == 200
    return answer.content.decode()


def test_staff_see_attempts_and_request_of_every_organisations_deliveries(
    acme: Cast, globex: Cast, staff_client: Client
) -> None:
    for cast in (acme, globex):
        delivery = make_delivery(cast, make_webhook(cast), state="delivered", attempt_count=2)
        attempted(delivery, 1, error="timeout", error_detail="There was no complete answer in time.")
        attempted(
            delivery, 2, status_code=200, response_headers=[["x-of", cast.organisation.slug]], response_body="<b>ok</b>"
        )
        page = text_of(staff_client, delivery)
        assert page.index("Attempt 1") < page.index("There was no complete answer in time.") < page.index("Attempt 2")
        phases = ["DNS 1 ms", "connect 1 ms", "TLS 2 ms", "wait for the first byte 7 ms", "rest of the answer 1 ms"]
        assert re.findall(r"<span>([^<]+ ms)</span>", page) == phases * 2
        assert "5 s after the one before" in page
        assert f"<dt>x-of</dt><dd>{cast.organisation.slug}</dd>" in page
        assert "&lt;b&gt;ok&lt;/b&gt;" in page
        assert "<b>ok" not in page
        assert "curl --request POST https://hooks.example.com/in" in page
        assert f"Hello {cast.organisation.slug}" in page
        assert " style=" not in page


def test_staff_see_no_secret(acme: Cast, staff_client: Client) -> None:
    WebioToken.objects.create(organisation=acme.organisation, token="eyJhbGciOi.eyJpc3Mi.c2ln")
    webhook = make_webhook(
        acme,
        callback_url="https://hooks.example.com/größe?key=hush",
        headers={"X-Key": "hush"},
        authentication={"type": "basic", "username": "hush", "password": "hush"},
    )
    webhook.client_certificate = "hush"
    webhook.save(update_fields=["client_certificate"])
    page = staff_client.get(address(make_delivery(acme, webhook)))
    text = page.content.decode()
    shown = dict(page.context["sent"].headers)
    assert shown["X-Key"] == shown["x-webio-token"] == shown["webhook-signature"] == "…"
    assert shown["authorization"] == "Basic …"
    assert "--cert …" in page.context["curl"]
    assert page.context["curl"].startswith("curl --request POST 'https://hooks.example.com/gr%C3%B6%C3%9Fe?…'")
    assert "POST https://hooks.example.com/größe?…</p>" in text
    for secret in ("hush", "eyJhbGciOi", webhook.secret, "v1,"):
        assert secret not in text


def test_secrets_that_cannot_be_opened_leave_the_rest_of_the_page(acme: Cast, staff_client: Client) -> None:
    webhook = make_webhook(acme)
    sealed = Webhook.objects.values_list("secret", flat=True).get(pk=webhook.pk)
    Webhook.objects.filter(pk=webhook.pk).update(secret=Sealed(sealed.replace(key_id_of(sealed), "0" * 8)))
    delivery = make_delivery(acme, webhook, state="delivered", attempt_count=1)
    attempted(delivery, 1, status_code=200)
    for client, url in (
        (staff_client, address(delivery)),
        (Client(), reverse("integrations:delivery", args=[acme.organisation.slug, delivery.pk])),
    ):
        if client is not staff_client:
            client.force_login(acme.owner)
        page = client.get(url)
        assert (page.status_code, page.context["sent"]) == (200, None)
        assert "Attempt 1" in page.content.decode()
        assert "secrets cannot be read" in page.content.decode()


def test_what_a_delivery_waits_for_links_to_pages_of_the_admin(acme: Cast, staff_client: Client) -> None:
    webhook = make_webhook(acme)
    first = make_delivery(acme, webhook, blocks=True)
    later = make_delivery(acme, webhook)
    Delivery.objects.filter(pk=later.pk).update(kind="event", seq=first.seq + 1)
    page = text_of(staff_client, later)
    assert f'<a href="{address(first)}">inboundMessage #{first.pk}</a>' in page
    pause_webhook(webhook=webhook, actor=SYSTEM)
    hook = reverse("admin:webhooks_webhook_change", args=[webhook.pk])
    assert f'<a href="{hook}">orders</a> is paused' in text_of(staff_client, first)
    Organisation.objects.filter(pk=acme.organisation.pk).update(suspended_at=now())
    assert "organisation is suspended" in text_of(staff_client, first)


def test_the_rights_to_see_attempts_and_events_are_asked_for(acme: Cast, client: Client) -> None:
    delivery = make_delivery(acme, make_webhook(acme), state="failed", attempt_count=1)
    attempted(delivery, 1, status_code=500, response_body="no thanks")
    helper = make_user("helper@webio.example", is_staff=True)
    client.force_login(helper)
    assert client.get(address(delivery)).status_code == 403
    seen = []
    for codename in ("view_delivery", "view_attempt", "view_event"):
        helper.user_permissions.add(Permission.objects.get(codename=codename))
        page = text_of(client, delivery)
        seen.append(("no thanks" in page, "Hello acme" in page, "curl" in page))
    assert seen == [(False, False, False), (True, False, False), (True, True, True)]


def test_nobody_else_gets_there(acme: Cast, globex: Cast, client: Client) -> None:
    delivery = make_delivery(acme, make_webhook(acme))
    assert client.get(address(delivery)).status_code == 302
    for user in (acme.owner, globex.owner):
        client.force_login(user)
        answer = client.get(address(delivery))
        assert answer.status_code == 302
        assert "login" in answer["Location"]


def test_it_is_only_looked_at(acme: Cast, staff_client: Client) -> None:
    delivery = make_delivery(acme, make_webhook(acme))
    assert 'name="_save"' not in text_of(staff_client, delivery)
    assert staff_client.post(address(delivery), {"state": "delivered"}).status_code == 403
    delivery.refresh_from_db()
    assert delivery.state == "pending"


def test_many_attempts_take_no_more_queries(
    acme: Cast, staff_client: Client, django_assert_max_num_queries: Any
) -> None:
    delivery = make_delivery(acme, make_webhook(acme), attempt_count=10)
    for number in range(1, 11):
        attempted(delivery, number, status_code=500)
    with django_assert_max_num_queries(14):
        page = text_of(staff_client, delivery)
    assert page.count('class="attempt-head"') == 10
