"""Requests that say who asks: Basic, Bearer, OAuth 2.0 client credentials, a client certificate."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from django.test import Client

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event
from core.actors import SYSTEM
from core.encryption import Sealed, key_id_of
from core.errors import Invalid
from core.tests.receivers import Behaviour, Received, answer, hang, in_turn, receiver
from core.trace import tracing
from organisations.actions import create_webio_token
from organisations.tests.calls import call
from webhooks import custom_values, endpoint_auth, single
from webhooks.actions import update_webhook
from webhooks.custom_values import ask
from webhooks.endpoint_auth import shown
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.payloads import render
from webhooks.testing import try_webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.engine import deliver, only, running_drain, step
from webhooks.tests.pages import at

pytestmark = pytest.mark.django_db


@pytest.fixture
def authority(settings: Any) -> Iterator[Endpoint]:
    """An authorization server's token endpoint."""
    with running_endpoint() as running:
        running.body = json.dumps({"access_token": "first-token", "expires_in": 3600}).encode()
        yield running


def say(cast: Cast, count: int = 1) -> None:
    """Inbound messages of as many contacts."""
    for number in range(count):
        conversation_actions.receive_message(channel=cast.channel, address=f"44771747{number:04}", body=str(number))


def oauth2(authority: Endpoint, **more: str) -> dict[str, str]:
    """An authentication that asks `authority`."""
    return {"type": "oauth2", "tokenUrl": authority.url, "clientId": "webio", "clientSecret": "s&cret", **more}


def test_basic_and_bearer_are_sent_with_every_request(acme: Cast, endpoint: Endpoint) -> None:
    basic = {"type": "basic", "username": "webio", "password": "pa:ss word"}
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication=basic)
    say(acme)
    deliver()
    expected = "Basic " + base64.b64encode(b"webio:pa:ss word").decode()
    assert endpoint.asked[0].headers["authorization"] == expected
    try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert endpoint.asked[1].headers["authorization"] == expected
    update_webhook(webhook=webhook, actor=SYSTEM, authentication={"type": "bearer", "token": "abc"})
    try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert endpoint.asked[2].headers["authorization"] == "Bearer abc"
    update_webhook(webhook=webhook, actor=SYSTEM, authentication=None)
    try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert "authorization" not in endpoint.asked[3].headers


@pytest.mark.parametrize("bearer", [False, True])
def test_every_header_line_is_sent_once_and_no_other(acme: Cast, settings: Any, bearer: bool) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    own = {"Accept": "text/plain", "Cookie": "a=b", "X-Key": "hush"} | ({} if bearer else {"Authorization": "Own 1"})
    create_webio_token(organisation=acme.organisation, actor=SYSTEM, secret_key="k" * 32)
    with receiver(answer()) as server:
        authentication = {"type": "bearer", "token": "abc"} if bearer else None
        make_webhook(acme, callback_url=server.url, headers=own, authentication=authentication)
        with tracing("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
            say(acme)
        deliver()
        (got,) = server.wait(1)
    ours = ["content-length", "content-type", "host", "traceparent", "user-agent", "x-webio-token"]
    signed = ["webhook-id", "webhook-signature", "webhook-timestamp"]
    assert sorted(got.names) == sorted([*ours, *signed, "accept", "authorization", "cookie", "x-key"])
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"] == "Webio/1.0 (+webhooks)"
    assert got.headers["authorization"] == ("Bearer abc" if bearer else "Own 1")
    assert (got.headers["accept"], got.headers["cookie"], got.headers["x-key"]) == ("text/plain", "a=b", "hush")
    assert got.headers["traceparent"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")


def test_secrets_are_stored_encrypted_and_not_shown(acme: Cast) -> None:
    webhook = make_webhook(acme, authentication={"type": "basic", "username": "webio", "password": "pa55w0rd"})
    assert shown(webhook) == {"type": "basic", "username": "webio"}
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT auth_settings FROM webhooks_webhook WHERE id = %s", [webhook.pk])
        assert "pa55w0rd" not in cursor.fetchone()[0]


def test_a_token_is_asked_for_once_and_used_by_all(acme: Cast, endpoint: Endpoint, authority: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority, scope="hooks write"))
    say(acme, 12)
    deliver()
    assert len(endpoint.asked) == 12
    assert {asked.headers["authorization"] for asked in endpoint.asked} == {"Bearer first-token"}
    (asked,) = authority.asked
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(b"webio:s%26cret").decode()
    assert asked.body == b"grant_type=client_credentials&scope=hooks+write"


def test_a_refused_token_is_renewed_once_within_the_attempt(
    acme: Cast, endpoint: Endpoint, authority: Endpoint
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority))
    endpoint.status = 401
    say(acme)
    deliver()
    assert len(authority.asked) == 2
    assert len(endpoint.asked) == 2
    assert (only(webhook).attempt_count, only(webhook).last_status_code) == (1, 401)
    asked = len(authority.asked)
    assert try_webhook(webhook=webhook, actor=SYSTEM, event="payment").status_code == 401
    assert len(authority.asked) > asked


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (200, b"no json"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"access_token": 5}'),
        (200, b'{"access_token": "a\\nb"}'),
        (200, b'{"access_token": "a", "expires_in": "soon"}'),
    ],
)
def test_without_a_token_the_attempt_has_failed(
    acme: Cast, endpoint: Endpoint, authority: Endpoint, status: int, body: bytes
) -> None:
    authority.status, authority.body = status, body
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority))
    say(acme)
    deliver()
    assert endpoint.asked == []
    assert (only(webhook).state, only(webhook).last_error) == ("pending", "auth")
    assert Attempt.objects.get().error_detail == "The authorization server gave no token."
    assert try_webhook(webhook=webhook, actor=SYSTEM, event="payment").error == "auth"


