"""Webhooks through the API: add, read, change, delete, rotate the secret, test."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import standardwebhooks
from django.test import Client

from conftest import Cast
from conversations.actions import receive_message
from conversations.events import EVENT_TYPES
from conversations.wire import moment
from core.clock import held_at, now
from core.signing import new_secret, secret_bytes, verify
from core.tests.ranges import IPV4, IPV6
from core.tests.receivers import unused_port
from organisations.models import AuditEntry, IdempotencyKey
from organisations.tests.calls import call, pages, with_scopes
from webhooks.models import Delivery, Subscription, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

KEYS = {
    "id",
    "name",
    "callbackUrl",
    "events",
    "customValues",
    "format",
    "ordering",
    "state",
    "stateReason",
    "failingSince",
    "breakerUntil",
    "authentication",
    "clientCertificate",
    "retryDelays",
    "rateLimit",
    "createdAt",
}
BODY: dict[str, Any] = {
    "name": "orders",
    "callbackUrl": "https://hooks.example.com/in?key=1",
    "events": ["payment", "inboundMessage"],
}


def state() -> dict[str, Any]:
    """Every row that a call on webhooks can write."""
    models = (Webhook, Subscription, Delivery, AuditEntry, IdempotencyKey)
    return {model.__name__: list(model._base_manager.order_by("pk").values()) for model in models}


def post(client: Client, cast: Cast, path: str = "webhooks", **body: Any) -> Any:
    """The answer to a POST of `body`."""
    return call(client, cast, "POST", path, body)


def patch(client: Client, cast: Cast, webhook: Webhook, **body: Any) -> Any:
    """The answer to a change of `webhook`."""
    return call(client, cast, "PATCH", f"webhooks/{webhook.pk}", body)


def assert_refused(answer: Any, *fields: str) -> None:
    """400, naming exactly `fields`."""
    assert answer.status_code == 400, answer.content[:300]
    assert set(answer.json()["errors"]) == set(fields)


class TestCrud:
    """Adding, reading, changing and deleting."""

    def test_the_secret_is_in_the_answer_that_creates_and_in_no_other(self, client: Client, acme: Cast) -> None:
        made = post(client, acme, **BODY)
        assert made.status_code == 201
        found = made.json()
        assert set(found) == KEYS | {"secret"}
        secret = found.pop("secret")
        assert len(secret_bytes(secret)) >= 24
        assert Webhook.objects.get(pk=found["id"]).secret == secret
        assert {name: found[name] for name in ("name", "callbackUrl", "events")} == {
            **BODY,
            "events": ["inboundMessage", "payment"],
        }
        assert (found["customValues"], found["format"], found["ordering"]) == (False, "webio", "first")
        assert (found["state"], found["stateReason"]) == ("active", "")
        path = f"webhooks/{found['id']}"
        assert call(client, acme, "GET", path).json() == found
        assert call(client, acme, "GET", "webhooks").json() == {"next": None, "previous": None, "results": [found]}
        assert call(client, acme, "PATCH", path, {"name": "renamed"}).json() == {**found, "name": "renamed"}

    def test_every_option_is_taken(self, client: Client, acme: Cast) -> None:
        own = new_secret()
        options = {"customValues": True, "format": "standard", "ordering": "strict"}
        answer = post(client, acme, **BODY, **options, headers={"X-Key": "hush"}, secret=own)
        assert answer.status_code == 201
        assert answer.json().items() >= {**options, "secret": own}.items()
        assert "hush" not in answer.content.decode()
        assert "hush" not in call(client, acme, "GET", "webhooks").content.decode()

    def test_custom_values_are_enough_without_events(self, client: Client, acme: Cast) -> None:
        body = {name: value for name, value in BODY.items() if name != "events"}
        assert post(client, acme, **body, customValues=True).json()["events"] == []

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "other"},
            {"callbackUrl": "http://93.184.216.34:8080/x?y=%20z"},
            {"events": list(EVENT_TYPES)},
            {"customValues": True},
            {"customValues": True, "events": []},
            {"format": "standard"},
            {"ordering": "strict"},
            {},
        ],
    )
    def test_what_is_given_changes_and_nothing_else(self, client: Client, acme: Cast, change: dict[str, Any]) -> None:
        webhook = make_webhook(acme)
        before = call(client, acme, "GET", f"webhooks/{webhook.pk}").json()
        answer = patch(client, acme, webhook, **change)
        assert answer.status_code == 200
        assert answer.json() == {**before, **change}
        assert call(client, acme, "GET", f"webhooks/{webhook.pk}").json() == answer.json()

    def test_one_deleted_is_gone_and_its_work_cancelled(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme)
        delivery = make_delivery(acme, webhook)
        answer = call(client, acme, "DELETE", f"webhooks/{webhook.pk}")
        assert (answer.status_code, answer.content) == (204, b"")
        delivery.refresh_from_db()
        assert (delivery.state, delivery.next_attempt_at) == ("cancelled", None)
        assert call(client, acme, "GET", "webhooks").json()["results"] == []
        before = state()
        for method, action in (
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("POST", "/secret"),
            ("POST", "/test"),
            ("GET", "/deliveries"),
        ):
            body = {} if method in ("PATCH", "POST") else None
            assert call(client, acme, method, f"webhooks/{webhook.pk}{action}", body).status_code == 404, action
        assert state() == before

    def test_a_list_holds_each_once_in_order_of_making(self, client: Client, acme: Cast, globex: Cast) -> None:
        make_webhook(globex)
        made = [str(make_webhook(acme, name=f"hook {number}").pk) for number in range(5)]
        found = pages(client, acme, "webhooks?limit=2")
        assert [[row["id"] for row in page] for page in found] == [made[:2], made[2:4], made[4:]]

    def test_a_list_takes_as_many_queries_for_many_as_for_one(
        self, client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any
    ) -> None:
        settings.API_RATE_LIMIT = "0"
        make_webhook(acme)
        call(client, acme, "GET", "webhooks")
        with django_assert_max_num_queries(3):
            call(client, acme, "GET", "webhooks")
        for number in range(20):
            make_webhook(acme, name=f"hook {number}")
        with django_assert_max_num_queries(3):
            assert len(call(client, acme, "GET", "webhooks").json()["results"]) == 21


class TestStates:
    """Pausing, disabling and going on."""

    @pytest.mark.parametrize("stopped", ["paused", "disabled"])
    def test_what_happens_meanwhile_is_held_and_goes_out_afterwards(
        self, client: Client, acme: Cast, endpoint: Endpoint, stopped: str
    ) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        answer = patch(client, acme, webhook, state=stopped)
        assert (answer.json()["state"], answer.json()["stateReason"]) == (stopped, "user")
        receive_message(channel=acme.channel, address=acme.contact.address, body="meanwhile")
        deliver()
        assert endpoint.asked == []
        assert Delivery.objects.get(webhook=webhook).state == "held"
        answer = patch(client, acme, webhook, state="active")
        assert (answer.json()["state"], answer.json()["stateReason"]) == ("active", "")
        deliver()
        assert [json.loads(asked.body)["body"] for asked in endpoint.asked] == ["meanwhile"]

    @pytest.mark.parametrize("same", ["active", "paused", "disabled"])
    def test_the_state_it_has_already_changes_nothing(self, client: Client, acme: Cast, same: str) -> None:
        webhook = make_webhook(acme)
        patch(client, acme, webhook, state=same)
        before = state()
        assert patch(client, acme, webhook, state=same).status_code == 200
        assert state() == before

    def test_a_refused_state_leaves_the_rest_of_the_change_undone(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme)
        patch(client, acme, webhook, state="disabled")
        before = state()
        answer = patch(client, acme, webhook, state="paused", name="other", events=["payment"])
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_disabled")
        assert state() == before

    @pytest.mark.parametrize("wanted", ["", "gone", "Active", 1, True, None, ["paused"]])
    def test_an_unknown_state_is_refused(self, client: Client, acme: Cast, wanted: Any) -> None:
        webhook = make_webhook(acme)
        before = state()
        assert_refused(patch(client, acme, webhook, state=wanted, name="other"), "state")
        assert state() == before

    def test_a_new_webhook_is_not_given_a_state(self, client: Client, acme: Cast) -> None:
        assert_refused(post(client, acme, **BODY, state="paused"), "state")


class TestHealth:
    """What the engine noted of the endpoint: read only."""

    def test_it_tells_since_when_it_fails_and_until_when_it_is_left_alone(
        self, client: Client, acme: Cast, endpoint: Endpoint
    ) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)

        def told() -> tuple[Any, Any]:
            found = call(client, acme, "GET", f"webhooks/{webhook.pk}").json()
            assert call(client, acme, "GET", "webhooks").json()["results"] == [found]
            return found["failingSince"], found["breakerUntil"]

        assert told() == (None, None)
        endpoint.status = 500
        make_delivery(acme, webhook)
        deliver()
        webhook.refresh_from_db()
        assert webhook.failing_since is not None
        assert told() == (moment(webhook.failing_since), None)
        for _ in range(9):
            make_delivery(acme, webhook)
        deliver()
        webhook.refresh_from_db()
        assert webhook.breaker_until is not None
        assert told() == (moment(webhook.failing_since), moment(webhook.breaker_until))
        with held_at(webhook.breaker_until):
            assert told() == (moment(webhook.failing_since), None)
        endpoint.status = 200
        deliver(now() + timedelta(hours=1))
        assert told() == (None, None)

    @pytest.mark.parametrize("name", ["failingSince", "breakerUntil", "stateReason"])
    def test_it_is_not_written(self, client: Client, acme: Cast, name: str) -> None:
        webhook = make_webhook(acme)
        before = state()
        assert_refused(patch(client, acme, webhook, **{name: None}), name)
        assert_refused(post(client, acme, **BODY, **{name: None}), name)
        assert state() == before

    def test_openapi_tells_them(self, client: Client) -> None:
        schemas = client.get("/api/v1/openapi.json").json()["components"]["schemas"]
        for name in ("failingSince", "breakerUntil"):
            assert schemas["WebhookShape"]["properties"][name]["type"] == ["string", "null"]
            assert name in schemas["WebhookShape"]["required"]


class TestSecret:
    """Rotation."""

    def test_the_new_secret_is_shown_once_and_both_sign_for_a_day(
        self, client: Client, acme: Cast, endpoint: Endpoint
    ) -> None:
        first = post(client, acme, **{**BODY, "callbackUrl": endpoint.url}).json()
        answer = post(client, acme, f"webhooks/{first['id']}/secret")
        assert answer.status_code == 200
        assert set(answer.json()) == KEYS | {"secret"}
        second = answer.json()["secret"]
        assert second != first["secret"]
        assert second not in call(client, acme, "GET", "webhooks").content.decode()
        receive_message(channel=acme.channel, address=acme.contact.address, body="x")
        deliver()
        for secret in (first["secret"], second):
            standardwebhooks.Webhook(secret).verify(endpoint.asked[0].body, endpoint.asked[0].headers)
        with held_at(now() + timedelta(hours=24, seconds=1)):
            post(client, acme, f"webhooks/{first['id']}/test", event="payment")
        assert len(endpoint.asked[1].headers["webhook-signature"].split(" ")) == 1

    def test_an_own_secret_is_taken(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme)
        own = new_secret()
        assert post(client, acme, f"webhooks/{webhook.pk}/secret", secret=own).json()["secret"] == own
        before = state()
        assert_refused(post(client, acme, f"webhooks/{webhook.pk}/secret", secret=own), "secret")
        assert state() == before

    @pytest.mark.parametrize(
        "secret", ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "whsec_" + "A" * 200, 7, None, ["x"]]
    )
    def test_a_short_or_malformed_secret_is_refused(self, client: Client, acme: Cast, secret: Any) -> None:
        webhook = make_webhook(acme)
        before = state()
        assert_refused(post(client, acme, **BODY, secret=secret), "secret")
        assert_refused(post(client, acme, f"webhooks/{webhook.pk}/secret", secret=secret), "secret")
        assert state() == before

    def test_a_secret_is_not_changed_in_passing(self, client: Client, acme: Cast) -> None:
        assert_refused(patch(client, acme, make_webhook(acme), secret=new_secret()), "secret")

    def test_a_second_rotation_within_the_overlap_is_asked_for_by_name(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme)
        path = f"webhooks/{webhook.pk}/secret"
        second = post(client, acme, path).json()["secret"]
        before = state()
        for body in ({}, {"endOverlap": False}):
            answer = post(client, acme, path, **body)
            assert (answer.status_code, answer.json()["code"]) == (409, "secret_overlap")
            assert answer.json()["until"].endswith("Z")
        for wrong in (None, 1, "true"):
            assert_refused(post(client, acme, path, endOverlap=wrong), "endOverlap")
        assert state() == before
        assert post(client, acme, path, endOverlap=True).status_code == 200
        webhook.refresh_from_db()
        assert webhook.previous_secret == second

    def test_a_repeated_rotation_is_done_once(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme)
        headers = {**acme.auth, "Idempotency-Key": "rotate"}
        answers = [call(client, acme, "POST", f"webhooks/{webhook.pk}/secret", {}, headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        webhook.refresh_from_db()
        assert webhook.secret == answers[0].json()["secret"]


class TestTry:
    """Tests of a webhook."""

    @pytest.mark.parametrize("name", list(EVENT_TYPES))
    @pytest.mark.parametrize("format", ["webio", "standard"])
    def test_the_answer_tells_what_was_sent_and_what_came_back(
        self, client: Client, acme: Cast, endpoint: Endpoint, name: str, format: str
    ) -> None:
        endpoint.body, endpoint.headers = b'{"ok": "\xc3\xbc"}', {"X-Seen": "yes"}
        webhook = make_webhook(acme, callback_url=endpoint.url, format=format)
        before = state()
        answer = post(client, acme, f"webhooks/{webhook.pk}/test", event=name)
        assert answer.status_code == 200
        found = answer.json()
        [asked] = endpoint.asked
        assert set(found) == {
            "statusCode",
            "durationMs",
            "requestBody",
            "responseHeaders",
            "responseBody",
            "error",
            "errorDetail",
        }
        assert found["requestBody"] == asked.body.decode()
        assert json.loads(asked.body)["type"] == (EVENT_TYPES[name].wire_type if format == "webio" else name)
        assert (found["statusCode"], found["responseBody"], found["error"]) == (200, '{"ok": "ü"}', "")
        assert ["x-seen", "yes"] in found["responseHeaders"]
        assert type(found["durationMs"]) is int
        assert 0 <= found["durationMs"] < 5000
        assert asked.headers["x-webio-test"] == "true"
        standardwebhooks.Webhook(webhook.secret).verify(asked.body, asked.headers)
        after = state()
        assert len(after.pop("AuditEntry")) == len(before.pop("AuditEntry")) + 1
        assert after == before

    @pytest.mark.parametrize("status", [302, 404, 410, 500])
    def test_a_refusal_is_shown_as_it_came(self, client: Client, acme: Cast, endpoint: Endpoint, status: int) -> None:
        endpoint.status, endpoint.body = status, b"no"
        webhook = make_webhook(acme, callback_url=endpoint.url)
        found = post(client, acme, f"webhooks/{webhook.pk}/test", event="payment").json()
        assert (found["statusCode"], found["responseBody"], found["error"]) == (status, "no", "")
        webhook.refresh_from_db()
        assert webhook.state == "active"

    def test_an_answer_of_any_bytes_is_shown_as_far_as_it_is_kept(
        self, client: Client, acme: Cast, endpoint: Endpoint
    ) -> None:
        endpoint.body = b"a\x00b\xff" + b"x" * 20_000
        webhook = make_webhook(acme, callback_url=endpoint.url)
        headers = {**acme.auth, "Idempotency-Key": "odd"}
        path = f"webhooks/{webhook.pk}/test"
        answers = [call(client, acme, "POST", path, {"event": "payment"}, headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert answers[0].json()["responseBody"] == "a\x00b\ufffd" + "x" * (16 * 1024 - 4)

    def test_a_dead_endpoint_is_told_by_its_step(self, client: Client, acme: Cast, settings: Any) -> None:
        settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
        webhook = make_webhook(acme, callback_url=f"http://127.0.0.1:{unused_port()}/")
        answer = post(client, acme, f"webhooks/{webhook.pk}/test", event="payment")
        assert answer.status_code == 200
        found = answer.json()
        assert (found["statusCode"], found["error"], found["responseBody"]) == (None, "connect", "")
        assert found["errorDetail"]
        assert found["responseHeaders"] == []

    def test_an_address_inside_is_refused_when_it_is_dialled(
        self, client: Client, acme: Cast, endpoint: Endpoint, settings: Any
    ) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        settings.OUTBOUND_ALLOWED_NETWORKS = []
        found = post(client, acme, f"webhooks/{webhook.pk}/test", event="payment").json()
        assert (found["statusCode"], found["error"]) == (None, "refused_address")
        assert endpoint.asked == []

    def test_custom_values_are_asked_for_by_field(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        endpoint.body = b'{"balance": 150.50, "paid": true, "due date": null, "extra": "x"}'
        webhook = make_webhook(acme, callback_url=f"{endpoint.url}?key=1", events=[], custom_values=True)
        answer = post(
            client, acme, f"webhooks/{webhook.pk}/test", event="customValue", fields=["balance", "paid", "due date"]
        )
        assert answer.status_code == 200
        found = answer.json()
        [asked] = endpoint.asked
        assert asked.method == "GET"
        assert asked.path.startswith("/hook?key=1&customerUID=")
        assert asked.path.endswith("&param1=balance&param2=paid&param3=due%20date")
        assert found["requestUrl"] == endpoint.url.removesuffix("/hook") + asked.path
        assert "requestBody" not in found
        assert (found["statusCode"], found["responseBody"]) == (200, endpoint.body.decode())
        assert (found["values"], found["missing"]) == ({"balance": "150.50", "paid": "true"}, ["due date"])
        assert verify([webhook.secret], asked.headers, b"").valid

    def test_custom_values_of_a_dead_endpoint_are_all_missing(self, client: Client, acme: Cast, settings: Any) -> None:
        settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
        webhook = make_webhook(acme, callback_url=f"http://127.0.0.1:{unused_port()}/", custom_values=True)
        found = post(client, acme, f"webhooks/{webhook.pk}/test", event="customValue", fields=["a", "b"]).json()
        assert (found["statusCode"], found["error"]) == (None, "connect")
        assert (found["values"], found["missing"]) == ({}, ["a", "b"])

    def test_a_webhook_that_serves_no_custom_values_is_not_asked(
        self, client: Client, acme: Cast, endpoint: Endpoint
    ) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        answer = post(client, acme, f"webhooks/{webhook.pk}/test", event="customValue", fields=["a"])
        assert (answer.status_code, answer.json()["code"]) == (409, "custom_values_not_served")
        assert endpoint.asked == []

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "event"),
            ({"event": ""}, "event"),
            ({"event": 1}, "event"),
            ({"event": None}, "event"),
            ({"event": "messageStatusUpdate"}, "event"),
            ({"event": "conversationStarted"}, "event"),
            ({"event": "payment", "fields": ["a"]}, "fields"),
            ({"event": "customValue"}, "fields"),
            ({"event": "customValue", "fields": []}, "fields"),
            ({"event": "customValue", "fields": "a"}, "fields"),
            ({"event": "customValue", "fields": [1]}, "fields"),
            ({"event": "customValue", "fields": ["<a>"]}, "fields"),
            ({"event": "customValue", "fields": ["x" * 101]}, "fields"),
            ({"event": "customValue", "fields": [f"f{number}" for number in range(101)]}, "fields"),
            ({"event": "payment", "url": "http://127.0.0.1/"}, "url"),
        ],
    )
    def test_a_bad_test_is_refused_by_name_and_sends_nothing(
        self, client: Client, acme: Cast, endpoint: Endpoint, body: dict[str, Any], field: str
    ) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
        before = state()
        assert_refused(post(client, acme, f"webhooks/{webhook.pk}/test", **body), field)
        assert endpoint.asked == []
        assert state() == before

    def test_a_repeated_test_is_sent_once(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        headers = {**acme.auth, "Idempotency-Key": "try"}
        path = f"webhooks/{webhook.pk}/test"
        answers = [call(client, acme, "POST", path, {"event": "payment"}, headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert len(endpoint.asked) == 1


class TestRefusals:
    """Limits, bad values, strangers."""

    def test_the_33rd_webhook_is_refused_until_one_is_deleted(
        self, client: Client, acme: Cast, globex: Cast, settings: Any
    ) -> None:
        settings.API_RATE_LIMIT = "0"
        for number in range(32):
            assert post(client, acme, **{**BODY, "name": f"hook {number}"}).status_code == 201
        before = state()
        answer = post(client, acme, **BODY)
        assert (answer.status_code, answer.json()["code"]) == (409, "webhook_limit")
        assert answer.json()["limit"] == 32
        assert state() == before
        assert post(client, globex, **BODY).status_code == 201
        first = call(client, acme, "GET", "webhooks?limit=1").json()["results"][0]["id"]
        assert call(client, acme, "DELETE", f"webhooks/{first}").status_code == 204
        assert post(client, acme, **BODY).status_code == 201

    def test_one_webhook_of_an_organisation_serves_custom_values(
        self, client: Client, acme: Cast, globex: Cast
    ) -> None:
        first = post(client, acme, **BODY, customValues=True).json()["id"]
        other = make_webhook(acme)
        before = state()
        for answer in (post(client, acme, **BODY, customValues=True), patch(client, acme, other, customValues=True)):
            assert_refused(answer, "customValues")
            assert answer.json()["code"] == "custom_values_taken"
        assert state() == before
        assert post(client, globex, **BODY, customValues=True).status_code == 201
        assert call(client, acme, "PATCH", f"webhooks/{first}", {"customValues": False}).status_code == 200
        assert patch(client, acme, other, customValues=True).json()["customValues"] is True

    @pytest.mark.parametrize(
        "url",
        [
            "",
            " ",
            7,
            None,
            ["https://hooks.example.com/"],
            "hooks.example.com/in",
            "//hooks.example.com/in",
            "ftp://hooks.example.com/in",
            "file:///etc/passwd",
            "gopher://hooks.example.com/",
            "javascript:alert(1)",
            "https://",
            "https:///in",
            "https://:443/",
            "https://user@hooks.example.com/",
            "https://user:pass@hooks.example.com/",
            "https://hooks.example.com/in#part",
            "https://hooks.example.com\\@10.0.0.1/",
            "https://hooks.example.com/%5c",
            "https://hooks.example.com/a b",
            "https://hooks.example.com/\r\nHost: x",
            "https://hooks.example.com/\u200b",
            "https://hooks.example.com:99999/",
            "https://hooks.example.com:0/",
            "https://hooks.example.com:x/",
            "https://hooks.example.com/" + "x" * 2000,
            "https://hooks..example.com/",
            "https://-hooks.example.com/",
            "https://hooks%2eexample.com/",
            "https://hooks/",
            "http://localhost/",
            "http://localhost.:8000/",
            "http://a.localhost/",
            "http://hooks.internal/",
            "http://metadata.google.internal/",
            "http://printer.local/",
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://2130706433/",
            "http://\uff11\uff12\uff17.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1%25eth0]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
            "http://[::1",
            *(f"http://{one.host}/" for one in (*IPV4, *IPV6)),
        ],
    )
    def test_a_url_that_may_not_be_called_is_refused(self, client: Client, acme: Cast, url: Any) -> None:
        webhook = make_webhook(acme)
        before = state()
        assert_refused(post(client, acme, **{**BODY, "callbackUrl": url}), "callbackUrl")
        assert_refused(patch(client, acme, webhook, name="other", callbackUrl=url), "callbackUrl")
        assert state() == before

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"name": ""}, "name"),
            ({"name": 7}, "name"),
            ({"name": "x" * 256}, "name"),
            ({"events": []}, "events"),
            ({"events": ["nothing"]}, "events"),
            ({"events": ["messageStatusUpdate"]}, "events"),
            ({"events": ["conversationStarted"]}, "events"),
            ({"events": ["payment", ""]}, "events"),
            ({"events": ["payment", None]}, "events"),
            ({"events": "payment"}, "events"),
            ({"events": {"payment": True}}, "events"),
            ({"events": None}, "events"),
            ({"customValues": "true"}, "customValues"),
            ({"customValues": 1}, "customValues"),
            ({"format": "xml"}, "format"),
            ({"format": 1}, "format"),
            ({"ordering": "any"}, "ordering"),
            ({"ordering": False}, "ordering"),
            ({"headers": {"Host": "x"}}, "headers"),
            ({"headers": {"X-Webio-Token": "x"}}, "headers"),
            ({"headers": {"X-A": "x\r\ny"}}, "headers"),
            ({"headers": {"X-A": 1}}, "headers"),
            ({"headers": ["X-A"]}, "headers"),
            ({"colour": "red"}, "colour"),
            ({"id": "7"}, "id"),
            ({"organisationId": "7"}, "organisationId"),
        ],
    )
    def test_a_bad_value_is_refused_by_name_and_changes_nothing(
        self, client: Client, acme: Cast, change: dict[str, Any], field: str
    ) -> None:
        webhook = make_webhook(acme)
        before = state()
        assert_refused(post(client, acme, **{**BODY, **change}), field)
        assert_refused(patch(client, acme, webhook, **{"format": "standard", **change}), field)
        assert state() == before

    @pytest.mark.parametrize("missing", ["name", "callbackUrl", "events"])
    def test_what_a_webhook_needs_is_asked_for(self, client: Client, acme: Cast, missing: str) -> None:
        body = {name: value for name, value in BODY.items() if name != missing}
        assert_refused(post(client, acme, **body), missing)
        assert not Webhook.objects.exists()

    def test_another_organisations_webhook_is_404_and_stays_as_it_is(
        self, client: Client, acme: Cast, globex: Cast, endpoint: Endpoint
    ) -> None:
        theirs = make_webhook(globex, callback_url=endpoint.url)
        before = state()
        for method, action, body in (
            ("GET", "", None),
            ("PATCH", "", {"name": "mine"}),
            ("PATCH", "", {"state": "disabled"}),
            ("DELETE", "", None),
            ("POST", "/secret", {}),
            ("POST", "/test", {"event": "payment"}),
            ("GET", "/deliveries", None),
        ):
            answer = call(client, acme, method, f"webhooks/{theirs.pk}{action}", body)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, action)
            assert answer.json() == call(client, acme, method, f"webhooks/999999{action}", body).json()
        assert endpoint.asked == []
        assert state() == before

    def test_another_organisations_cursor_is_refused(self, client: Client, acme: Cast, globex: Cast) -> None:
        for cast in (acme, globex, globex):
            make_webhook(cast)
        theirs = call(client, globex, "GET", "webhooks?limit=1").json()["next"]
        assert_refused(call(client, acme, "GET", theirs), "cursor")

    def test_reading_and_writing_take_a_scope_each(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        path = f"webhooks/{webhook.pk}"
        reader = with_scopes(acme, "webhooks:read", "deliveries:write", "deliveries:read")
        writer = with_scopes(acme, "webhooks:write", "deliveries:write")
        before = state()
        for method, to, body in (
            ("POST", "webhooks", BODY),
            ("PATCH", path, {"name": "other"}),
            ("DELETE", path, None),
            ("POST", f"{path}/secret", {}),
            ("POST", f"{path}/test", {"event": "payment"}),
        ):
            answer = call(client, acme, method, to, body, reader)
            assert (answer.status_code, answer.json()["scope"]) == (403, "webhooks:write"), (method, to)
            assert call(client, acme, method, to, body, {}).status_code == 401
        for to, scope in (
            ("webhooks", "webhooks:read"),
            (path, "webhooks:read"),
            (f"{path}/deliveries", "deliveries:read"),
        ):
            answer = call(client, acme, "GET", to, headers=writer)
            assert (answer.status_code, answer.json()["scope"]) == (403, scope)
            assert call(client, acme, "GET", to, headers={}).status_code == 401
        assert endpoint.asked == []
        assert state() == before


class TestAdvanced:
    """Authentication, certificate, schedule and rate by API."""

    def test_they_are_set_shown_without_secrets_and_taken_away(self, client: Client, acme: Cast) -> None:
        settings = {
            "authentication": {"type": "basic", "username": "webio", "password": "pa55w0rd"},
            "retryDelays": [5, 60],
            "rateLimit": {"limit": 50, "per": "minute"},
        }
        made = post(client, acme, **BODY, **settings)
        assert made.status_code == 201
        assert "pa55w0rd" not in made.content.decode()
        found = made.json()
        assert found["authentication"] == {"type": "basic", "username": "webio"}
        assert (found["retryDelays"], found["rateLimit"]) == ([5, 60], {"limit": 50, "per": "minute"})
        assert found["clientCertificate"] is False
        nothing = {"authentication": None, "retryDelays": None, "rateLimit": None}
        changed = call(client, acme, "PATCH", f"webhooks/{found['id']}", nothing)
        assert [changed.json()[name] for name in settings] == [None, None, None]

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"authentication": {"type": "basic", "username": "x"}}, "authentication.password"),
            ({"authentication": 5}, "authentication"),
            ({"retryDelays": [0]}, "retryDelays"),
            ({"rateLimit": {"limit": 0, "per": "second"}}, "rateLimit.limit"),
            ({"clientCertificate": "x"}, "clientCertificate"),
        ],
    )
    def test_a_bad_one_is_refused_by_field(
        self, client: Client, acme: Cast, changes: dict[str, Any], field: str
    ) -> None:
        answer = post(client, acme, **BODY, **changes)
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
        assert not Webhook.objects.exists()
