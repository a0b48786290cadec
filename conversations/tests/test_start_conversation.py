"""Starting opens one conversation with a contact, or says why not."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Contact, Message
from conversations.tests.refusals import newest, refused, types
from core.actors import Actor
from core.errors import Conflict, Invalid

API = Actor("api", "7", "wk_abc")


def start(cast: Cast, **values: Any) -> Any:
    given = {"channel_id": cast.channel.pk, "address": "+44 (7700) 900-001", **values}
    return actions.start_conversation(organisation=cast.organisation, actor=API, **given)


def test_it_opens_a_conversation_with_a_new_contact(acme: Cast) -> None:
    conversation, message = start(acme)
    assert (message, conversation.state, conversation.queue_id, conversation.status_id) == (None, "open", None, None)
    assert conversation.contact.address == "447700900001"
    assert types(conversation) == ["conversationStarted"]
    assert (newest(conversation).actor_kind, newest(conversation).actor_label) == ("api", "wk_abc")


def test_a_body_is_sent_as_the_first_message(acme: Cast) -> None:
    conversation, message = start(acme, body="Hello")
    assert (message.body, message.actor_kind, message.actor_id) == ("Hello", "api", "7")
    assert list(conversation.messages.values_list("pk", flat=True)) == [message.pk]


def test_status_and_queue_given_in_the_call_are_told_as_changes(acme: Cast) -> None:
    conversation, _ = start(acme, queue_id=acme.queue.pk, status_id=acme.status.pk)
    assert types(conversation) == ["conversationStarted", "setStatus", "moveToQueue"]
    assert newest(conversation).data["facts"] == {
        "queue": "Billing",
        "queueId": str(acme.queue.pk),
        "previousQueue": "",
        "previousQueueId": "",
    }


def test_a_customer_uid_is_kept_with_the_contact_for_the_next_conversation(acme: Cast) -> None:
    first, _ = start(acme, customer_uid="cust-1", fields={"plan": "gold"})
    assert (first.customer_uid, first.fields) == ("cust-1", {"plan": "gold"})
    actions.close_conversation(organisation=acme.organisation, actor=API, conversation_id=first.pk)
    second, _ = start(acme)
    assert (second.contact_id, second.customer_uid) == (first.contact_id, "cust-1")
    assert Contact.objects.get(pk=first.contact_id).customer_uid == "cust-1"


def test_a_second_start_is_told_which_conversation_is_open(acme: Cast) -> None:
    with refused(Conflict, "conversation_open") as refusal:
        start(acme, address=acme.contact.address, customer_uid="other", body="Hello")
    assert refusal.value.extra == {"conversationId": str(acme.conversation.pk)}


def test_the_same_address_on_another_channel_is_another_conversation(acme: Cast) -> None:
    channel = actions.create_channel(organisation=acme.organisation, actor=API, kind="sandbox", label="Second")
    conversation, _ = start(acme, channel_id=channel.pk, address=acme.contact.address)
    assert (conversation.contact_id, conversation.pk != acme.conversation.pk) == (acme.contact.pk, True)


def test_organisations_may_talk_to_the_same_address(acme: Cast, globex: Cast) -> None:
    assert start(acme)[0].contact_id != start(globex)[0].contact_id


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"address": "12345"}, "outboundChannelAddress"),
        ({"customer_uid": "c" * 256}, "customerUID"),
        ({"body": ""}, "body"),
        ({"body": "b" * 10_001}, "body"),
        ({"fields": {"a<b": "x"}}, "fields"),
        ({"channel_id": 0}, "channelId"),
        ({"queue_id": 0}, "queueId"),
        ({"status_id": 0}, "statusId"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(acme: Cast, values: dict[str, Any], field: str) -> None:
    with refused(Invalid) as refusal:
        start(acme, **values)
    assert list(refusal.value.errors) == [field]


def test_what_belongs_to_somebody_else_does_not_exist(acme: Cast, globex: Cast) -> None:
    for foreign in (
        {"channel_id": globex.channel.pk},
        {"queue_id": globex.queue.pk},
        {"status_id": globex.status.pk},
    ):
        with refused(Invalid, "unknown_object"):
            start(acme, **foreign)


def test_an_inactive_queue_and_an_archived_channel_are_refused(acme: Cast) -> None:
    with refused(Invalid, "queue_inactive"):
        start(acme, queue_id=acme.inactive_queue.pk)
    spare = actions.create_channel(organisation=acme.organisation, actor=API, kind="sandbox", label="Spare")
    actions.archive_channel(channel=spare, actor=API)
    with refused(Invalid, "unknown_object"):
        start(acme, channel_id=spare.pk)


def test_the_longest_body_is_kept_whole(acme: Cast) -> None:
    _, message = start(acme, body="é" * 10_000)
    assert Message.objects.get(pk=message.pk).body == "é" * 10_000
