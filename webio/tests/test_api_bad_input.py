"""Bad input, call by call: refused with a problem that names field and rule, and nothing changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.models import Channel, Contact, Conversation, Event, Message, Queue, Status
from core.actors import SYSTEM
from organisations.models import IdempotencyKey, WebioToken
from payments.models import Payment
from webhooks.actions import create_webhook
from webhooks.models import Delivery, Subscription, Webhook

COUNTED = (
    Channel,
    Contact,
    Conversation,
    Delivery,
    Event,
    IdempotencyKey,
    Message,
    Payment,
    Queue,
    Status,
    Subscription,
    Webhook,
    WebioToken,
)
HOOK = {"name": "orders", "callbackUrl": "https://hooks.example.com/in", "events": ["inboundMessage"]}


def state() -> dict[str, Any]:
    """All rows that a call could change, as they are."""
    return {model.__name__: list(model.objects.order_by("pk").values()) for model in COUNTED}


@pytest.fixture
def names(acme: Cast, globex: Cast) -> dict[str, str]:
    """What `{name}` stands for in paths and bodies of the tables below."""
    hook, _secret = create_webhook(
        organisation=acme.organisation,
        actor=SYSTEM,
        name="values",
        callback_url="https://hooks.example.com/values",
        events=["inboundMessage"],
        custom_values=True,
    )
    return {
        "conversation": str(acme.conversation.pk),
        "channel": str(acme.channel.pk),
        "queue": str(acme.queue.pk),
        "inactive": str(acme.inactive_queue.pk),
        "status": str(acme.status.pk),
        "organisation": str(acme.organisation.pk),
        "hook": str(hook.pk),
        "viewer": str(acme.viewer.pk),
        "their_channel": str(globex.channel.pk),
        "their_queue": str(globex.queue.pk),
        "their_status": str(globex.status.pk),
        "their_conversation": str(globex.conversation.pk),
        "their_organisation": str(globex.organisation.pk),
        "their_agent": str(globex.agent.pk),
    }


def fill(value: Any, names: dict[str, str]) -> Any:
    """`value` with each text `{name}` replaced."""
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, names) for item in value]
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        return names[value[1:-1]]
    return value


def start(**changes: Any) -> dict[str, Any]:
    """A good start of a conversation, changed."""
    return {"channelId": "{channel}", "outboundChannelAddress": "353871234567", **changes}


def hook(**changes: Any) -> dict[str, Any]:
    """A good webhook, changed."""
    return {**HOOK, **changes}


START, SEND = "POST conversations", "POST conversations/{conversation}/messages"
HOOKS, TEST = "POST webhooks", "POST webhooks/{hook}/test"
TOKEN, PAY = "POST token", "POST payments"
PAYMENT = {"conversationId": "{conversation}", "amount": "1.00", "currency": "EUR", "reference": "r"}

#: call, body, field that must be named
TABLE: list[tuple[str, Any, str]] = [
    # wrong types: nothing is coerced
    (START, start(channelId=1), "channelId"),
    (START, start(channelId=True), "channelId"),
    (START, start(channelId=None), "channelId"),
    (START, start(channelId=["1"]), "channelId"),
    (START, start(outboundChannelAddress=353871234567), "outboundChannelAddress"),
    (START, start(body=5), "body"),
    (START, start(customerUID=5), "customerUID"),
    (START, start(fields=["a"]), "fields"),
    (START, start(fields={"a": 1}), "fields"),
    (START, start(queueId=7), "queueId"),
    (SEND, {"body": 1}, "body"),
    (SEND, {"body": None}, "body"),
    (SEND, {"body": {"text": "x"}}, "body"),
    ("POST queues", {"name": "New", "active": "true"}, "active"),
    ("POST queues", {"name": "New", "active": 1}, "active"),
    ("POST queues", {"name": 1}, "name"),
    ("POST channels", {"type": "sandbox", "label": "New", "validityHours": "24"}, "validityHours"),
    ("POST channels", {"type": "sandbox", "label": "New", "validityHours": 1.5}, "validityHours"),
    ("POST channels", {"type": "sandbox", "label": "New", "validityHours": True}, "validityHours"),
    (HOOKS, hook(customValues="yes"), "customValues"),
    (HOOKS, hook(events="inboundMessage"), "events"),
    (HOOKS, hook(events=[1]), "events"),
    (HOOKS, hook(name=1), "name"),
    (HOOKS, hook(callbackUrl=1), "callbackUrl"),
    (PAY, {**PAYMENT, "amount": 1.0}, "amount"),
    # the body as a whole
    (SEND, [], "body"),
    (SEND, "text", "body"),
    (SEND, None, "body"),
    # missing and unknown fields
    (START, {}, "channelId"),
    (SEND, {}, "body"),
    (SEND, {"body": "Hello", "colour": "red"}, "colour"),
    (HOOKS, hook(colour="red"), "colour"),
    ("POST conversations/{conversation}/close", {"why": "x"}, "why"),
    # unknown ids and other organisations' ids
    (START, start(channelId="999999"), "channelId"),
    (START, start(channelId="x"), "channelId"),
    (START, start(channelId="9" * 40), "channelId"),
    (START, start(channelId="{their_channel}"), "channelId"),
    (START, start(queueId="{their_queue}"), "queueId"),
    (START, start(queueId="{inactive}"), "queueId"),
    ("POST conversations/{conversation}/queue", {"queueId": "{their_queue}"}, "queueId"),
    ("POST conversations/{conversation}/queue", {"queueId": "{inactive}"}, "queueId"),
    ("POST conversations/{conversation}/queue", {"queueId": None}, "queueId"),
    ("POST conversations/{conversation}/status", {"statusId": "{their_status}"}, "statusId"),
    ("POST conversations/{conversation}/status", {"statusId": "0"}, "statusId"),
    ("POST conversations/{conversation}/assignment", {"userId": "{their_agent}"}, "userId"),
    ("POST conversations/{conversation}/assignment", {"userId": "{viewer}"}, "userId"),
    ("POST conversations/{conversation}/assignment", {}, "userId"),
    (PAY, {**PAYMENT, "conversationId": "{their_conversation}"}, "conversationId"),
    ("POST sandbox/inbound", start(channelId="{their_channel}", body="x"), "channelId"),
    (TOKEN, {"organisationId": "{their_organisation}", "secretKey": "k" * 32}, "organisationId"),
    # limits
    (SEND, {"body": ""}, "body"),
    (SEND, {"body": "   "}, "body"),
    (SEND, {"body": "x" * 10_001}, "body"),
    (START, start(customerUID="x" * 256), "customerUID"),
    (START, start(outboundChannelAddress="123456"), "outboundChannelAddress"),
    (START, start(outboundChannelAddress="1" * 16), "outboundChannelAddress"),
    (START, start(outboundChannelAddress="+4477x7472695"), "outboundChannelAddress"),
    (START, start(outboundChannelAddress="٣٥٣٨٧١٢٣٤٥٦٧"), "outboundChannelAddress"),
    (START, start(fields={f"f{number}": "x" for number in range(101)}), "fields"),
    (START, start(fields={"f": "x" * 1001}), "fields.f"),
    (START, start(fields={"": "x"}), "fields"),
    (START, start(fields={"a<b": "x"}), "fields"),
    ("POST queues", {"name": "x" * 256}, "name"),
    ("POST queues", {"name": "Billing"}, "name"),
    ("POST statuses", {"name": ""}, "name"),
    ("POST contacts", {"address": "447717472695"}, "address"),
    ("POST contacts", {"address": "abc"}, "address"),
    ("POST channels", {"type": "pigeon", "label": "New"}, "type"),
    ("POST channels", {"type": "sandbox", "label": "New", "inboundRule": "x"}, "inboundRule"),
    ("POST channels", {"type": "sandbox", "label": "New", "validityHours": 0}, "validityHours"),
    (PAY, {**PAYMENT, "amount": "0.00"}, "amount"),
    (PAY, {**PAYMENT, "amount": "-1.00"}, "amount"),
    (PAY, {**PAYMENT, "amount": "1.001"}, "amount"),
    (PAY, {**PAYMENT, "amount": "NaN"}, "amount"),
    (PAY, {**PAYMENT, "currency": "XXXX"}, "currency"),
    (PAY, {**PAYMENT, "currency": "eur"}, "currency"),
    (PAY, {**PAYMENT, "reference": "x" * 256}, "reference"),
    # addresses of endpoints
    *[
        (HOOKS, hook(callbackUrl=url), "callbackUrl")
        for url in (
            "",
            "hooks.example.com/in",
            "ftp://hooks.example.com/in",
            "javascript:alert(1)",
            "https://user:pass@hooks.example.com/",
            "https://",
            "http://127.0.0.1/",
            "http://localhost:8000/",
            "http://[::1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://10.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "https://hooks.example.com/" + "x" * 2000,
            "https://hooks.example.com/a b",
            "https://hooks.example.com:99999/",
        )
    ],
    # events, secrets, choices
    (HOOKS, hook(events=["nothing"]), "events"),
    (HOOKS, hook(events=["inboundMessage", "messageStatusUpdate"]), "events"),
    (HOOKS, hook(events=[]), "events"),
    (HOOKS, hook(secret="short"), "secret"),
    (HOOKS, hook(secret="whsec_" + "A" * 8), "secret"),
    (HOOKS, hook(format="xml"), "format"),
    (HOOKS, hook(ordering="any"), "ordering"),
    (HOOKS, hook(customValues=True), "customValues"),
    ("PATCH webhooks/{hook}", {"state": "gone"}, "state"),
    ("PATCH webhooks/{hook}", {"name": "x", "events": ["nothing"]}, "events"),
    (TEST, {"event": "nothing"}, "event"),
    (TEST, {}, "event"),
    (TEST, {"event": "customValue", "fields": []}, "fields"),
    (TEST, {"event": "customValue", "fields": ["a>b"]}, "fields"),
    (TEST, {"event": "inboundMessage", "fields": ["a"]}, "fields"),
    (TOKEN, {"organisationId": "{organisation}", "secretKey": "k" * 31}, "secretKey"),
    (TOKEN, {"organisationId": "{organisation}", "secretKey": ""}, "secretKey"),
    (TOKEN, {"organisationId": 1, "secretKey": "k" * 32}, "organisationId"),
    (TOKEN, {"organisationId": "{organisation}"}, "secretKey"),
]


@pytest.mark.parametrize(("call", "body", "field"), TABLE)
def test_a_bad_body_is_refused_by_name_and_changes_nothing(
    client: Client, acme: Cast, names: dict[str, str], call: str, body: Any, field: str
) -> None:
    method, path = call.split(" ")
    before = state()
    answer = client.generic(
        method,
        f"/api/v1/{path.format(**names)}",
        json.dumps(fill(body, names)),
        content_type="application/json",
        headers={**acme.auth, "Idempotency-Key": "bad"} if method == "POST" else acme.auth,
    )
    assert answer.status_code == 400, answer.content[:300]
    assert answer["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert field in problem["errors"], problem
    assert problem["errors"][field][0]
    assert state() == before


#: name, bytes, rule at the end of the code
BYTES = [
    ("broken", b'{"body": "x"', "syntax"),
    ("two values", b'{"body": "x"} {}', "syntax"),
    ("trailing comma", b'{"body": "x",}', "syntax"),
    ("single quotes", b"{'body': 'x'}", "syntax"),
    ("duplicate keys", b'{"body": "x", "body": "y"}', "duplicate_key"),
    ("NaN", b'{"body": NaN}', "number"),
    ("infinity", b'{"body": 1e999}', "number"),
    ("a huge integer", b'{"body": 1' + b"0" * 5000 + b"}", "number"),
    ("escaped NUL", b'{"body": "a\\u0000b"}', "nul"),
    ("a lone surrogate", b'{"body": "\\ud800"}', "surrogate"),
    ("a lone low surrogate", b'{"body": "x\\udc00y"}', "surrogate"),
    ("invalid UTF-8", b'{"body": "\xff\xfe"}', "encoding"),
    ("an encoded surrogate", b'{"body": "\xed\xa0\x80"}', "encoding"),
    ("UTF-16", '{"body": "x"}'.encode("utf-16"), "encoding"),
    ("a byte order mark", b'\xef\xbb\xbf{"body": "x"}', "encoding"),
    ("33 levels", b'{"body": ' + b"[" * 33 + b"]" * 33 + b"}", "depth"),
    ("400,000 brackets", b"[" * 400_000, "depth"),
    ("raw control characters", b'{"body": "a\nb"}', "syntax"),
]


@pytest.mark.parametrize(("data", "rule"), [row[1:] for row in BYTES], ids=[row[0] for row in BYTES])
def test_what_is_not_strict_json_is_refused_by_rule(client: Client, acme: Cast, data: bytes, rule: str) -> None:
    before = state()
    path = f"/api/v1/conversations/{acme.conversation.pk}/messages"
    answer = client.post(path, data, content_type="application/json", headers=acme.auth)
    assert answer.status_code == 400, answer.content[:300]
    problem = answer.json()
    assert problem["code"].endswith(rule), problem
    assert problem["errors"]
    assert state() == before


def test_ten_megabytes_are_413(client: Client, acme: Cast) -> None:
    before = state()
    data = b'{"body": "' + b"x" * 10_000_000 + b'"}'
    path = f"/api/v1/conversations/{acme.conversation.pk}/messages"
    answer = client.post(path, data, content_type="application/json", headers=acme.auth)
    assert answer.status_code == 413
    assert answer["Content-Type"] == "application/problem+json"
    assert state() == before


def test_the_33rd_webhook_is_refused(client: Client, acme: Cast) -> None:
    for number in range(32):
        answer = client.post(
            "/api/v1/webhooks",
            json.dumps(hook(name=f"hook {number}")),
            content_type="application/json",
            headers=acme.auth,
        )
        assert answer.status_code == 201
    before = state()
    answer = client.post("/api/v1/webhooks", json.dumps(HOOK), content_type="application/json", headers=acme.auth)
    assert answer.status_code in (400, 409)
    assert answer.json()["code"] == "webhook_limit"
    assert "32" in answer.json()["detail"]
    assert state() == before


#: list, query, parameter that must be named
QUERIES = [
    ("conversations", "limit=0", "limit"),
    ("conversations", "limit=201", "limit"),
    ("conversations", "limit=x", "limit"),
    ("conversations", "limit=%D9%A3", "limit"),
    ("conversations", "limit=5&limit=6", "limit"),
    ("conversations", "cursor=x", "cursor"),
    ("conversations", "cursor=", "cursor"),
    ("conversations", "colour=red", "colour"),
    ("conversations", "state=nothing", "state"),
    ("conversations", "state=op%00en", "state"),
    ("conversations", "queueId=x", "queueId"),
    ("conversations", "statusId=-1", "statusId"),
    ("conversations", "address=abc", "address"),
    ("conversations", "updatedSince=yesterday", "updatedSince"),
    ("conversations", "updatedSince=2026-01-31", "updatedSince"),
    ("conversations", "updatedSince=2026-01-31T09:00:00", "updatedSince"),
    ("conversations", "updatedSince=0001-01-01T00:00:00%2B14:00", "updatedSince"),
    ("conversations/{conversation}/messages", "limit=0", "limit"),
    ("events", "after=x", "after"),
    ("events", "limit=0", "limit"),
    ("webhooks/{hook}/deliveries", "state=nothing", "state"),
    ("webhooks/{hook}/deliveries", "type=nothing", "type"),
    ("organisation", "x=1", "x"),
]


@pytest.mark.parametrize(("path", "query", "name"), QUERIES)
def test_a_bad_parameter_is_refused_by_name(
    client: Client, acme: Cast, names: dict[str, str], path: str, query: str, name: str
) -> None:
    answer = client.get(f"/api/v1/{path.format(**names)}?{query}", headers=acme.auth)
    assert answer.status_code == 400, answer.content[:300]
    assert name in answer.json()["errors"]