def test_what_waited_for_a_token_while_the_lease_ended_is_left_to_another_engine(
    acme: Cast, endpoint: Endpoint, authority: Endpoint
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority))
    say(acme)
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        assert drain.sender.parked
        # As after it was frozen for longer than the lease lasts.
        drain.serving.leases.give_up([webhook.pk])
        while drain.sender.parked:
            drain.collect(0.01)
        assert not drain.sender.under_way
        assert drain.serving.lanes[webhook.pk].in_flight == 0
    assert (endpoint.asked, only(webhook).attempt_count) == ([], 0)
    deliver()
    assert (len(endpoint.asked), only(webhook).state) == (1, "delivered")


def test_secrets_that_cannot_be_read_stop_nobody_else(
    acme: Cast, globex: Cast, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    mine, theirs = (make_webhook(cast, callback_url=f"{endpoint.url}/{cast.key}") for cast in (acme, globex))
    sealed = Webhook.objects.values_list("secret", flat=True).get(pk=mine.pk)
    # Sealed with a key that this process does not have, as on the first machine that gets a new one.
    Webhook.objects.filter(pk=mine.pk).update(secret=Sealed(sealed.replace(key_id_of(sealed), "0" * 8)))
    for cast in (acme, globex):
        say(cast, 3)
    deliver()
    assert {asked.path.rpartition("/")[2] for asked in endpoint.asked} == {globex.key}
    assert [Delivery.objects.filter(webhook=theirs, state="delivered").count(), len(endpoint.asked)] == [3, 3]
    assert Delivery.objects.filter(webhook=mine, state="pending", attempt_count=0).count() == 3
    mine = Webhook.objects.defer("secret").get(pk=mine.pk)
    assert (mine.consecutive_failures, mine.breaker_until) == (0, None)
    assert caplog.text.count("a webhook's settings cannot be read") == 1
    Webhook.objects.filter(pk=mine.pk).update(secret=Sealed(sealed))
    deliver()
    assert Delivery.objects.filter(webhook=mine, state="delivered").count() == 3


def test_a_hanging_authority_holds_up_only_its_own_webhook(acme: Cast, endpoint: Endpoint, authority: Endpoint) -> None:
    authority.delay = 1.0
    make_webhook(acme, callback_url=endpoint.url + "/slow", authentication=oauth2(authority))
    quick = make_webhook(acme, callback_url=endpoint.url + "/quick")
    say(acme, 3)
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        while Delivery.objects.filter(webhook=quick, state="delivered").count() < 3:
            drain.collect(0.05)
        assert not [asked for asked in endpoint.asked if asked.path.endswith("/slow")]
        step(drain)
    assert len(endpoint.asked) == 6


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("basic", "authentication"),
        ({}, "authentication.type"),
        ({"type": "digest"}, "authentication.type"),
        ({"type": ["basic"]}, "authentication.type"),
        ({"type": "basic", "username": "a"}, "authentication.password"),
        ({"type": "basic", "username": "a:b", "password": "c"}, "authentication.username"),
        ({"type": "bearer", "token": "a\r\nHost: evil"}, "authentication.token"),
        ({"type": "bearer", "token": "ü"}, "authentication.token"),
        ({"type": "bearer", "token": 5}, "authentication.token"),
        ({"type": "bearer", "token": "a", "more": "b"}, "authentication.more"),
        (
            {"type": "oauth2", "tokenUrl": "http://169.254.169.254/", "clientId": "a", "clientSecret": "b"},
            "authentication.tokenUrl",
        ),
        (
            {"type": "oauth2", "tokenUrl": "ftp://x.example", "clientId": "a", "clientSecret": "b"},
            "authentication.tokenUrl",
        ),
    ],
)
def test_bad_authentication_is_refused_by_field(acme: Cast, value: Any, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        make_webhook(acme, authentication=value)
    assert list(refusal.value.errors) == [field]
    assert not Webhook.objects.exists()


def test_a_header_and_an_authentication_do_not_both_say_who_asks(acme: Cast) -> None:
    with pytest.raises(Invalid):
        make_webhook(acme, headers={"Authorization": "x"}, authentication={"type": "bearer", "token": "a"})
    webhook = make_webhook(acme, authentication={"type": "bearer", "token": "a"})
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, headers={"authorization": "x"})
    assert list(refusal.value.errors) == ["headers"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"retry_delays": []}, "retryDelays"),
        ({"retry_delays": [0]}, "retryDelays"),
        ({"retry_delays": [True]}, "retryDelays"),
        ({"retry_delays": [1.5]}, "retryDelays"),
        ({"retry_delays": [172_801]}, "retryDelays"),
        ({"retry_delays": [172_800] * 4}, "retryDelays"),
        ({"retry_delays": [1] * 21}, "retryDelays"),
        ({"retry_delays": "5"}, "retryDelays"),
        ({"rate_limit": {"limit": 0, "per": "second"}}, "rateLimit.limit"),
        ({"rate_limit": {"limit": True, "per": "second"}}, "rateLimit.limit"),
        ({"rate_limit": {"limit": 5, "per": "hour"}}, "rateLimit.per"),
        ({"rate_limit": {"limit": 5, "per": []}}, "rateLimit.per"),
        ({"rate_limit": {"limit": 5}}, "rateLimit"),
        ({"rate_limit": 5}, "rateLimit"),
        ({"client_certificate": "no pem"}, "clientCertificate"),
        ({"client_certificate": 5}, "clientCertificate"),
    ],
)
def test_bad_settings_are_refused_by_field(acme: Cast, changes: dict[str, Any], field: str) -> None:
    webhook = make_webhook(acme)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, **changes)
    assert list(refusal.value.errors) == [field]
    webhook.refresh_from_db()
    assert (webhook.retry_delays, webhook.rate_limit, webhook.client_certificate) == (None, None, "")


