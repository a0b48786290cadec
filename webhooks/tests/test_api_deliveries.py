"""The delivery log through the API: listed by webhook, read with its attempts, sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.actions import close_conversation, receive_message
from conversations.events import EVENT_TYPES
from conversations.wire import moment
from core.actors import SYSTEM
from core.clock import now
from core.tests.receivers import unused_port
from organisations.models import AuditEntry
from organisations.tests.calls import call, pages, with_scopes
from webhooks.actions import archive_webhook, disable_webhook, pause_webhook, update_webhook
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, only

KEYS = {
    "id",
    "webhookId",
    "eventId",
    "type",
    "conversationId",
    "kind",
    "state",
    "nextAttemptAt",
    "createdAt",
    "attempts",
}


def say(cast: Cast, text: str = "Hello", address: str | None = None) -> int:
    """A contact's message. Returns the id of its conversation."""
    return receive_message(channel=cast.channel, address=address or cast.contact.address, body=text).conversation_id


def log(client: Client, cast: Cast, webhook: Webhook, query: str = "") -> Any:
    """The answer to the webhook's delivery log."""
    return call(client, cast, "GET", f"webhooks/{webhook.pk}/deliveries{query}")


def ids(answer: Any) -> list[int]:
    """The ids of the deliveries listed, in order."""
    return [int(row["id"]) for row in answer.json()["results"]]


def state() -> dict[str, Any]:
    """Every row that a call on deliveries can write."""
    models = (Webhook, Delivery, Attempt, AuditEntry)
    return {model.__name__: list(model._base_manager.order_by("pk").values()) for model in models}


