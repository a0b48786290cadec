"""The trace of an API call goes on with the deliveries of what it did, beside bodies that know nothing of it."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client

from conftest import Cast
from conversations import actions
from conversations.models import Event
from core.actors import SYSTEM
from core.clock import now
from core.errors import Invalid
from core.trace import current_trace, new_traceparent, trace_of, tracing
from webhooks.custom_headers import clean_headers
from webhooks.models import Outstanding, Webhook
from webhooks.payloads import render
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{PARENT}-01"
SENT = re.compile(rf"00-{TRACE}-(?P<parent>[0-9a-f]{{16}})-01")

BAD = (
    "",
    "nonsense",
    GIVEN.upper(),
    GIVEN + "-more",
    GIVEN + "\n",
    f"{GIVEN},{GIVEN}",
    f"ff-{TRACE}-{PARENT}-01",
    f"00-{'0' * 32}-{PARENT}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE[:-1]}-{PARENT}-01",
    f"00-{TRACE}-{PARENT}",
    f"00-{TRACE}-{PARENT}-1",
    f"00-{TRACE}-{PARENT}-0g",
)


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_traceparent_names_no_trace(bad: str) -> None:
    assert trace_of(bad) == ""


def test_known_flags_are_kept_and_later_versions_understood() -> None:
    assert trace_of(GIVEN) == f"{TRACE}-01"
    assert trace_of(f"00-{TRACE}-{PARENT}-ff") == f"{TRACE}-03"
    assert trace_of(f"01-{TRACE}-{PARENT}-00-something-new") == f"{TRACE}-00"


def test_a_new_traceparent_is_valid_and_has_a_parent_id_of_its_own() -> None:
    made = {new_traceparent(f"{TRACE}-01") for _number in range(100)}
    assert len(made) == 100
    assert all(SENT.fullmatch(one) and trace_of(one) == f"{TRACE}-01" for one in made)


def test_the_trace_ends_with_the_block() -> None:
    with tracing(GIVEN):
        assert current_trace() == f"{TRACE}-01"
        with tracing(None):
            assert current_trace() == ""
    assert current_trace() == ""


def set_status(client: Client, cast: Cast, **headers: str) -> None:
    """An API call that records an event."""
    path = f"/api/v1/conversations/{cast.conversation.pk}/status"
    body = json.dumps({"statusId": str(cast.status.pk)})
    answer = client.post(path, body, "application/json", headers={**cast.auth, **headers})
    assert answer.status_code == 200, answer.content


@pytest.mark.django_db
@pytest.mark.parametrize("format", Webhook.Format.values)
def test_each_attempt_continues_the_trace_of_the_call_and_sends_the_bytes_it_sends_without(
    acme: Cast, client: Client, endpoint: Endpoint, format: str
) -> None:
    make_webhook(acme, callback_url=endpoint.url, events=["setStatus"], format=format)
    set_status(client, acme, traceparent=GIVEN)
    endpoint.status = 500
    deliver()
    Outstanding.objects.update(next_attempt_at=now())
    deliver()
    first, second = endpoint.asked
    parents = {found["parent"] for asked in (first, second) if (found := SENT.fullmatch(asked.headers["traceparent"]))}
    assert len(parents) == 2
    assert PARENT not in parents
    event = Event.objects.get(type="setStatus")
    event.data.pop("trace")
    assert first.body == second.body == render(event, format)
    assert TRACE.encode() not in first.body


@pytest.mark.django_db
@pytest.mark.parametrize("given", [None, "nonsense", f"ff-{TRACE}-{PARENT}-01"])
def test_without_a_good_traceparent_none_is_kept_or_sent(
    acme: Cast, client: Client, endpoint: Endpoint, given: str | None
) -> None:
    make_webhook(acme, callback_url=endpoint.url, events=["setStatus"])
    set_status(client, acme, **({} if given is None else {"traceparent": given}))
    deliver()
    assert "trace" not in Event.objects.get(type="setStatus").data
    assert "traceparent" not in endpoint.asked[0].headers


@pytest.mark.django_db
@pytest.mark.parametrize("event", ["payment", "customValue"])
def test_a_test_continues_the_trace_of_its_call(acme: Cast, client: Client, endpoint: Endpoint, event: str) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, custom_values=True)
    body = {"event": event} | ({"fields": ["balance"]} if event == "customValue" else {})
    path = f"/api/v1/webhooks/{webhook.pk}/test"
    for given in ({"traceparent": GIVEN}, {}):
        answer = client.post(path, json.dumps(body), "application/json", headers={**acme.auth, **given})
        assert answer.status_code == 200, answer.content
    traced, untraced = endpoint.asked
    found = SENT.fullmatch(traced.headers["traceparent"])
    assert found is not None
    assert found["parent"] != PARENT
    assert "traceparent" not in untraced.headers


@pytest.mark.django_db
def test_what_happens_after_the_call_is_not_of_its_trace(acme: Cast, client: Client) -> None:
    set_status(client, acme, traceparent=GIVEN)
    actions.move_to_queue(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, queue_id=acme.queue.pk
    )
    assert "trace" not in Event.objects.get(type="moveToQueue").data


def test_a_customer_cannot_set_it_for_all_requests() -> None:
    with pytest.raises(Invalid) as refusal:
        clean_headers("headers", {"TraceParent": GIVEN})
    assert "TraceParent" in refusal.value.errors["headers"][0]