def test_a_webhooks_own_schedule_decides_how_often_and_when(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url, retry_delays=[100])
    say(acme)
    deliver()
    first = only(webhook)
    waited = (first.next_attempt_at - Attempt.objects.get().attempted_at).total_seconds()  # type: ignore[operator]
    assert 89 <= waited <= 112
    deliver(first.next_attempt_at)
    assert (only(webhook).state, only(webhook).attempt_count) == ("failed", 2)


def test_a_body_that_is_too_large_fails_without_blaming_the_endpoint(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from webhooks.engine import outgoing

    webhook = make_webhook(acme, callback_url=endpoint.url)
    monkeypatch.setattr(outgoing, "BODY_MAX", 50)
    say(acme)
    deliver()
    webhook.refresh_from_db()
    assert endpoint.asked == []
    assert (only(webhook).state, only(webhook).last_error) == ("failed", "body_too_large")
    assert webhook.consecutive_failures == 0


@pytest.mark.parametrize(
    ("size", "arrived", "ended"), [(262_144, [262_144], ("delivered", "")), (262_145, [], ("failed", "body_too_large"))]
)
def test_a_body_of_256_kib_is_sent_and_one_byte_more_is_not(
    acme: Cast, endpoint: Endpoint, size: int, arrived: list[int], ended: tuple[str, str]
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme)
    event = Event.objects.latest("id")
    event.data["facts"]["body"] += "x" * (size - len(render(event, webhook.format)))
    Event.objects.filter(pk=event.pk).update(data=event.data)
    deliver()
    assert [len(asked.body) for asked in endpoint.asked] == arrived
    assert (only(webhook).state, only(webhook).last_error) == ended


def test_a_broken_proxy_of_ours_uses_up_no_attempt(acme: Cast, endpoint: Endpoint, settings: Any) -> None:
    webhook = make_webhook(acme, callback_url="http://hooks.example.com/in")
    settings.OUTBOUND_PROXY = "http://127.0.0.1:9"
    say(acme)
    deliver()
    delivery = only(webhook)
    webhook.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, webhook.consecutive_failures) == ("pending", 0, 0)
    assert not Attempt.objects.exists()