class TestReading:
    """Lists and details."""

    def test_a_delivery_is_shown_with_its_attempt(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        conversation = say(acme)
        deliver()
        delivery = only(webhook)
        attempt = delivery.attempts.get()
        found = call(client, acme, "GET", f"deliveries/{delivery.pk}")
        assert found.status_code == 200
        assert set(found.json()) == KEYS
        assert found.json() == {
            "id": str(delivery.pk),
            "webhookId": str(webhook.pk),
            "eventId": str(delivery.event_id),
            "type": "inboundMessage",
            "conversationId": str(conversation),
            "kind": "event",
            "state": "delivered",
            "nextAttemptAt": None,
            "createdAt": moment(delivery.created_at),
            "attempts": [
                {
                    "attemptedAt": moment(attempt.attempted_at),
                    "statusCode": 200,
                    "durationMs": attempt.duration_ms,
                    "error": "",
                }
            ],
        }
        assert log(client, acme, webhook).json() == {"next": None, "previous": None, "results": [found.json()]}

    def test_every_attempt_is_told_oldest_first_with_its_error(
        self, client: Client, acme: Cast, endpoint: Endpoint
    ) -> None:
        endpoint.status = 503
        webhook = make_webhook(acme, callback_url=endpoint.url)
        say(acme)
        deliver()
        update_webhook(webhook=webhook, actor=SYSTEM, callback_url=f"http://127.0.0.1:{unused_port()}/")
        deliver(now() + timedelta(minutes=1))
        found = call(client, acme, "GET", f"deliveries/{only(webhook).pk}").json()
        told = [(attempt["statusCode"], attempt["error"]) for attempt in found["attempts"]]
        assert told == [(503, ""), (None, "connect")]
        assert found["state"] == "pending"
        assert found["nextAttemptAt"] == moment(only(webhook).next_attempt_at or now())

    def test_the_log_is_newest_first_and_of_this_webhook(self, client: Client, acme: Cast) -> None:
        webhook, other = make_webhook(acme), make_webhook(acme)
        made = [make_delivery(acme, webhook).pk for _ in range(3)]
        make_delivery(acme, other)
        assert ids(log(client, acme, webhook)) == made[::-1]

    @pytest.mark.parametrize("wanted", Delivery.State.values)
    def test_the_log_by_state(self, client: Client, acme: Cast, webhook: Webhook, wanted: str) -> None:
        made = {state: make_delivery(acme, webhook, state=state).pk for state in Delivery.State.values}
        assert ids(log(client, acme, webhook, f"?state={wanted}")) == [made[wanted]]

    def test_the_log_by_type_and_conversation(self, client: Client, acme: Cast) -> None:
        webhook = make_webhook(acme, events=list(EVENT_TYPES))
        first = say(acme)
        second = say(acme, address="353870000000")
        close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=second)
        deliver()
        assert len(ids(log(client, acme, webhook))) == 3
        for query, events in (
            ("?type=inboundMessage", 2),
            ("?type=conversationClosed", 1),
            ("?type=payment", 0),
            (f"?conversationId={first}", 1),
            (f"?conversationId={second}", 2),
            (f"?conversationId={second}&type=inboundMessage", 1),
            (f"?conversationId={second}&type=inboundMessage&state=delivered", 0),
            ("?conversationId=999999999999999999", 0),
        ):
            assert len(ids(log(client, acme, webhook, query))) == events, query

    def test_a_filter_by_another_organisations_conversation_finds_nothing(
        self, client: Client, acme: Cast, globex: Cast, webhook: Webhook
    ) -> None:
        make_delivery(acme, webhook)
        make_delivery(globex, make_webhook(globex))
        assert ids(log(client, acme, webhook, f"?conversationId={globex.conversation.pk}")) == []

    @pytest.mark.parametrize(
        ("query", "name"),
        [
            ("state=done", "state"),
            ("state=", "state"),
            ("type=messageStatusUpdate", "type"),
            ("type=conversationStarted", "type"),
            ("conversationId=x", "conversationId"),
            ("conversationId=0", "conversationId"),
            ("conversationId=1&conversationId=2", "conversationId"),
            ("webhookId=1", "webhookId"),
            ("limit=0", "limit"),
            ("cursor=x", "cursor"),
        ],
    )
    def test_a_bad_parameter_is_refused_by_name(
        self, client: Client, acme: Cast, webhook: Webhook, query: str, name: str
    ) -> None:
        answer = log(client, acme, webhook, f"?{query}")
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [name])

    def test_pages_hold_each_once_and_keep_the_filter(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        made = [make_delivery(acme, webhook, state="failed").pk for _ in range(5)]
        make_delivery(acme, webhook)
        found = pages(client, acme, f"webhooks/{webhook.pk}/deliveries?limit=2&state=failed")
        assert [[int(row["id"]) for row in page] for page in found] == [made[4:2:-1], made[2:0:-1], made[:1]]

    def test_a_cursor_is_of_one_webhooks_log(self, client: Client, acme: Cast, globex: Cast) -> None:
        webhooks = [make_webhook(acme), make_webhook(acme), make_webhook(globex)]
        for webhook, cast in zip(webhooks, (acme, acme, globex), strict=True):
            make_delivery(cast, webhook)
            make_delivery(cast, webhook)
        for webhook, cast in ((webhooks[1], acme), (webhooks[2], globex)):
            cursor = log(client, cast, webhook, "?limit=1").json()["next"].partition("?")[2]
            answer = log(client, acme, webhooks[0], f"?{cursor}")
            assert (answer.status_code, list(answer.json()["errors"])) == (400, ["cursor"])

    def test_a_log_takes_as_many_queries_for_many_as_for_one(
        self, client: Client, acme: Cast, webhook: Webhook, django_assert_max_num_queries: Any, settings: Any
    ) -> None:
        settings.API_RATE_LIMIT = "0"

        def attempted() -> Delivery:
            delivery = make_delivery(acme, webhook)
            Attempt.objects.bulk_create(
                Attempt(organisation=acme.organisation, delivery=delivery, number=number, attempted_at=now())
                for number in (1, 2)
            )
            return delivery

        first = attempted()
        log(client, acme, webhook)
        with django_assert_max_num_queries(4):
            log(client, acme, webhook)
        for _ in range(20):
            attempted()
        with django_assert_max_num_queries(4):
            found = log(client, acme, webhook).json()["results"]
        assert [len(row["attempts"]) for row in found] == [2] * 21
        with django_assert_max_num_queries(4):
            call(client, acme, "GET", f"deliveries/{first.pk}")


class TestResend:
    """Sending once more."""

    def test_it_goes_out_once_more_as_the_same_message(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        say(acme)
        deliver()
        first = only(webhook)
        answer = call(client, acme, "POST", f"deliveries/{first.pk}/resend", {})
        assert answer.status_code == 201
        made = answer.json()
        assert set(made) == KEYS
        assert made["id"] != str(first.pk)
        assert (made["kind"], made["state"], made["attempts"]) == ("resend", "pending", [])
        assert (made["eventId"], made["webhookId"]) == (str(first.event_id), str(webhook.pk))
        deliver()
        deliver()
        one, two = endpoint.asked
        assert one.headers["webhook-id"] == two.headers["webhook-id"]
        assert one.body == two.body
        done = call(client, acme, "GET", f"deliveries/{made['id']}").json()
        assert (done["state"], [attempt["statusCode"] for attempt in done["attempts"]]) == ("delivered", [200])
        assert len(call(client, acme, "GET", f"deliveries/{first.pk}").json()["attempts"]) == 1
        entry = AuditEntry.objects.get(action="delivery.resend")
        assert (entry.actor_kind, entry.actor_id) == ("api", str(acme.api_key.pk))

    def test_what_was_resent_can_be_resent(self, client: Client, acme: Cast, endpoint: Endpoint) -> None:
        webhook = make_webhook(acme, callback_url=endpoint.url)
        say(acme)
        deliver()
        pk = str(only(webhook).pk)
        for _ in range(3):
            pk = call(client, acme, "POST", f"deliveries/{pk}/resend", {}).json()["id"]
            deliver()
        assert len(endpoint.asked) == 4
        assert len({asked.headers["webhook-id"] for asked in endpoint.asked}) == 1
        assert len({asked.body for asked in endpoint.asked}) == 1

    def test_a_body_is_optional(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        delivery = make_delivery(acme, webhook, state="failed")
        assert call(client, acme, "POST", f"deliveries/{delivery.pk}/resend").status_code == 201

    @pytest.mark.parametrize("body", [{"webhookId": "1"}, {"callbackUrl": "http://127.0.0.1/"}, [], "x"])
    def test_a_body_that_says_something_is_refused(
        self, client: Client, acme: Cast, webhook: Webhook, body: Any
    ) -> None:
        delivery = make_delivery(acme, webhook, state="failed")
        before = state()
        answer = call(client, acme, "POST", f"deliveries/{delivery.pk}/resend", body)
        assert answer.status_code == 400
        assert list(answer.json()["errors"]) == (list(body) if isinstance(body, dict) else ["body"])
        assert state() == before

    def test_the_same_idempotency_key_sends_once(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        delivery = make_delivery(acme, webhook, state="failed")
        headers = {**acme.auth, "Idempotency-Key": "again"}
        answers = [call(client, acme, "POST", f"deliveries/{delivery.pk}/resend", {}, headers) for _ in range(2)]
        assert answers[0].json() == answers[1].json()
        assert Delivery.objects.filter(kind="resend").count() == 1

    @pytest.mark.parametrize(
        ("verb", "code"),
        [
            (pause_webhook, "webhook_paused"),
            (disable_webhook, "webhook_disabled"),
            (archive_webhook, "webhook_archived"),
        ],
    )
    def test_nothing_is_sent_to_a_webhook_that_takes_nothing(
        self, client: Client, acme: Cast, webhook: Webhook, verb: Any, code: str
    ) -> None:
        delivery = make_delivery(acme, webhook, state="failed")
        verb(webhook=webhook, actor=SYSTEM)
        before = state()
        answer = call(client, acme, "POST", f"deliveries/{delivery.pk}/resend", {})
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert state() == before


class TestStrangers:
    """Other organisations, keys that may not, no key."""

    def test_another_organisations_delivery_is_404(self, client: Client, acme: Cast, globex: Cast) -> None:
        theirs = make_delivery(globex, make_webhook(globex), state="failed")
        before = state()
        for method, action in (("GET", ""), ("POST", "/resend")):
            body = {} if method == "POST" else None
            answer = call(client, acme, method, f"deliveries/{theirs.pk}{action}", body)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert answer.json() == call(client, acme, method, f"deliveries/999999{action}", body).json()
        assert log(client, acme, theirs.webhook).status_code == 404
        assert state() == before

    @pytest.mark.parametrize("pk", ["0", "01", "-1", "x", "1" * 30, "%00"])
    def test_what_is_no_id_is_404(self, client: Client, acme: Cast, pk: str) -> None:
        assert call(client, acme, "GET", f"deliveries/{pk}").status_code == 404
        assert call(client, acme, "POST", f"deliveries/{pk}/resend", {}).status_code == 404

    def test_reading_and_resending_take_a_scope_each(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        delivery = make_delivery(acme, webhook, state="failed")
        reader = with_scopes(acme, "deliveries:read", "webhooks:write", "webhooks:read")
        writer = with_scopes(acme, "deliveries:write", "webhooks:write", "webhooks:read")
        before = state()
        for method, path, headers, scope in (
            ("POST", f"deliveries/{delivery.pk}/resend", reader, "deliveries:write"),
            ("GET", f"deliveries/{delivery.pk}", writer, "deliveries:read"),
            ("GET", f"webhooks/{webhook.pk}/deliveries", writer, "deliveries:read"),
        ):
            answer = call(client, acme, method, path, headers=headers)
            assert (answer.status_code, answer.json()["scope"]) == (403, scope)
            assert call(client, acme, method, path, headers={}).status_code == 401
        assert state() == before
