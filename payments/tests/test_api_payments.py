"""Payments through the API, as strangers, repeaters and pollers see them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.actions import close_conversation, receive_message
from conversations.tests.refusals import everything
from core.actors import SYSTEM
from organisations.tests.calls import call, pages, with_scopes
from payments.actions import record_payment
from payments.models import Payment


def record(cast: Cast, reference: str = "r", conversation_id: int | None = None) -> Payment:
    """A payment of the cast's conversation, or of another one."""
    return record_payment(
        organisation=cast.organisation,
        actor=SYSTEM,
        conversation_id=conversation_id or cast.conversation.pk,
        amount=Decimal("1.5"),
        currency="EUR",
        reference=reference,
    )


def body(cast: Cast, **changes: Any) -> dict[str, Any]:
    """A good body, changed."""
    return {"conversationId": str(cast.conversation.pk), "amount": "7", "currency": "EUR", **changes}


def state() -> dict[str, Any]:
    """Every row that a call on payments can write."""
    return {**everything(), "Payment": list(Payment.objects.order_by("pk").values())}


def test_the_answer_has_these_keys_and_the_reference_is_optional(client: Client, acme: Cast) -> None:
    answer = call(client, acme, "POST", "payments", body(acme))
    assert answer.status_code == 201
    assert set(answer.json()) == {"id", "conversationId", "amount", "currency", "reference", "createdAt"}
    assert (answer.json()["amount"], answer.json()["reference"]) == ("7.00", "")


def test_a_closed_conversation_can_still_be_paid(client: Client, acme: Cast) -> None:
    close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    assert call(client, acme, "POST", "payments", body(acme)).status_code == 201


def test_the_same_idempotency_key_records_once(client: Client, acme: Cast) -> None:
    headers = {**acme.auth, "Idempotency-Key": "pay"}
    first, second = (call(client, acme, "POST", "payments", body(acme), headers) for _ in range(2))
    assert first.json() == second.json()
    assert Payment.objects.count() == 1


def test_the_list_is_newest_first_and_by_conversation(client: Client, acme: Cast) -> None:
    other = receive_message(channel=acme.channel, address="353870000000", body="x").conversation_id
    made = [record(acme).pk, record(acme, conversation_id=other).pk, record(acme).pk]
    for query, expected in (
        ("", made[::-1]),
        (f"?conversationId={acme.conversation.pk}", [made[2], made[0]]),
        (f"?conversationId={other}", [made[1]]),
    ):
        found = call(client, acme, "GET", f"payments{query}").json()["results"]
        assert [int(row["id"]) for row in found] == expected, query


def test_pages_hold_each_once(client: Client, acme: Cast) -> None:
    for number in range(5):
        record(acme, str(number))
    found = pages(client, acme, f"payments?limit=2&conversationId={acme.conversation.pk}")
    assert [[row["reference"] for row in page] for page in found] == [["4", "3"], ["2", "1"], ["0"]]


def test_nothing_of_another_organisation_is_found_by_any_way(client: Client, acme: Cast, globex: Cast) -> None:
    theirs = [record(globex), record(globex)]
    before = state()
    assert call(client, acme, "GET", f"payments?conversationId={globex.conversation.pk}").json()["results"] == []
    cursor = call(client, globex, "GET", "payments?limit=1").json()["next"]
    answer = call(client, acme, "GET", cursor)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["cursor"])
    for pk in (theirs[0].pk, 999999):
        assert call(client, acme, "GET", f"payments/{pk}").status_code == 404
    foreign, absent = (
        call(client, acme, "POST", "payments", body(acme, conversationId=pk))
        for pk in (str(globex.conversation.pk), "999999")
    )
    assert (foreign.status_code, foreign.json()) == (400, absent.json())
    assert state() == before


def test_reading_and_recording_take_a_scope_each(client: Client, acme: Cast) -> None:
    payment = record(acme)
    reader = with_scopes(acme, "payments:read", "conversations:write")
    writer = with_scopes(acme, "payments:write", "conversations:read")
    before = state()
    for method, path, sent, headers, scope in (
        ("POST", "payments", body(acme), reader, "payments:write"),
        ("GET", "payments", None, writer, "payments:read"),
        ("GET", f"payments/{payment.pk}", None, writer, "payments:read"),
    ):
        answer = call(client, acme, method, path, sent, headers)
        assert (answer.status_code, answer.json()["scope"]) == (403, scope)
        assert call(client, acme, method, path, sent, {}).status_code == 401
    assert state() == before


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_what_is_recorded_stays(client: Client, acme: Cast, method: str) -> None:
    payment = record(acme)
    before = state()
    assert call(client, acme, method, f"payments/{payment.pk}", {}).status_code == 405
    assert state() == before


def test_the_list_takes_as_many_queries_for_many_as_for_one(
    client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "0"
    record(acme)
    call(client, acme, "GET", "payments")
    with django_assert_max_num_queries(2):
        call(client, acme, "GET", "payments")
    for _ in range(20):
        record(acme)
    with django_assert_max_num_queries(2):
        assert len(call(client, acme, "GET", "payments").json()["results"]) == 21
