"""A status labels a conversation, open or closed."""

from __future__ import annotations

from conftest import Cast
from conversations import actions
from conversations.models import Conversation, Status
from conversations.tests.refusals import newest, refused, types, unchanged
from core.actors import SYSTEM
from core.errors import Invalid, NotFound


def label(cast: Cast, status: Status, conversation: Conversation | None = None) -> None:
    actions.set_status(
        organisation=cast.organisation,
        actor=SYSTEM,
        conversation_id=(conversation or cast.conversation).pk,
        status_id=status.pk,
    )


def test_the_status_is_set_and_told(acme: Cast) -> None:
    label(acme, acme.status)
    acme.conversation.refresh_from_db()
    assert acme.conversation.status_id == acme.status.pk
    assert types(acme.conversation)[2:] == ["setStatus"]
    event = newest(acme.conversation)
    assert event.data["facts"] == {"status": "Promise", "statusId": str(acme.status.pk)}
    assert event.data["status"] == {"id": str(acme.status.pk), "name": "Promise"}


def test_setting_the_status_it_has_changes_nothing(acme: Cast) -> None:
    label(acme, acme.status)
    with unchanged():
        label(acme, acme.status)


def test_a_closed_conversation_can_be_labelled(acme: Cast) -> None:
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    label(acme, acme.status)
    assert types(acme.conversation)[-2:] == ["conversationClosed", "setStatus"]


def test_an_archived_status_is_refused(acme: Cast) -> None:
    actions.archive_status(status=acme.status, actor=SYSTEM)
    with refused(Invalid, "unknown_object"):
        label(acme, acme.status)


def test_what_belongs_to_somebody_else_does_not_exist(acme: Cast, globex: Cast) -> None:
    with refused(Invalid, "unknown_object"):
        label(acme, globex.status)
    with refused(NotFound):
        label(acme, acme.status, globex.conversation)
