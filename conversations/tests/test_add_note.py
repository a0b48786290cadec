"""A note is for people inside: kept with its author, told to nobody outside."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Note
from conversations.tests.refusals import refused, types
from core.actors import SYSTEM, Actor
from core.errors import Invalid, NotFound


def note(cast: Cast, body: Any, conversation_id: int | None = None) -> Note:
    return actions.add_note(
        organisation=cast.organisation,
        actor=Actor("user", "5", "ada@acme.example"),
        conversation_id=conversation_id or cast.conversation.pk,
        body=body,
    )


def test_it_is_kept_with_its_author(acme: Cast) -> None:
    kept = Note.objects.get(pk=note(acme, "Call back on Monday").pk)
    assert (kept.conversation_id, kept.body) == (acme.conversation.pk, "Call back on Monday")
    assert (kept.actor_kind, kept.actor_id, kept.actor_label) == ("user", "5", "ada@acme.example")


def test_it_is_no_event_and_prolongs_nothing(acme: Cast) -> None:
    acme.conversation.refresh_from_db()
    before = acme.conversation.last_message_at
    note(acme, "Psst")
    acme.conversation.refresh_from_db()
    assert acme.conversation.last_message_at == before
    assert types(acme.conversation) == ["conversationStarted", "inboundMessage"]


def test_a_closed_conversation_takes_notes(acme: Cast) -> None:
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    assert note(acme, "Paid by phone").pk


@pytest.mark.parametrize("body", ["", " \n", "a\x00b", "b" * 10_001, None])
def test_a_bad_body_is_refused_and_changes_nothing(acme: Cast, body: Any) -> None:
    with refused(Invalid):
        note(acme, body)


def test_somebody_elses_conversation_does_not_exist(acme: Cast, globex: Cast) -> None:
    with refused(NotFound):
        note(acme, "Hi", globex.conversation.pk)
