"""A test sends a real request at once and tells the truth about what came back."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from django.db import connection
from standardwebhooks import Webhook as Verifier

from conftest import Cast
from conversations.events import EVENT_TYPES
from core.actors import SYSTEM
from core.errors import Conflict, Invalid
from core.outbound import Outcome, Request
from core.signing import verify
from organisations.models import AuditEntry
from webhooks import single, testing
from webhooks.actions import archive_webhook, disable_webhook
from webhooks.models import Delivery, Webhook
from webhooks.testing import try_webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint


def attempt(cast: Cast, endpoint: Endpoint, event: str = "inboundMessage", **settings: Any) -> testing.Result:
    webhook = make_webhook(cast, callback_url=endpoint.url, **settings)
    return try_webhook(webhook=webhook, actor=SYSTEM, event=event)


@pytest.mark.parametrize("name", list(EVENT_TYPES))
@pytest.mark.parametrize("format", ["webio", "standard"])
def test_every_event_is_sent_signed_and_marked_as_a_test(
    acme: Cast, endpoint: Endpoint, name: str, format: str
) -> None:
    endpoint.headers = {"X-Seen": "yes"}
    webhook = make_webhook(acme, callback_url=endpoint.url, format=format, headers={"X-Key": "hush"})
    result = try_webhook(webhook=webhook, actor=SYSTEM, event=name)
    [asked] = endpoint.asked
    assert asked.method == "POST"
    assert asked.headers["x-webio-test"] == "true"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["x-key"] == "hush"
    Verifier(webhook.secret).verify(asked.body, asked.headers)
    body = json.loads(asked.body)
    assert body["type"] == (EVENT_TYPES[name].wire_type if format == "webio" else name)
    assert (result.status_code, result.error, result.accepted) == (200, "", True)
    assert result.response_body == "ok"
    assert ("x-seen", "yes") in result.response_headers
    assert result.request_body == asked.body.decode()
    assert 0 <= result.duration_ms < 5000


def test_nothing_is_logged_as_a_delivery_but_the_test_is_audited(acme: Cast, endpoint: Endpoint) -> None:
    attempt(acme, endpoint)
    assert not Delivery.objects.exists()
    assert AuditEntry.objects.get(action="webhook.test").data == {
        "event": "inboundMessage",
        "statusCode": 200,
        "error": "",
    }


@pytest.mark.parametrize("status", [301, 400, 404, 410, 500])
def test_an_answer_outside_2xx_is_shown_and_not_accepted(acme: Cast, endpoint: Endpoint, status: int) -> None:
    endpoint.status, endpoint.body = status, b"no <b>thanks</b>"
    endpoint.headers = {"Location": "/elsewhere"}
    result = attempt(acme, endpoint)
    assert (result.status_code, result.error, result.accepted) == (status, "", False)
    assert result.response_body == "no <b>thanks</b>"
    assert len(endpoint.asked) == 1


def test_a_test_never_changes_the_webhook(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 410
    webhook = make_webhook(acme, callback_url=endpoint.url)
    try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    webhook.refresh_from_db()
    assert (webhook.state, webhook.consecutive_failures) == ("active", 0)


def test_a_closed_port_is_a_failed_connection(acme: Cast, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    webhook = make_webhook(acme, callback_url=f"http://127.0.0.1:{port}/")
    result = try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert (result.status_code, result.error, result.accepted) == (None, "connect", False)
    assert result.error_detail


def test_an_address_that_may_not_be_dialled_is_refused_by_name(acme: Cast, endpoint: Endpoint, settings: Any) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    result = try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert (result.status_code, result.error) == (None, "refused_address")
    assert endpoint.asked == []


def test_a_name_that_does_not_resolve_is_a_dns_failure(acme: Cast) -> None:
    webhook = make_webhook(acme, callback_url="https://nowhere.invalid/")
    result = try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert (result.status_code, result.error) == (None, "dns")


def test_an_endpoint_that_takes_too_long_is_given_up(acme: Cast, endpoint: Endpoint, monkeypatch: Any) -> None:
    monkeypatch.setattr(testing, "DEADLINE", 0.3)
    endpoint.delay = 2
    result = attempt(acme, endpoint)
    assert (result.error, result.accepted) == ("timeout", False)
    assert result.duration_ms < 1500


def test_a_disabled_webhook_can_be_tested(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    disable_webhook(webhook=webhook, actor=SYSTEM)
    assert try_webhook(webhook=webhook, actor=SYSTEM, event="payment").accepted


@pytest.mark.parametrize("event", ["nothing", "", "messageStatusUpdate", "conversationStarted"])
def test_an_unknown_event_is_refused(acme: Cast, endpoint: Endpoint, event: str) -> None:
    with pytest.raises(Invalid) as refusal:
        attempt(acme, endpoint, event)
    assert list(refusal.value.errors) == ["event"]
    assert endpoint.asked == []


def test_a_deleted_webhook_is_not_tested(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    archive_webhook(webhook=webhook, actor=SYSTEM)
    with pytest.raises(Conflict):
        try_webhook(webhook=webhook, actor=SYSTEM, event="payment")
    assert endpoint.asked == []


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_the_request_is_under_way(
    acme: Cast, endpoint: Endpoint, monkeypatch: Any
) -> None:
    seen = []
    fetch = single.fetch
    monkeypatch.setattr(single, "fetch", lambda request: (seen.append(connection.in_atomic_block), fetch(request))[1])
    attempt(acme, endpoint)
    assert seen == [False]


class TestCustomValues:
    """A custom value request of the test."""

    def ask(self, cast: Cast, endpoint: Endpoint, *fields: str, **more: Any) -> testing.Result:
        webhook = make_webhook(cast, callback_url=endpoint.url + "?key=1", events=[], custom_values=True)
        return try_webhook(webhook=webhook, actor=SYSTEM, event="customValue", fields=list(fields), **more)

    def test_all_fields_are_asked_in_one_signed_get(self, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.body = b'{"balance": 150.50, "due date": null}'
        result = self.ask(acme, endpoint, "balance", "due date", "balance", customer_uid="C 1", address="447717472695")
        [asked] = endpoint.asked
        assert asked.method == "GET"
        assert asked.path == (
            "/hook?key=1&customerUID=C%201&outboundChannelAddress=447717472695&param1=balance&param2=due%20date"
        )
        assert asked.headers["x-webio-test"] == "true"
        assert asked.body == b""
        webhook = acme.organisation.webhooks.get()
        assert verify([webhook.secret], asked.headers, b"").valid
        assert result.values == {"balance": "150.50"}
        assert result.missing == ("due date",)
        assert result.request_url == endpoint.url.replace("/hook", asked.path)

    def test_a_dropped_connection_is_tried_once_more(self, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.drops, endpoint.body = 1, b'{"a": "1"}'
        assert self.ask(acme, endpoint, "a").values == {"a": "1"}
        assert len(endpoint.asked) == 2
        assert endpoint.asked[0].headers["webhook-id"] == endpoint.asked[1].headers["webhook-id"]

    def test_there_is_no_storm_of_retries(self, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.drops = 9
        result = self.ask(acme, endpoint, "a")
        assert (result.error, result.missing) == ("reset", ("a",))
        assert len(endpoint.asked) == 2

    def test_a_refusal_is_not_retried_and_gives_no_values(self, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.status, endpoint.body = 500, b'{"a": "1"}'
        result = self.ask(acme, endpoint, "a")
        assert (result.status_code, result.values, result.missing) == (500, {}, ("a",))
        assert "500" in result.problem
        assert len(endpoint.asked) == 1

    def test_an_answer_too_long_to_keep_gives_no_values(self, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.body = json.dumps({"a": "x" * 20_000}).encode()
        result = self.ask(acme, endpoint, "a")
        assert (result.values, result.missing) == ({}, ("a",))
        assert result.problem

    def test_the_deadline_covers_both_tries(self, acme: Cast, endpoint: Endpoint, monkeypatch: Any) -> None:
        monkeypatch.setattr(testing.custom_values, "DEADLINE", 1.0)
        endpoint.drops, endpoint.delay = 1, 3
        deadlines: list[float] = []
        send = testing.custom_values.send_single

        def noted(webhook: Webhook, request: Request) -> Outcome:
            deadlines.append(request.deadline)
            return send(webhook, request)

        monkeypatch.setattr(testing.custom_values, "send_single", noted)
        assert self.ask(acme, endpoint, "a").error == "timeout"
        first, second = deadlines
        assert first == 1.0
        assert second <= first - testing.custom_values.RETRY_AFTER

    def test_a_webhook_that_serves_none_is_not_asked(self, webhook: Any) -> None:
        with pytest.raises(Conflict) as refusal:
            try_webhook(webhook=webhook, actor=SYSTEM, event="customValue", fields=["a"])
        assert refusal.value.code == "custom_values_not_served"

    @pytest.mark.parametrize("fields", [None, [], [""], ["a<b"]])
    def test_bad_field_names_are_refused(self, acme: Cast, endpoint: Endpoint, fields: Any) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
        with pytest.raises(Invalid) as refusal:
            try_webhook(webhook=webhook, actor=SYSTEM, event="customValue", fields=fields)
        assert list(refusal.value.errors) == ["fields"]
        assert endpoint.asked == []
