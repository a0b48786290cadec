"""The plain shapes of conversations and messages on the wire: camelCase keys, ids as strings, times ISO 8601 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from conversations.models import Conversation, Event, Message, Note

#: Who did it, as told outside, where it differs from the actor's kind.
AUTHORS = {"user": "agent"}


def moment(at: datetime) -> str:
    """An instant as ISO 8601 in UTC with milliseconds: `2026-01-31T09:05:00.000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


def identifier(pk: int | None) -> str | None:
    """A numeric id as digits, None for none."""
    return None if pk is None else str(pk)


def conversation_shape(conversation: Conversation) -> dict[str, Any]:
    """A conversation loaded `with_names()`."""
    return {
        "conversationId": str(conversation.pk),
        "channelId": str(conversation.channel_id),
        "inboundChannelAddress": conversation.channel.wire_address,
        "outboundChannelAddress": conversation.contact.address,
        "customerUID": conversation.customer_uid,
        "state": conversation.state,
        "handledBy": conversation.handled_by,
        "queueId": identifier(conversation.queue_id),
        "statusId": identifier(conversation.status_id),
        "assignedToId": identifier(conversation.assigned_to_id),
        "fields": conversation.fields,
        "createdAt": moment(conversation.created_at),
        "updatedAt": moment(conversation.updated_at),
    }


def message_shape(message: Message) -> dict[str, Any]:
    """A message."""
    return {
        "communicationActionId": str(message.pk),
        "conversationId": str(message.conversation_id),
        "direction": message.direction,
        "body": message.body,
        "state": message.state,
        "statusCode": message.wire_status_code,
        "sentBy": AUTHORS.get(message.actor_kind, message.actor_kind),
        "createdAt": moment(message.created_at),
    }


def event_shape(event: Event) -> dict[str, Any]:
    """What happened, with the event's own typed facts beside it (`events.EVENT_TYPES`)."""
    return {
        "id": str(event.pk),
        "type": event.type,
        "actor": {
            "kind": AUTHORS.get(event.actor_kind, event.actor_kind),
            "id": event.actor_id,
            "label": event.actor_label,
        },
        "createdAt": moment(event.created_at),
        **event.data["facts"],
    }


def note_shape(note: Note) -> dict[str, Any]:
    """An internal note."""
    return {"id": str(note.pk), "author": note.actor_label, "body": note.body, "createdAt": moment(note.created_at)}
