"""Sending puts a text into an open conversation and starts its validity anew."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Message
from conversations.tests.refusals import newest, refused, types
from core.actors import SYSTEM, Actor
from core.clock import held_at
from core.errors import Conflict, Invalid, NotFound

AGENT = Actor("user", "31", "ada@acme.example")


def send(cast: Cast, body: Any = "Reply", conversation_id: int | None = None) -> Message:
    return actions.send_message(
        organisation=cast.organisation,
        actor=AGENT,
        conversation_id=conversation_id or cast.conversation.pk,
        body=body,
    )


def test_the_message_is_kept_with_its_sender(acme: Cast) -> None:
    message = Message.objects.get(pk=send(acme).pk)
    assert (message.body, message.direction, message.channel_id) == ("Reply", "outbound", acme.channel.pk)
    assert (message.actor_kind, message.actor_id, message.actor_label) == ("user", "31", "ada@acme.example")


def test_its_going_out_is_told_with_the_same_id_and_text(acme: Cast) -> None:
    message = send(acme)
    actions.report_outcome(channel=acme.channel, message_id=message.pk, status_code=1)
    assert types(acme.conversation)[2:] == ["messageSend"]
    assert newest(acme.conversation).data["facts"] == {
        "communicationActionId": str(message.pk),
        "body": "Reply",
        "statusCode": "1",
    }


def test_it_starts_the_validity_anew(acme: Cast) -> None:
    acme.conversation.refresh_from_db()
    later = acme.conversation.last_message_at + timedelta(hours=20)
    with held_at(later):
        send(acme)
    acme.conversation.refresh_from_db()
    assert acme.conversation.last_message_at == later


def test_a_closed_conversation_takes_none(acme: Cast) -> None:
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    with refused(Conflict, "conversation_closed"):
        send(acme)


@pytest.mark.parametrize("body", ["", "   ", "a\x00b", "\ud800", "b" * 10_001, 5, None])
def test_a_bad_body_is_refused_and_changes_nothing(acme: Cast, body: Any) -> None:
    with refused(Invalid) as refusal:
        send(acme, body)
    assert list(refusal.value.errors) == ["body"]


def test_somebody_elses_conversation_does_not_exist(acme: Cast, globex: Cast) -> None:
    with refused(NotFound):
        send(acme, conversation_id=globex.conversation.pk)