def test_nor_does_a_token_that_we_cannot_ask_for(acme: Cast, settings: Any) -> None:
    asks = {"type": "oauth2", "tokenUrl": "http://auth.example.com/token", "clientId": "webio", "clientSecret": "s"}
    webhook = make_webhook(acme, callback_url="http://hooks.example.com/in", authentication=asks)
    settings.OUTBOUND_PROXY = "http://127.0.0.1:9"
    say(acme, 2)
    deliver()
    webhook.refresh_from_db()
    assert webhook.consecutive_failures == 0
    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("pending", 0)}
    assert not Attempt.objects.exists()


def test_certificates_that_we_cannot_read_use_up_no_attempt(acme: Cast, endpoint: Endpoint, settings: Any) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url.replace("http:", "https:"))
    settings.OUTBOUND_CA_FILE = "/nowhere/ca.pem"
    say(acme)
    deliver()
    delivery = only(webhook)
    webhook.refresh_from_db()
    assert (delivery.state, delivery.attempt_count, webhook.consecutive_failures) == ("pending", 0, 0)
    assert not Attempt.objects.exists()


class Hello(BaseHTTPRequestHandler):
    """Answers with the name in the client's certificate."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        connection: Any = self.connection
        names = [value for entry in connection.getpeercert()["subjectAltName"] for value in entry[1:]]
        body = names[0].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def certified(settings: Any, tmp_path: Path) -> Iterator[tuple[str, trustme.CA]]:
    """The URL of a server that asks for client certificates, and who signs them."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    pem = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(pem)
    settings.OUTBOUND_CA_FILE = str(pem)
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}/", authority
    server.shutdown()
    server.server_close()


def pem_of(authority: trustme.CA, name: str) -> str:
    """A certificate for `name` with its key."""
    return authority.issue_cert(name).private_key_and_cert_chain_pem.bytes().decode()


def test_a_client_certificate_is_shown_to_the_endpoint_and_each_webhook_has_its_own(
    acme: Cast, certified: tuple[str, trustme.CA]
) -> None:
    url, authority = certified
    webhooks = {
        name: make_webhook(acme, callback_url=url, client_certificate=pem_of(authority, name))
        for name in ("one.example", "two.example")
    }
    bare = make_webhook(acme, callback_url=url)
    say(acme, 3)
    deliver()
    for name, webhook in webhooks.items():
        told = Attempt.objects.filter(delivery__webhook=webhook).values_list("response_body", flat=True)
        assert list(told) == [name] * 3
        assert try_webhook(webhook=webhook, actor=SYSTEM, event="payment").response_body == name
    errors = set(Delivery.objects.filter(webhook=bare).values_list("state", "last_status_code"))
    assert errors == {("pending", None)}


