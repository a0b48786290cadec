"""Recording a payment, by verb and by API."""

from decimal import Decimal

import pytest

from conversations.models import Event
from core.actors import Actor
from core.errors import Invalid, NotFound
from payments.actions import record_payment
from payments.models import Payment

ADA = Actor("user", "7", "ada@acme.example")
PATH = "/api/v1/payments"


def record(cast, **changes):
    given = {
        "organisation": cast.organisation,
        "actor": ADA,
        "conversation_id": cast.conversation.pk,
        "amount": Decimal("120.5"),
        "currency": "EUR",
        "reference": "INV-2041",
    }
    return record_payment(**{**given, **changes})


def post(client, cast, **changes):
    body = {"conversationId": str(cast.conversation.pk), "amount": "120.50", "currency": "EUR", "reference": "INV-2041"}
    return client.post(PATH, {**body, **changes}, content_type="application/json", headers=cast.auth)


def test_a_payment_and_its_event_are_recorded_together(acme):
    payment = record(acme)
    event = Event.objects.get(type="payment")
    assert event.conversation_id == acme.conversation.pk
    assert event.actor_label == "ada@acme.example"
    assert event.data["facts"] == {
        "paymentId": str(payment.pk),
        "reference": "INV-2041",
        "amount": "120.50",
        "currency": "EUR",
        "statusCode": "paid",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": Decimal("0")},
        {"amount": Decimal("-1")},
        {"amount": Decimal("0.001")},
        {"amount": Decimal("NaN")},
        {"amount": Decimal("Infinity")},
        {"amount": Decimal("1000000000000")},
        {"currency": "eur"},
        {"currency": "XXX"},
        {"reference": "x" * 256},
        {"reference": "a\0b"},
    ],
)
def test_a_bad_payment_records_nothing(acme, changes):
    with pytest.raises(Invalid) as refusal:
        record(acme, **changes)
    assert list(refusal.value.errors) == list(changes)
    assert not Payment.objects.exists()
    assert not Event.objects.filter(type="payment").exists()


def test_another_organisations_conversation_takes_no_payment(acme, globex):
    with pytest.raises(NotFound):
        record(acme, conversation_id=globex.conversation.pk)
    assert not Payment.objects.exists()


def test_the_api_records_lists_and_reads(client, acme):
    made = post(client, acme)
    assert made.status_code == 201
    shape = made.json()
    assert shape["amount"] == "120.50"
    assert shape["conversationId"] == str(acme.conversation.pk)
    assert client.get(f"{PATH}/{shape['id']}", headers=acme.auth).json() == shape
    assert client.get(PATH, headers=acme.auth).json()["results"] == [shape]
    filtered = client.get(PATH, {"conversationId": "999999"}, headers=acme.auth)
    assert filtered.json()["results"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 120.5},
        {"amount": "120.505"},
        {"amount": "-1"},
        {"amount": "0"},
        {"amount": "1e3"},
        {"currency": "EURO"},
        {"conversationId": 1},
        {"conversationId": "999999"},
        {"reference": None},
        {"extra": "x"},
    ],
)
def test_the_api_names_what_is_wrong(client, acme, changes):
    refused = post(client, acme, **changes)
    assert refused.status_code == 400
    assert list(refused.json()["errors"]) == list(changes)
    assert not Payment.objects.exists()


def test_the_api_shows_nothing_of_another_organisation(client, acme, globex):
    theirs = record(globex)
    assert client.get(f"{PATH}/{theirs.pk}", headers=acme.auth).status_code == 404
    assert client.get(PATH, headers=acme.auth).json()["results"] == []
    assert post(client, acme, conversationId=str(globex.conversation.pk)).status_code == 400
    assert Payment.objects.count() == 1
