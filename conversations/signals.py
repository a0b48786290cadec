"""What conversations hears: changes of its own tracked models, which become events.

Every save of a conversation or message ends here, whoever saved: API, panel, admin, shell or task.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from conversations import events
from conversations.events import Change
from conversations.models import Conversation, Message, Queue, Status
from conversations.outcomes import SENT
from core.actors import ActorKind, current_actor
from core.tracking import changed
from organisations.models import User

#: `closedBy` on the wire.
CLOSED_BY: dict[ActorKind, str] = {"bot": "bot", "user": "agent", "api": "api"}


@receiver(changed, dispatch_uid="conversations.record_changes")
def record_changes(instance: Any, created: bool, before: dict[str, Any], after: dict[str, Any], **_: Any) -> None:
    """Record one event for each change of a tracked save, in its transaction."""
    if isinstance(instance, Message):
        events.record(instance.conversation, message_changes(instance, created, before, after), message=created)
    elif isinstance(instance, Conversation):
        events.record(instance, conversation_changes(created, before, after))


def message_changes(message: Message, created: bool, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """What a saved message tells. A report that skips "sent" tells of both steps."""
    facts: dict[str, Any] = {"communicationActionId": str(message.pk)}
    if after["state"] == Message.State.RECEIVED:
        return [Change("inboundMessage", {**facts, "body": message.body})] if created else []
    was = before.get("state", Message.State.PENDING)
    now = after["state"]
    told = []
    if was == Message.State.PENDING and now in (
        Message.State.SENT,
        Message.State.DELIVERED,
        Message.State.READ,
    ):
        told.append(Change("messageSend", {**facts, "body": message.body, "statusCode": str(SENT)}))
    if now not in (was, Message.State.PENDING, Message.State.SENT):
        told.append(Change("deliveryReport", {**facts, "statusCode": message.wire_status_code}))
    return told


def conversation_changes(created: bool, before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """What a saved conversation tells, in the fixed order status, queue, assignment, state."""
    told = [Change(events.STARTED, {})] if created else []
    if after["status_id"] != before.get("status_id"):
        status = events.named(Status.objects.filter(pk=after["status_id"]).first()) or {"id": "", "name": ""}
        told.append(Change("setStatus", {"status": status["name"], "statusId": status["id"]}))
    if after["queue_id"] != before.get("queue_id"):
        ids = [after["queue_id"], before.get("queue_id")]
        queues = Queue.objects.in_bulk([pk for pk in ids if pk is not None])
        new, old = (events.named(queues.get(pk)) or {"id": "", "name": ""} for pk in ids)
        facts: dict[str, Any] = {
            "queue": new["name"],
            "queueId": new["id"],
            "previousQueue": old["name"],
            "previousQueueId": old["id"],
        }
        told.append(Change("moveToQueue", facts))
    if after["assigned_to_id"] != before.get("assigned_to_id"):
        user = events.person(User.objects.filter(pk=after["assigned_to_id"]).first())
        facts = {
            "assigned": user is not None,
            "assignedTo": user["name"] if user else "",
            "assignedToId": user["id"] if user else "",
        }
        told.append(Change("conversationAssignment", facts))
    state, was = after["state"], before.get("state", Conversation.State.OPEN)
    if state != was:
        by = CLOSED_BY.get(current_actor().kind, "system")
        if state == Conversation.State.CLOSED:
            told.append(Change("conversationClosed", {"closedBy": by}))
        elif state == Conversation.State.OPEN:
            told.append(Change(events.REOPENED, {"reopenedBy": by}))
        else:
            told.append(Change(events.FAILED, {}))
    return told
