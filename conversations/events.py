"""The event catalogue and the one way to record an event.

`record()` is called inside the transaction of the change, by the change log in `conversations.signals` and by
higher apps that register event types of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from django.db import connections, router, transaction
from django.dispatch import Signal
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.models import Channel, Contact, Conversation, Event, Queue, Status
from core.actors import current_actor
from core.clock import now
from core.trace import current_trace
from organisations.models import Organisation, User

#: Sent inside the transaction, after the rows are inserted. Argument: `events`, a list of `Event`.
recorded = Signal()

SCHEMA_VERSION = 1

T = TypeVar("T", Organisation, Channel, Contact, Queue, Status, User)


@dataclass(frozen=True, slots=True)
class EventType:
    """An entry of the catalogue.

    `name` is what webhooks subscribe to, `wire_type` the `type` in bodies. `facts` names the event's own keys in
    body order, `example` gives them sample values. Operational events tell of the organisation's own affairs, not of a
    conversation.
    """

    name: str
    wire_type: str
    label: str | Promise
    description: str | Promise
    facts: tuple[str, ...]
    example: dict[str, Any] = field(hash=False)
    operational: bool = False


#: Events that webhooks can subscribe to, in the order they are shown. Higher apps add theirs with `register`.
EVENT_TYPES: dict[str, EventType] = {}

#: Recorded for the history, never delivered.
STARTED = "conversationStarted"
REOPENED = "conversationReopened"
FAILED = "conversationFailed"


def register(event_type: EventType) -> None:
    """Add an event type. Raises `ValueError` when the name is taken by another one."""
    if EVENT_TYPES.setdefault(event_type.name, event_type) != event_type:
        raise ValueError(f"There is already an event type {event_type.name}.")


for _type in (
    EventType(
        "inboundMessage",
        "inboundMessage",
        _("Inbound message"),
        _("A contact's message arrived on one of your channels."),
        ("communicationActionId", "body"),
        {"communicationActionId": "220859", "body": "No I don't"},
    ),
    EventType(
        "messageSend",
        "messageSend",
        _("Message send"),
        _("A message of yours went from pending to sent."),
        ("communicationActionId", "body", "statusCode"),
        {"communicationActionId": "220860", "body": "yes", "statusCode": "1"},
    ),
    EventType(
        "deliveryReport",
        "messageStatusUpdate",
        _("Delivery report"),
        _("A message of yours got an outcome: delivered, read or failed."),
        ("communicationActionId", "statusCode"),
        {"communicationActionId": "220860", "statusCode": "2"},
    ),
    EventType(
        "setStatus",
        "setStatus",
        _("Status set"),
        _("A conversation got a status."),
        ("status", "statusId"),
        {"status": "Promise to pay", "statusId": "12"},
    ),
    EventType(
        "conversationClosed",
        "conversationClosed",
        _("Conversation closed"),
        _("A conversation was closed by a bot, an agent, the API or the system."),
        ("closedBy",),
        {"closedBy": "agent"},
    ),
    EventType(
        "moveToQueue",
        "moveToQueue",
        _("Moved to queue"),
        _("A conversation was moved to a queue."),
        ("queue", "queueId", "previousQueue", "previousQueueId"),
        {"queue": "Billing", "queueId": "7", "previousQueue": "", "previousQueueId": ""},
    ),
    EventType(
        "conversationAssignment",
        "conversationAssignment",
        _("Conversation assignment"),
        _("A conversation was assigned to somebody, or unassigned."),
        ("assigned", "assignedTo", "assignedToId"),
        {"assigned": True, "assignedTo": "Ada Byrne", "assignedToId": "31"},
    ),
):
    register(_type)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to record: the event's type and its own facts, typed, ids as strings."""

    type: str
    facts: dict[str, Any]


_TAKE = """
UPDATE {table}
SET event_seq = event_seq + %s,
    last_event_at = {greatest}(last_event_at, %s),
    updated_at = {greatest}(last_event_at, %s),
    last_message_at = CASE WHEN %s THEN {greatest}(last_event_at, %s) ELSE last_message_at END
WHERE id = %s
RETURNING event_seq, last_event_at, organisation_id, channel_id, contact_id, queue_id, status_id,
          assigned_to_id, state, handled_by, customer_uid
"""


@dataclass(frozen=True, slots=True)
class _Taken:
    """The conversation as it is under the lock that taking sequence numbers puts on it."""

    seq: int
    at: datetime
    organisation_id: int
    channel_id: int
    contact_id: int
    queue_id: int | None
    status_id: int | None
    assigned_to_id: int | None
    state: str
    handled_by: str
    customer_uid: str


def _take(conversation_id: int, count: int, message: bool, using: str) -> _Taken:
    """Take `count` sequence numbers. This update is the lock that orders a conversation's events."""
    connection = connections[using]
    sql = _TAKE.format(
        table=connection.ops.quote_name(Conversation._meta.db_table),
        greatest="MAX" if connection.vendor == "sqlite" else "GREATEST",
    )
    moment = connection.ops.adapt_datetimefield_value(now())
    with connection.cursor() as cursor:
        cursor.execute(sql, [count, moment, moment, message, moment, conversation_id])
        row = cursor.fetchone()
    if row is None:
        raise Conversation.DoesNotExist(f"Conversation {conversation_id} is gone.")
    at = row[1]
    if at.tzinfo is None:
        # SQLite keeps no time zone; what Django stores there is UTC.
        at = at.replace(tzinfo=UTC)
    return _Taken(row[0], at, *row[2:])


