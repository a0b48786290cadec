"""Assigning, taking and leaving an open conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.tests.refusals import newest, refused, types, unchanged
from core.actors import SYSTEM
from core.errors import Conflict, Invalid, NotFound
from organisations.models import User

GIVE: list[Callable[..., Any]] = [actions.assign_conversation, actions.take_conversation]


def where(cast: Cast) -> dict[str, Any]:
    return {"organisation": cast.organisation, "actor": SYSTEM, "conversation_id": cast.conversation.pk}


def holder(cast: Cast) -> User | None:
    cast.conversation.refresh_from_db()
    return cast.conversation.assigned_to


@pytest.mark.parametrize("give", GIVE)
def test_the_new_holder_is_told(acme: Cast, give: Callable[..., Any]) -> None:
    give(**where(acme), user_id=acme.agent.pk)
    assert holder(acme) == acme.agent
    assert types(acme.conversation)[2:] == ["conversationAssignment"]
    assert newest(acme.conversation).data["facts"] == {
        "assigned": True,
        "assignedTo": "Agent Acme",
        "assignedToId": str(acme.agent.pk),
    }


@pytest.mark.parametrize("give", GIVE)
def test_giving_it_to_its_holder_changes_nothing(acme: Cast, give: Callable[..., Any]) -> None:
    give(**where(acme), user_id=acme.agent.pk)
    with unchanged():
        give(**where(acme), user_id=acme.agent.pk)


def test_assigning_takes_it_from_whoever_had_it(acme: Cast) -> None:
    actions.assign_conversation(**where(acme), user_id=acme.agent.pk)
    actions.assign_conversation(**where(acme), user_id=acme.admin.pk)
    assert holder(acme) == acme.admin
    assert types(acme.conversation)[2:] == ["conversationAssignment"] * 2


def test_taking_what_somebody_has_tells_who_has_it(acme: Cast) -> None:
    actions.take_conversation(**where(acme), user_id=acme.agent.pk)
    with refused(Conflict, "already_assigned") as refusal:
        actions.take_conversation(**where(acme), user_id=acme.admin.pk)
    assert refusal.value.extra == {"assignedToId": str(acme.agent.pk), "assignedTo": "Agent Acme"}


def test_left_to_nobody_it_is_told_once(acme: Cast) -> None:
    actions.assign_conversation(**where(acme), user_id=acme.agent.pk)
    actions.unassign_conversation(**where(acme))
    assert holder(acme) is None
    facts = {"assigned": False, "assignedTo": "", "assignedToId": ""}
    assert newest(acme.conversation).data["facts"] == facts
    with unchanged():
        actions.unassign_conversation(**where(acme))


@pytest.mark.parametrize("give", GIVE)
def test_only_members_who_work_on_conversations_can_hold_one(
    acme: Cast, globex: Cast, give: Callable[..., Any]
) -> None:
    acme.admin.is_active = False
    acme.admin.save()
    for user_id in (acme.viewer.pk, acme.admin.pk, globex.agent.pk, 0):
        with refused(Invalid) as refusal:
            give(**where(acme), user_id=user_id)
        assert list(refusal.value.errors) == ["userId"]


def test_a_closed_conversation_keeps_its_holder(acme: Cast) -> None:
    actions.assign_conversation(**where(acme), user_id=acme.agent.pk)
    actions.close_conversation(**where(acme))
    with refused(Conflict, "conversation_closed"):
        actions.assign_conversation(**where(acme), user_id=acme.admin.pk)
    with refused(Conflict, "conversation_closed"):
        actions.take_conversation(**where(acme), user_id=acme.agent.pk)
    with refused(Conflict, "conversation_closed"):
        actions.unassign_conversation(**where(acme))


def test_somebody_elses_conversation_does_not_exist(acme: Cast, globex: Cast) -> None:
    foreign = {**where(acme), "conversation_id": globex.conversation.pk}
    with refused(NotFound):
        actions.assign_conversation(**foreign, user_id=acme.agent.pk)
    with refused(NotFound):
        actions.take_conversation(**foreign, user_id=acme.agent.pk)
    with refused(NotFound):
        actions.unassign_conversation(**foreign)
