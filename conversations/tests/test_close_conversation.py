"""Closing tells who closed, and keeps queue and holder for the day of reopening."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Conversation
from conversations.tests.refusals import newest, refused, types
from core.actors import SYSTEM, Actor, ActorKind
from core.errors import Conflict, NotFound


def close(cast: Cast, conversation: Conversation | None = None, actor: Actor = SYSTEM) -> Any:
    pk = (conversation or cast.conversation).pk
    return actions.close_conversation(organisation=cast.organisation, actor=actor, conversation_id=pk)


@pytest.mark.parametrize(
    ("kind", "closed_by"),
    [("bot", "bot"), ("user", "agent"), ("api", "api"), ("system", "system"), ("staff", "system")],
)
def test_closed_by_tells_who_closed_it(acme: Cast, kind: ActorKind, closed_by: str) -> None:
    close(acme, actor=Actor(kind, "5", "who"))
    event = newest(acme.conversation)
    assert types(acme.conversation)[2:] == ["conversationClosed"]
    assert (event.data["facts"], event.data["state"]) == ({"closedBy": closed_by}, "closed")
    assert (event.actor_kind, event.actor_id, event.actor_label) == (kind, "5", "who")


def test_it_keeps_queue_status_and_holder(acme: Cast) -> None:
    where: dict[str, Any] = {
        "organisation": acme.organisation,
        "actor": SYSTEM,
        "conversation_id": acme.conversation.pk,
    }
    actions.move_to_queue(**where, queue_id=acme.queue.pk)
    actions.set_status(**where, status_id=acme.status.pk)
    actions.assign_conversation(**where, user_id=acme.agent.pk)
    close(acme)
    acme.conversation.refresh_from_db()
    conversation = acme.conversation
    assert (conversation.queue, conversation.status, conversation.assigned_to) == (
        acme.queue,
        acme.status,
        acme.agent,
    )
    assert (conversation.state, conversation.closed_at is not None) == ("closed", True)


def test_closing_twice_is_refused(acme: Cast) -> None:
    close(acme)
    with refused(Conflict, "conversation_closed"):
        close(acme)


def test_one_in_error_can_be_closed(acme: Cast) -> None:
    acme.conversation.state = "error"
    acme.conversation.save()
    close(acme)
    assert types(acme.conversation)[2:] == ["conversationFailed", "conversationClosed"]


def test_somebody_elses_conversation_does_not_exist(acme: Cast, globex: Cast) -> None:
    with refused(NotFound):
        close(acme, globex.conversation)
