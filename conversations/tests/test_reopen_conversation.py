"""Reopening brings a closed conversation back where it was, unless a newer one is open."""

from __future__ import annotations

from typing import Any

from conftest import Cast
from conversations import actions
from conversations.tests.refusals import newest, refused, types
from core.actors import SYSTEM, Actor
from core.errors import Conflict, NotFound


def where(cast: Cast) -> dict[str, Any]:
    return {"organisation": cast.organisation, "actor": SYSTEM, "conversation_id": cast.conversation.pk}


def test_it_is_open_again_in_the_queue_it_had(acme: Cast) -> None:
    actions.move_to_queue(**where(acme), queue_id=acme.queue.pk)
    actions.close_conversation(**where(acme))
    actions.reopen_conversation(**{**where(acme), "actor": Actor("user", "5", "ada@acme.example")})
    acme.conversation.refresh_from_db()
    conversation = acme.conversation
    assert (conversation.state, conversation.closed_at, conversation.queue) == ("open", None, acme.queue)
    assert types(conversation)[-2:] == ["conversationClosed", "conversationReopened"]
    assert newest(conversation).data["facts"] == {"reopenedBy": "agent"}


def test_an_open_one_is_refused_with_its_own_id(acme: Cast) -> None:
    with refused(Conflict, "conversation_open") as refusal:
        actions.reopen_conversation(**where(acme))
    assert refusal.value.extra == {"conversationId": str(acme.conversation.pk)}


def test_while_a_newer_one_is_open_it_stays_closed(acme: Cast) -> None:
    actions.close_conversation(**where(acme))
    newer = actions.receive_message(channel=acme.channel, address=acme.contact.address, body="Hi").conversation
    with refused(Conflict, "conversation_open") as refusal:
        actions.reopen_conversation(**where(acme))
    assert refusal.value.extra == {"conversationId": str(newer.pk)}


def test_somebody_elses_conversation_does_not_exist(acme: Cast, globex: Cast) -> None:
    actions.close_conversation(**where(globex))
    with refused(NotFound):
        actions.reopen_conversation(**{**where(acme), "conversation_id": globex.conversation.pk})
    with refused(NotFound):
        actions.reopen_conversation(**{**where(acme), "conversation_id": 0})
