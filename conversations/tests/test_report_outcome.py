"""A carrier's report moves a message forward once, whatever order reports come in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Message
from conversations.outcomes import OUTCOMES
from conversations.tests.refusals import newest, refused, types, unchanged
from core.actors import SYSTEM
from core.errors import Invalid


@pytest.fixture
def sent(acme: Cast) -> Message:
    message = actions.send_message(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, body="Reply"
    )
    actions.report_outcome(channel=acme.channel, message_id=message.pk, status_code=1)
    message.refresh_from_db()
    return message


def report(cast: Cast, message: Message, code: int) -> None:
    actions.report_outcome(channel=cast.channel, message_id=message.pk, status_code=code)
    message.refresh_from_db()


@pytest.mark.parametrize("code", [code for code in OUTCOMES if code != 1])
def test_each_outcome_is_told_once_with_its_code(acme: Cast, sent: Message, code: int) -> None:
    report(acme, sent, code)
    assert (sent.state, sent.status_code) == (OUTCOMES[code].state, code)
    assert types(acme.conversation)[3:] == ["deliveryReport"]
    facts = {"communicationActionId": str(sent.pk), "statusCode": str(code)}
    assert newest(acme.conversation).data["facts"] == facts
    with unchanged():
        report(acme, sent, code)


@pytest.mark.parametrize(
    ("first", "late"),
    [(2, 1), (4, 2), (4, 1), (2, 5), (4, 22), (3, 1), (3, 2), (3, 4), (3, 5)],
)
def test_a_late_report_moves_nothing_backwards(acme: Cast, sent: Message, first: int, late: int) -> None:
    report(acme, sent, first)
    with unchanged():
        report(acme, sent, late)


def test_read_after_delivered_is_told_too(acme: Cast, sent: Message) -> None:
    report(acme, sent, 2)
    report(acme, sent, 4)
    assert types(acme.conversation)[3:] == ["deliveryReport", "deliveryReport"]
    assert [outcome["statusCode"] for outcome in sent.outcomes] == ["1", "2", "4"]


def test_the_carriers_time_is_kept_when_it_gives_one(acme: Cast, sent: Message) -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 250_000, UTC)
    actions.report_outcome(channel=acme.channel, message_id=sent.pk, status_code=2, occurred_at=moment)
    sent.refresh_from_db()
    assert sent.outcomes[-1] == {"statusCode": "2", "at": "2026-03-01T12:30:15.250+00:00"}


def test_the_carriers_id_finds_the_message(acme: Cast, sent: Message) -> None:
    Message.objects.filter(pk=sent.pk).update(external_id="carrier-9")
    actions.report_outcome(channel=acme.channel, external_id="carrier-9", status_code=2)
    sent.refresh_from_db()
    assert sent.state == "delivered"


def test_a_closed_conversation_still_hears_of_its_messages(acme: Cast, sent: Message) -> None:
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    report(acme, sent, 2)
    assert types(acme.conversation)[-2:] == ["conversationClosed", "deliveryReport"]


def test_another_channels_report_finds_no_message(acme: Cast, globex: Cast, sent: Message) -> None:
    with unchanged():
        found = actions.report_outcome(channel=globex.channel, message_id=sent.pk, status_code=2)
    assert found is None


def test_an_unknown_code_and_a_nameless_report_are_refused(acme: Cast, sent: Message) -> None:
    for code in (0, 8, 13, 99):
        with refused(Invalid):
            report(acme, sent, code)
    with refused(Invalid):
        actions.report_outcome(channel=acme.channel, status_code=2)
