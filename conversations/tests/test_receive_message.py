"""Inbound messages find or make their conversation; reports about outbound ones move them forward only."""

from __future__ import annotations

from datetime import timedelta

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Conversation, Event, Message
from core.actors import SYSTEM
from core.clock import held_at
from core.errors import Conflict, Invalid, NotFound

HOUR = timedelta(hours=1)


def later(cast: Cast, hours: float) -> Message:
    cast.conversation.refresh_from_db()
    with held_at(cast.conversation.last_message_at + hours * HOUR):
        return actions.receive_message(channel=cast.channel, address="+44 7717 472695", body="Again")


def types(conversation: Conversation) -> list[str]:
    rows = Event.objects.filter(conversation=conversation.pk).order_by("seq")
    return list(rows.values_list("type", flat=True))


def test_within_its_validity_an_open_conversation_goes_on(acme: Cast) -> None:
    assert later(acme, 23.9).conversation_id == acme.conversation.pk


def test_past_its_validity_it_is_closed_by_the_system_and_a_new_one_starts(acme: Cast) -> None:
    message = later(acme, 24)
    acme.conversation.refresh_from_db()
    assert (message.conversation_id != acme.conversation.pk, acme.conversation.state) == (True, "closed")
    assert types(acme.conversation)[-1] == "conversationClosed"
    assert Event.objects.get(type="conversationClosed").data["facts"] == {"closedBy": "system"}
    assert types(message.conversation) == ["conversationStarted", "inboundMessage"]


def test_the_reopen_rule_reopens_the_newest_closed_one(acme: Cast) -> None:
    actions.update_channel(channel=acme.channel, actor=SYSTEM, inbound_rule="reopen")
    where = {"organisation": acme.organisation, "conversation_id": acme.conversation.pk}
    actions.close_conversation(**where, actor=SYSTEM)
    assert later(acme, 100).conversation_id == acme.conversation.pk
    assert types(acme.conversation)[-2:] == ["conversationReopened", "inboundMessage"]


@pytest.mark.parametrize(("address", "body"), [("12", "Hi"), ("447717472695", ""), ("447717472695", "a\x00b")])
def test_bad_input_is_refused_and_changes_nothing(acme: Cast, address: str, body: str) -> None:
    with pytest.raises(Invalid):
        actions.receive_message(channel=acme.channel, address=address, body=body)
    assert (Message.objects.count(), Event.objects.count()) == (1, 2)


def test_reports_late_twice_and_unknown_do_no_harm(acme: Cast) -> None:
    message = actions.send_message(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, body="Reply"
    )
    for code in (2, 1, 2, 3):
        actions.report_outcome(channel=acme.channel, message_id=message.pk, status_code=code)
    assert actions.report_outcome(channel=acme.channel, message_id=10**9, status_code=2) is None
    assert actions.report_outcome(channel=acme.channel, message_id=acme.message.pk, status_code=2) is None
    with pytest.raises(Invalid):
        actions.report_outcome(channel=acme.channel, message_id=message.pk, status_code=8)
    message.refresh_from_db()
    assert (message.state, message.status_code, len(message.outcomes)) == ("delivered", 2, 2)
    assert types(acme.conversation)[2:] == ["messageSend", "deliveryReport"]


def test_verbs_refuse_and_nothing_changes(acme: Cast, globex: Cast) -> None:
    where = {"organisation": acme.organisation, "actor": SYSTEM, "conversation_id": acme.conversation.pk}
    foreign = {**where, "conversation_id": globex.conversation.pk}
    before = Event.objects.count()
    with pytest.raises(Invalid, match="inactive"):
        actions.move_to_queue(**where, queue_id=acme.inactive_queue.pk)
    with pytest.raises(Invalid):
        actions.move_to_queue(**where, queue_id=globex.queue.pk)
    with pytest.raises(Invalid):
        actions.set_status(**where, status_id=globex.status.pk)
    with pytest.raises(Invalid):
        actions.assign_conversation(**where, user_id=acme.viewer.pk)
    with pytest.raises(Invalid):
        actions.assign_conversation(**where, user_id=globex.agent.pk)
    with pytest.raises(NotFound):
        actions.close_conversation(**foreign)
    with pytest.raises(NotFound):
        actions.add_note(**foreign, body="Hi")
    with pytest.raises(Conflict) as open_one:
        actions.start_conversation(
            organisation=acme.organisation, actor=SYSTEM, channel_id=acme.channel.pk, address="447717472695"
        )
    assert open_one.value.extra == {"conversationId": str(acme.conversation.pk)}
    with pytest.raises(Conflict):
        actions.reopen_conversation(**where)
    assert Event.objects.count() == before
    actions.close_conversation(**where)
    before = Event.objects.count()
    for refused in (
        lambda: actions.close_conversation(**where),
        lambda: actions.send_message(**where, body="Hi"),
        lambda: actions.move_to_queue(**where, queue_id=acme.queue.pk),
        lambda: actions.take_conversation(**where, user_id=acme.agent.pk),
        lambda: actions.unassign_conversation(**where),
    ):
        with pytest.raises(Conflict, match=r"closed|not open"):
            refused()
    assert Event.objects.count() == before
