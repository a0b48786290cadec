"""From a recorded event to the exact bytes that are posted.

Bytes depend on the event's snapshot, the delivery's frozen format and nothing else, so that a retry tomorrow sends
what the first attempt sent, whatever has been renamed or deleted since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from conversations.events import EVENT_TYPES
from conversations.models import Event

#: Version of both formats, frozen into each delivery.
FORMAT_VERSION = 1


@dataclass(slots=True)
class Facts:
    """What a body is made of: the columns of a `conversations.models.Event`, read without it."""

    id: int
    type: str
    seq: int
    data: dict[str, Any]
    created_at: datetime
    actor_kind: str = ""
    actor_id: str = ""
    actor_label: str = ""


def message_id(event_id: int | None, webhook_id: int | None) -> str:
    """`webhook-id`: belongs to an event and a webhook, the same on every retry, resend and replay."""
    return f"msg_{event_id}_{webhook_id}"


def render(event: Facts | Event, format: str, version: int = FORMAT_VERSION) -> bytes:
    """The body of `event` in `format` ("webio" or "standard"), UTF-8 JSON without white space.

    Raises `KeyError` for an event type that nobody registered and `ValueError` for an unknown format.
    """
    if version != FORMAT_VERSION:
        raise ValueError(f"There is no version {version} of the formats.")
    if format == "webio":
        return orjson.dumps(webio(event))
    if format == "standard":
        return orjson.dumps(standard(event))
    raise ValueError(f"There is no format {format!r}.")


def webio(event: Facts | Event) -> dict[str, str]:
    """The flat form: strings only, keys in the documented order."""
    kind = EVENT_TYPES[event.type]
    data = event.data
    given = data["facts"]
    facts = {name: value if isinstance(value := given[name], str) else _text(value) for name in kind.facts}
    if kind.operational:
        return {"type": kind.wire_type, "dateCreated": local_time(event.created_at, data["timeZone"])} | facts
    body = {"type": kind.wire_type, "conversationId": data["conversationId"]}
    if "communicationActionId" in facts:
        body["communicationActionId"] = facts.pop("communicationActionId")
    body["outboundChannelAddress"] = data["outboundChannelAddress"]
    body["inboundChannelAddress"] = data["inboundChannelAddress"]
    body["customerUID"] = data["customerUID"]
    if "body" in facts:
        body["body"] = facts.pop("body")
    body["dateCreated"] = local_time(event.created_at, data["timeZone"])
    return body | facts


def standard(event: Facts | Event) -> dict[str, Any]:
    """The envelope of Standard Webhooks with typed facts, the actor and, if of one, where the conversation stands."""
    told = event.data["facts"] if EVENT_TYPES[event.type].operational else _of_conversation(event)
    actor = {"kind": event.actor_kind, "id": event.actor_id or None, "name": event.actor_label or None}
    return {
        "id": f"evt_{event.id}",
        "type": event.type,
        "timestamp": iso_time(event.created_at),
        "data": {**told, "actor": actor},
    }


def _of_conversation(event: Facts | Event) -> dict[str, Any]:
    data = event.data
    return {
        "conversationId": data["conversationId"],
        "sequence": event.seq,
        **data["facts"],
        "outboundChannelAddress": data["outboundChannelAddress"],
        "inboundChannelAddress": data["inboundChannelAddress"],
        "customerUID": data["customerUID"] or None,
        "state": data["state"],
        "handledBy": data["handledBy"],
        "channel": data["channel"],
        "currentQueue": data["queue"],
        "currentStatus": data["status"],
        "currentAssignee": data["assignedTo"],
    }


def local_time(moment: datetime, zone: str) -> str:
    """`YYYY-MM-DD HH:MM:SS.mmm` in an IANA time zone."""
    # Events are read in UTC, which most organisations keep.
    local = moment if zone == "UTC" and moment.tzinfo is UTC else moment.astimezone(ZoneInfo(zone))
    return _milliseconds(local).replace("T", " ")


def iso_time(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and a Z."""
    return _milliseconds(moment.astimezone(UTC)) + "Z"


def _milliseconds(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.mmm` in its own time zone, in a fifth of the time that `datetime.isoformat` takes."""
    written = orjson.dumps(moment).decode()
    return written[1:24] if written[20] == "." else written[1:20] + ".000"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
