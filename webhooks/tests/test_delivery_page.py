"""One delivery: its attempts, its request without secrets, and sending it again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.models import Event
from core.actors import SYSTEM
from core.outbound import Request, fetch
from core.tests.receivers import answer, receiver
from organisations.models import WebioToken
from testing import services
from webhooks.actions import archive_webhook, pause_webhook
from webhooks.models import Delivery, Webhook
from webhooks.panel.curl import as_curl
from webhooks.payloads import render
from webhooks.tests.conftest import make_attempt, make_delivery, make_webhook
from webhooks.tests.pages import at

pytestmark = pytest.mark.once


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def test_the_attempts_are_told_in_order(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook, state="delivered", attempt_count=2)
    make_attempt(delivery, 2, status_code=200, response_headers=[["x-a", "b"]], response_body="<b>fine</b>")
    make_attempt(delivery, 1, error="timeout", error_detail="There was no complete answer in time.")
    page = signed_in.get(at(acme, "delivery", delivery.pk)).content.decode()
    assert page.index("Attempt 1") < page.index("Attempt 2")
    assert "There was no complete answer in time." in page
    assert "&lt;b&gt;fine&lt;/b&gt;" in page
    assert "<b>fine" not in page
    assert page.count("after the one before") == 1
    phases = ["DNS 1 ms", "connect 1 ms", "wait for the first byte 9 ms", "rest of the answer 1 ms"]
    assert re.findall(r"<span>([^<]+ ms)</span>", page) == phases * 2
    assert page.index("attempt-bad") < page.index("Attempt 1") < page.index("attempt-ok") < page.index("Attempt 2")
    assert '<span class="badge badge-ok">200</span>' in page


def test_the_request_is_shown_as_it_is_sent_without_its_secrets(acme: Cast, signed_in: Client) -> None:
    WebioToken.objects.create(organisation=acme.organisation, token="eyJhbGciOi.eyJpc3Mi.c2ln")
    webhook = make_webhook(acme, headers={"X-Key": "hush"})
    delivery = make_delivery(acme, webhook)
    page = signed_in.get(at(acme, "delivery", delivery.pk))
    sent = page.context["sent"]
    assert sent.body == render(delivery.event, "webio").decode()
    assert json.loads(sent.pretty) == json.loads(sent.body)
    shown = dict(sent.headers)
    assert shown["webhook-id"] == f"msg_{delivery.event_id}_{webhook.pk}"
    assert shown["content-type"] == "application/json"
    assert shown["X-Key"] == shown["x-webio-token"] == shown["webhook-signature"] == "…"
    for secret in ("hush", "eyJhbGciOi", webhook.secret, "v1,"):
        assert secret not in page.content.decode()
        assert secret not in page.context["curl"]


def test_curl_survives_quotes() -> None:
    line = as_curl("POST", "https://a.example/?a=b'c", [("x-a", "it's")], '{"body": "don\'t; $(rm)"}')
    assert shlex.split(line.replace("\\\n", " ")) == [
        "curl",
        "--request",
        "POST",
        "https://a.example/?a=b'c",
        "--header",
        "x-a: it's",
        "--data-raw",
        '{"body": "don\'t; $(rm)"}',
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b", "https://a.example/b"),
        ("https://a.example/b?", "https://a.example/b?"),
        ("https://a.example/ü?key=hush", "https://a.example/%C3%BC?…"),
        ("https://a.example/?a=?hush", "https://a.example/?…"),
    ],
)
def test_curl_hides_a_query_where_nobody_may_see_it(url: str, shown: str) -> None:
    line = as_curl("GET", url, [], "", query=False)
    assert shlex.split(line) == ["curl", "--request", "GET", shown]
    assert "hush" in as_curl("GET", url, [], "") or "hush" not in url


@pytest.mark.parametrize(
    ("authentication", "line"),
    [
        ({"type": "basic", "username": "hush-user", "password": "hush"}, "Basic …"),
        ({"type": "bearer", "token": "hush"}, "Bearer …"),
        (
            {"type": "oauth2", "tokenUrl": "https://a.example/", "clientId": "hush-id", "clientSecret": "hush"},
            "Bearer …",
        ),
        (None, None),
    ],
)
def test_who_asks_is_shown_masked_and_left_to_fill_in(
    acme: Cast, signed_in: Client, authentication: dict[str, str] | None, line: str | None
) -> None:
    webhook = make_webhook(acme, authentication=authentication)
    delivery = make_delivery(acme, webhook)
    page = signed_in.get(at(acme, "delivery", delivery.pk))
    text = page.content.decode()
    assert dict(page.context["sent"].headers).get("authorization") == line
    assert ("authorization: Bearer …" in page.context["curl"]) == (line == "Bearer …")
    assert ("authorization" in text) == (line is not None)
    assert "in the place of each …" in text
    assert "hush" not in text + page.context["curl"]
    assert "client certificate" not in text + page.context["curl"]


def test_a_client_certificate_is_told_and_left_to_fill_in(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    webhook.client_certificate = "hush"
    webhook.save(update_fields=["client_certificate"])
    page = signed_in.get(at(acme, "delivery", make_delivery(acme, webhook).pk))
    text = page.content.decode()
    assert "Sent with the webhook's client certificate." in text
    assert "  --cert … \\\n" in page.context["curl"]
    assert "hush" not in text


def test_the_trace_is_shown(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook)
    headers = dict(signed_in.get(at(acme, "delivery", delivery.pk)).context["sent"].headers)
    assert "traceparent" not in headers
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    Event.objects.filter(pk=delivery.event_id).update(data={**delivery.event.data, "trace": f"{trace}-01"})
    headers = dict(signed_in.get(at(acme, "delivery", delivery.pk)).context["sent"].headers)
    assert re.fullmatch(rf"00-{trace}-[0-9a-f]{{16}}-01", headers["traceparent"])


def test_after_an_attempt_it_says_that_the_request_is_of_now(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    told = "present ones: an attempt may have had others."
    assert told not in signed_in.get(at(acme, "delivery", make_delivery(acme, webhook).pk)).content.decode()
    tried = make_delivery(acme, webhook, attempt_count=1)
    assert told in signed_in.get(at(acme, "delivery", tried.pk)).content.decode()


@pytest.mark.parametrize(
    "end",
    [
        *("", "?b=[x]", "?b={a,b}&c=[1-3]", "/a/../b", "/./a?b={c}", "/..", "/%2E%2E/a", "/.well-known/a..b"),
        *("/größe?ä=ü", "?a='b'&c=\"d\"&e=$(f)!"),
    ],
)
def test_curl_asks_as_we_do(settings: Any, end: str) -> None:
    services.need(shutil.which("curl"), "curl")
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    body = '{"body": "Größe \'a\' $(b) @c"}'
    with receiver(answer()) as server:
        assert fetch(Request("POST", server.url + end, ["x-a: it's"], body.encode())).ok
        line = as_curl("POST", server.url + end, [("x-a", "it's")], body)
        subprocess.run(line, shell=True, check=True, capture_output=True, timeout=20)
        ours, curls = server.wait(2)
    assert (curls.method, curls.target, curls.body) == (ours.method, ours.target, ours.body)
    assert curls.headers["x-a"] == ours.headers["x-a"]


def test_a_resend_opens_the_new_delivery(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook, state="failed")
    answer = signed_in.post(at(acme, "delivery_resend", delivery.pk))
    again = Delivery.objects.exclude(pk=delivery.pk).get()
    assert answer["Location"] == at(acme, "delivery", again.pk)
    assert at(acme, "delivery", delivery.pk) in signed_in.get(answer["Location"]).content.decode()


def test_a_paused_webhook_takes_no_resend_and_says_so(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook, state="failed")
    pause_webhook(webhook=webhook, actor=SYSTEM)
    answer = signed_in.post(at(acme, "delivery_resend", delivery.pk), follow=True)
    assert "The webhook is paused." in answer.content.decode()
    assert Delivery.objects.count() == 1


def test_the_history_of_a_deleted_webhook_stays_readable(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    delivery = make_delivery(acme, webhook, state="delivered")
    archive_webhook(webhook=webhook, actor=SYSTEM)
    page = signed_in.get(at(acme, "delivery", delivery.pk))
    assert page.status_code == 200
    assert at(acme, "delivery_resend", delivery.pk) not in page.content.decode()


def test_a_page_with_many_attempts_takes_few_queries(
    acme: Cast, webhook: Webhook, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    delivery = make_delivery(acme, webhook, state="failed", attempt_count=10)
    for number in range(1, 11):
        make_attempt(delivery, number, status_code=500)
    for _ in range(5):
        make_delivery(acme, webhook)
    with django_assert_max_num_queries(14):
        signed_in.get(at(acme, "delivery", delivery.pk))