def test_a_token_is_used_until_shortly_before_it_ends(
    acme: Cast, endpoint: Endpoint, authority: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority))
    clock = Clock()
    monkeypatch.setattr(endpoint_auth, "time", clock)
    with running_drain() as drain:
        for passed, asked in ((0, 1), (3600 - endpoint_auth.TOKEN_MARGIN - 1, 1), (2, 2), (1800, 2)):
            clock.passed += passed
            say(acme)
            step(drain)
            assert len(authority.asked) == asked
    assert len(endpoint.asked) == 4


@pytest.mark.parametrize(("said", "lasts"), [({}, 270), ({"expires_in": 10}, 1), ({"expires_in": 1e9}, 3600)])
def test_a_token_lasts_as_long_as_it_says_within_bounds(
    acme: Cast,
    endpoint: Endpoint,
    authority: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Any],
    lasts: int,
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, authentication=oauth2(authority))
    clock = Clock()
    monkeypatch.setattr(endpoint_auth, "time", clock)
    monkeypatch.setattr(single, "_tokens", endpoint_auth.Tokens())
    authority.body = json.dumps({"access_token": "t", **said}).encode()
    for passed, asked in ((0, 1), (lasts - 0.5, 1), (1, 2)):
        clock.passed += passed
        try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
        assert endpoint.asked[-1].headers["authorization"] == "Bearer t"
        assert len(authority.asked) == asked


class Clock:
    """Stands for `time` in `webhooks.endpoint_auth`, so that hours pass at once."""

    passed = 0.0

    def monotonic(self) -> float:
        return self.passed


def test_a_token_taken_back_before_its_time_is_renewed_and_the_event_delivered(acme: Cast, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]

    def wants_the_second(connection: socket.socket, request: Received) -> bool:
        good = request.headers["authorization"] == "Bearer second"
        return answer(200 if good else 401)(connection, request)

    def token(name: str) -> Behaviour:
        return answer(200, json.dumps({"access_token": name, "expires_in": 3600}).encode())

    with receiver(in_turn(token("first"), token("second"))) as authority, receiver(wants_the_second) as server:
        asks = {"type": "oauth2", "tokenUrl": authority.url, "clientId": "webio", "clientSecret": "s3cr3t"}
        webhook = make_webhook(acme, callback_url=server.url, authentication=asks)
        say(acme)
        with running_drain() as drain:
            step(drain)
            assert [asked.headers["authorization"] for asked in server.requests] == ["Bearer first", "Bearer second"]
            say(acme)
            step(drain)
        assert len(server.requests) == 3
        assert len(authority.requests) == 2
    assert set(webhook.deliveries.values_list("state", "attempt_count")) == {("delivered", 1)}


def test_an_authority_that_never_answers_is_a_failed_attempt_and_holds_up_nobody_else(
    acme: Cast, globex: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_auth, "TOKEN_DEADLINE", 1.0)
    with receiver(hang) as authority:
        asks = {"type": "oauth2", "tokenUrl": authority.url, "clientId": "webio", "clientSecret": "s3cr3t"}
        slow = make_webhook(acme, callback_url=f"{endpoint.url}/slow", authentication=asks, custom_values=True)
        quick = [make_webhook(cast, callback_url=f"{endpoint.url}/quick") for cast in (acme, globex)]
        for cast in (acme, globex):
            say(cast, 3)
        with running_drain() as drain:
            while Delivery.objects.filter(webhook__in=quick, state="delivered").count() < 6:
                drain.look()
                drain.sender.start()
                drain.collect(0.05)
            step(drain)
        assert set(slow.deliveries.values_list("state", "attempt_count", "last_error")) == {("pending", 1, "auth")}
        # However many waited, one request asked.
        assert len(authority.requests) == 1
        assert try_webhook(webhook=slow, actor=SYSTEM, event="payment").error == "auth"
        assert ask(slow, fields=["balance"]).outcome.error == "auth"
    assert not [asked for asked in endpoint.asked if asked.path.endswith("/slow")]


