"""An open conversation moves between active queues."""

from __future__ import annotations

from conftest import Cast
from conversations import actions
from conversations.models import Conversation, Queue
from conversations.tests.refusals import newest, refused, types, unchanged
from core.actors import SYSTEM
from core.errors import Conflict, Invalid, NotFound


def move(cast: Cast, queue: Queue, conversation: Conversation | None = None) -> None:
    actions.move_to_queue(
        organisation=cast.organisation,
        actor=SYSTEM,
        conversation_id=(conversation or cast.conversation).pk,
        queue_id=queue.pk,
    )


def test_each_move_names_the_queue_and_the_one_before(acme: Cast) -> None:
    move(acme, acme.queue)
    assert newest(acme.conversation).data["facts"] == {
        "queue": "Billing",
        "queueId": str(acme.queue.pk),
        "previousQueue": "",
        "previousQueueId": "",
    }
    move(acme, acme.other_queue)
    assert newest(acme.conversation).data["facts"] == {
        "queue": "Support",
        "queueId": str(acme.other_queue.pk),
        "previousQueue": "Billing",
        "previousQueueId": str(acme.queue.pk),
    }
    assert types(acme.conversation)[2:] == ["moveToQueue", "moveToQueue"]


def test_moving_it_where_it_is_changes_nothing(acme: Cast) -> None:
    move(acme, acme.queue)
    with unchanged():
        move(acme, acme.queue)


def test_it_keeps_its_holder(acme: Cast) -> None:
    actions.assign_conversation(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, user_id=acme.agent.pk
    )
    move(acme, acme.queue)
    acme.conversation.refresh_from_db()
    assert acme.conversation.assigned_to_id == acme.agent.pk


def test_an_inactive_or_archived_queue_is_refused(acme: Cast) -> None:
    with refused(Invalid, "queue_inactive"):
        move(acme, acme.inactive_queue)
    actions.archive_queue(queue=acme.other_queue, actor=SYSTEM)
    with refused(Invalid, "unknown_object"):
        move(acme, acme.other_queue)


def test_a_closed_conversation_stays_where_it_is(acme: Cast) -> None:
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk)
    with refused(Conflict, "conversation_closed"):
        move(acme, acme.queue)


def test_what_belongs_to_somebody_else_does_not_exist(acme: Cast, globex: Cast) -> None:
    with refused(Invalid, "unknown_object"):
        move(acme, globex.queue)
    with refused(NotFound):
        move(acme, acme.queue, globex.conversation)
