"""A message sent on a sandbox channel."""

import json
from datetime import timedelta

import pytest
from django.db import transaction

from conversations import actions
from conversations.models import Event, Message
from conversations.outcomes import OUTCOMES
from core import wakeup
from core.actors import SYSTEM
from core.clock import held_at, now
from gateways.sandbox import carrier
from gateways.sandbox.models import SandboxReport


def start(cast, address, body="Hello"):
    return actions.start_conversation(
        organisation=cast.organisation, actor=SYSTEM, channel_id=cast.channel.pk, address=address, body=body
    )[1]


def test_a_message_is_sent_in_the_transaction_that_saves_it(acme):
    moment = now()
    with held_at(moment):
        message = start(acme, "447700900999")
    message.refresh_from_db()
    assert (message.state, message.status_code) == ("sent", 1)
    report = SandboxReport.objects.get(message=message)
    assert report.organisation_id == acme.organisation.pk
    assert report.status_code == 2
    assert report.due_at == moment + timedelta(milliseconds=300)
    assert list(
        Event.objects.filter(conversation=message.conversation).order_by("seq").values_list("type", flat=True)
    ) == [
        "conversationStarted",
        "messageSend",
    ]


def test_nothing_is_left_of_a_message_that_is_rolled_back(acme):
    with transaction.atomic():
        start(acme, "447700900999")
        transaction.set_rollback(True)
    assert not SandboxReport.objects.exists()
    assert not Message.objects.filter(direction="outbound").exists()


def test_an_inbound_message_is_not_reported(acme):
    assert not SandboxReport.objects.exists()


@pytest.mark.parametrize(
    ("ending", "code"),
    [(f"00{code:02}", code if outcome.state == "failed" else 2) for code, outcome in OUTCOMES.items()]
    + [("0000", 2), ("0008", 2), ("0099", 2), ("1005", 2), ("0105", 2)],
)
def test_the_ending_of_the_address_decides_the_outcome(ending, code):
    assert carrier.verdict("44770090" + ending) == code


def test_a_due_report_is_made_once_and_its_row_goes(acme):
    message = start(acme, "447700900012")
    assert carrier.report_due() == 0
    with held_at(now() + timedelta(milliseconds=301)):
        assert carrier.report_due() == 1
        assert carrier.report_due() == 0
    message.refresh_from_db()
    assert (message.state, message.status_code) == ("failed", 12)
    assert not SandboxReport.objects.exists()
    told = Event.objects.filter(conversation=message.conversation, type="deliveryReport").get()
    assert told.data["facts"] == {"communicationActionId": str(message.pk), "statusCode": "12"}


def test_a_report_whose_process_died_is_made_when_its_claim_ends(acme):
    message = start(acme, "447700900999")
    with held_at(now() + timedelta(seconds=1)):
        assert len(carrier._claim()) == 1
        assert carrier.report_due() == 0
    with held_at(now() + timedelta(seconds=1) + carrier.CLAIM):
        assert carrier.report_due() == 1
    message.refresh_from_db()
    assert message.state == "delivered"


def test_a_report_that_was_made_by_two_processes_is_told_once(acme):
    message = start(acme, "447700900999")
    with held_at(now() + timedelta(seconds=1)):
        carrier._claim()
    with held_at(now() + timedelta(seconds=1) + carrier.CLAIM):
        slow = SandboxReport.objects.get()
        carrier.report_due()
        slow.save(force_insert=True)
        SandboxReport.objects.update(due_at=now())
        carrier.report_due()
    assert Event.objects.filter(conversation=message.conversation, type="deliveryReport").count() == 1
    assert not SandboxReport.objects.exists()


def test_a_closed_conversation_still_gets_its_report(acme):
    message = start(acme, "447700900999")
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=message.conversation_id)
    with held_at(now() + timedelta(seconds=1)):
        carrier.report_due()
    message.refresh_from_db()
    assert message.state == "delivered"


def test_reports_keep_to_their_organisation(acme, globex):
    start(acme, "447700900999")
    theirs = start(globex, "447700900999")
    assert SandboxReport.objects.get(message=theirs).organisation_id == globex.organisation.pk
    with pytest.raises(Exception, match=r"never changes|another organisation"), transaction.atomic():
        SandboxReport.objects.filter(message=theirs).update(organisation=acme.organisation)


@pytest.mark.django_db(transaction=True)
def test_many_messages_of_one_commit_wake_the_carrier_once(monkeypatch):
    from conftest import make_cast

    cast = make_cast("acme")
    woken = []
    monkeypatch.setattr(wakeup, "send", lambda name, topic: woken.append(name))
    with transaction.atomic():
        first = start(cast, "447700900999")
        for _ in range(4):
            actions.send_message(
                organisation=cast.organisation, actor=SYSTEM, conversation_id=first.conversation_id, body="again"
            )
    assert woken.count("sandbox") == 1


def test_outcomes_are_kept_in_order(acme):
    message = start(acme, "447700900999")
    with held_at(now() + timedelta(seconds=1)):
        carrier.report_due()
    message.refresh_from_db()
    assert [entry["statusCode"] for entry in message.outcomes] == ["1", "2"]
    assert json.dumps(message.outcomes)