@pytest.mark.parametrize("known", [False, True])
def test_a_custom_value_request_with_its_tokens_keeps_to_its_deadline(
    acme: Cast, endpoint: Endpoint, authority: Endpoint, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    webhook = make_webhook(
        acme, callback_url=endpoint.url, authentication=oauth2(authority), events=[], custom_values=True
    )
    if known:
        ask(webhook, fields=["balance"])
        endpoint.status, endpoint.delay = 401, 0.7
    monkeypatch.setattr(custom_values, "DEADLINE", 1.0)
    authority.delay = 3.0
    began = time.monotonic()
    assert ask(webhook, fields=["balance"]).outcome.error == "auth"
    assert 1.0 <= time.monotonic() - began < 2.0
    assert len(authority.asked) == 1 + known


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("expired", "The certificate has expired."),
        ("encrypted", "in PEM, not encrypted"),
        ("mismatched", "The key does not belong to the certificate."),
        ("without key", "Must contain the certificate's private key"),
        ("without certificate", "Must contain a certificate in PEM."),
        ("broken", "Must contain a certificate in PEM."),
        ("too long", "at most 32768 bytes"),
    ],
)
def test_a_client_certificate_that_cannot_work_is_refused_everywhere(
    acme: Cast, client: Client, kind: str, told: str
) -> None:
    pem = bad_certificate(kind)
    webhook = make_webhook(acme)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, client_certificate=pem)
    assert told in refusal.value.errors["clientCertificate"][0]
    answer = call(client, acme, "PATCH", f"webhooks/{webhook.pk}", {"clientCertificate": pem})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["clientCertificate"])
    client.force_login(acme.developer)
    form = {"name": "x", "callback_url": webhook.callback_url, "events": ["payment"]}
    page = client.post(
        at(acme, "webhook_edit", webhook.pk),
        {**form, "format": "webio", "ordering": "first", "client_certificate": pem},
    )
    assert page.status_code == 400
    assert told in page.context["form"].errors["client_certificate"][0]
    webhook.refresh_from_db()
    assert webhook.client_certificate == ""


def bad_certificate(kind: str) -> str:
    """PEM text with a certificate and a key, and one thing wrong."""
    authority = trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = {"not_before": yesterday - timedelta(days=9), "not_after": yesterday} if kind == "expired" else {}
    one, two = authority.issue_cert("one.example", **expired), authority.issue_cert("two.example")
    certificate, key = one.cert_chain_pems[0].bytes().decode(), one.private_key_pem.bytes().decode()
    if kind == "encrypted":
        plain = load_pem_private_key(key.encode(), None)
        key = plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()
    other = two.private_key_pem.bytes().decode()
    return {
        "expired": certificate + key,
        "encrypted": certificate + key,
        "mismatched": certificate + other,
        "without key": certificate,
        "without certificate": key,
        "broken": certificate.replace("MII", "!!!") + key,
        "too long": certificate * 100 + key,
    }[kind]


@pytest.mark.parametrize("how", ["expired", "signed by somebody else"])
def test_a_certificate_that_the_endpoint_does_not_take_is_a_failed_attempt(
    acme: Cast, certified: tuple[str, trustme.CA], how: str
) -> None:
    """It was good when it was saved."""
    url, authority = certified
    webhook = make_webhook(acme, callback_url=url)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = {"not_before": yesterday - timedelta(days=9), "not_after": yesterday} if how == "expired" else {}
    issuer = authority if how == "expired" else trustme.CA()
    shown = issuer.issue_cert("one.example", **expired)
    webhook.client_certificate = shown.private_key_and_cert_chain_pem.bytes().decode()
    webhook.save(update_fields=["client_certificate"])
    say(acme)
    deliver()
    assert (only(webhook).state, only(webhook).attempt_count, only(webhook).last_status_code) == ("pending", 1, None)
    assert only(webhook).last_error in ("tls", "reset")
    assert try_webhook(webhook=webhook, actor=SYSTEM, event="payment").error in ("tls", "reset")