def record(conversation: Conversation, changes: Sequence[Change], *, message: bool = False) -> list[Event]:
    """Record `changes` of a conversation in the caller's transaction, in the given order.

    `message` says that a message was sent or received, which starts the validity period anew. With no changes only
    that is written. Returns the saved events. Raises `TransactionManagementError` outside a transaction.
    """
    using = router.db_for_write(Event)
    if not connections[using].in_atomic_block:
        raise transaction.TransactionManagementError("Events are recorded in the transaction of their change.")
    taken = _take(conversation.pk, len(changes), message, using)
    conversation.event_seq, conversation.last_event_at, conversation.updated_at = (
        taken.seq,
        taken.at,
        taken.at,
    )
    if message:
        conversation.last_message_at = taken.at
    if not changes:
        return []
    snapshot = _snapshot(conversation, taken)
    traced = traced_data()
    actor = current_actor()
    first = taken.seq - len(changes) + 1
    events = [
        Event(
            organisation_id=taken.organisation_id,
            conversation_id=conversation.pk,
            contact_id=taken.contact_id,
            type=change.type,
            seq=first + index,
            schema_version=SCHEMA_VERSION,
            data={**snapshot, **traced, "facts": change.facts},
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_label=actor.label,
            created_at=taken.at,
        )
        for index, change in enumerate(changes)
    ]
    _insert(events, using)
    recorded.send(sender=Event, events=events)
    return events


def _insert(events: Sequence[Event], using: str) -> None:
    """Insert events, which get their ids. By hand: Django's own insert takes as long as the rest of recording."""
    connection = connections[using]
    quote = connection.ops.quote_name
    fields = [one for one in Event._meta.concrete_fields if not one.primary_key]
    columns = ", ".join(quote(str(one.column)) for one in fields)
    row = "(" + ", ".join(["%s"] * len(fields)) + ")"
    rows = ", ".join([row] * len(events))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quote(Event._meta.db_table)} ({columns}) VALUES {rows} RETURNING id",
            [one.get_db_prep_save(getattr(event, one.attname), connection) for event in events for one in fields],
        )
        for event, (pk,) in zip(events, cursor.fetchall(), strict=True):
            event.pk = pk
            event._state.adding, event._state.db = False, using


def announce(organisation: Organisation, change: Change) -> Event:
    """Record an operational event in the caller's transaction. Returns the saved event."""
    actor = current_actor()
    event = Event.objects.create(
        organisation=organisation,
        type=change.type,
        schema_version=SCHEMA_VERSION,
        data={"timeZone": organisation.time_zone, **traced_data(), "facts": change.facts},
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
        created_at=now(),
    )
    recorded.send(sender=Event, events=[event])
    return event


def traced_data() -> dict[str, str]:
    """What an event's data keeps of the trace it was recorded in: nothing without one. Bodies never tell it."""
    trace = current_trace()
    return {"trace": trace} if trace else {}


def _related(conversation: Conversation, name: str, model: type[T], pk: int | None) -> T | None:
    """The related row of the locked truth: from the instance's cache when it is that row, else from the database."""
    if pk is None:
        return None
    cached = conversation._state.fields_cache.get(name)
    if cached is not None and cached.pk == pk:
        return cast("T", cached)
    return model._default_manager.get(pk=pk)


def _snapshot(conversation: Conversation, taken: _Taken) -> dict[str, Any]:
    """Everything both formats tell about the conversation, as it is now. Ids as strings, unknown as None or ""."""
    organisation = cast("Organisation", _related(conversation, "organisation", Organisation, taken.organisation_id))
    channel = cast("Channel", _related(conversation, "channel", Channel, taken.channel_id))
    contact = cast("Contact", _related(conversation, "contact", Contact, taken.contact_id))
    queue = _related(conversation, "queue", Queue, taken.queue_id)
    status = _related(conversation, "status", Status, taken.status_id)
    user = _related(conversation, "assigned_to", User, taken.assigned_to_id)
    return {
        "conversationId": str(conversation.pk),
        "outboundChannelAddress": contact.address,
        "inboundChannelAddress": channel.wire_address,
        "customerUID": taken.customer_uid,
        "timeZone": organisation.time_zone,
        "state": taken.state,
        "handledBy": taken.handled_by,
        "channel": {"id": str(channel.pk), "type": channel.kind, "label": channel.label},
        "queue": named(queue),
        "status": named(status),
        "assignedTo": person(user),
    }


def named(row: Queue | Status | None) -> dict[str, str] | None:
    """`{"id", "name"}` of a queue or status, None for none."""
    return None if row is None else {"id": str(row.pk), "name": row.name}


def person(user: User | None) -> dict[str, str] | None:
    """`{"id", "name"}` of a user, None for none."""
    return None if user is None else {"id": str(user.pk), "name": user.get_full_name()}
