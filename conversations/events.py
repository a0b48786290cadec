"""The event catalogue and the one way to record an event.

`record()` is called inside the transaction of the change, by the change log in `conversations.signals` and by
higher apps that register event types of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, cast

import orjson
from django.db import connections, router, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.dispatch import Signal
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.models import Channel, Contact, Conversation, Event, Queue, Status, Undispatched
from core.actors import current_actor
from core.clock import now
from core.statements import execute, instant
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


#: Takes sequence numbers. This update is the lock that orders a conversation's events.
_TAKE = """
UPDATE {conversation}
SET event_seq = event_seq + %s,
    last_event_at = {greatest}(last_event_at, %s),
    updated_at = {greatest}(last_event_at, %s),
    last_message_at = CASE WHEN %s THEN {greatest}(last_event_at, %s) ELSE last_message_at END
WHERE id = %s
RETURNING event_seq, last_event_at, organisation_id, channel_id, contact_id, queue_id, status_id,
          assigned_to_id, state, handled_by, customer_uid
"""

_COLUMNS = """
    organisation_id, conversation_id, contact_id, type, seq, schema_version, data, actor_kind, actor_id, actor_label,
    created_at
"""

#: On PostgreSQL also inserts the events, in the same round trip, if the conversation is what they say it is.
_TAKE_AND_INSERT = f"""
WITH taken AS ({_TAKE}), inserted AS (
    INSERT INTO {{event}} ({_COLUMNS})
    SELECT taken.organisation_id, %s, taken.contact_id, change.type, taken.event_seq - %s + change.number, %s,
           change.data, %s, %s, %s, taken.last_event_at
    FROM taken
    CROSS JOIN ROWS FROM (jsonb_to_recordset(CAST(%s AS jsonb)) AS (type text, data jsonb)) WITH ORDINALITY
        AS change(type, data, number)
    WHERE (
        taken.organisation_id, taken.channel_id, taken.contact_id, taken.queue_id, taken.status_id,
        taken.assigned_to_id, taken.state, taken.handled_by, taken.customer_uid
    ) IS NOT DISTINCT FROM (%s, %s, %s, %s, %s, %s, %s, %s, %s)
    ORDER BY change.number
    RETURNING id, organisation_id, seq
), marked AS (
    INSERT INTO {{undispatched}} (event_id, organisation_id) SELECT id, organisation_id FROM inserted
)
SELECT taken.*, (SELECT array_agg(id ORDER BY seq) FROM inserted) FROM taken
"""


@dataclass(frozen=True, slots=True)
class _Standing:
    """What of a conversation its events tell."""

    organisation_id: int
    channel_id: int
    contact_id: int
    queue_id: int | None
    status_id: int | None
    assigned_to_id: int | None
    state: str
    handled_by: str
    customer_uid: str


_STANDING = tuple(one.name for one in fields(_Standing))


def record(conversation: Conversation, changes: Sequence[Change], *, message: bool = False) -> list[Event]:
    """Record `changes` of a conversation in the caller's transaction, in the given order.

    `message` says that a message was sent or received, which starts the validity period anew. With no changes only
    that is written. Returns the saved events. Raises `TransactionManagementError` outside a transaction.
    """
    using = router.db_for_write(Event)
    connection = connections[using]
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("Events are recorded in the transaction of their change.")
    actor = current_actor()
    moment = connection.ops.adapt_datetimefield_value(now())
    parameters: list[Any] = [len(changes), moment, moment, message, moment, conversation.pk]
    ids, snapshot = None, {}
    # What this instance says is nearly always what stands in the row, which is only known once it is locked.
    said = [getattr(conversation, name) for name in _STANDING]
    plain = all(value is None or isinstance(value, int | str) for value in said)
    if changes and plain and connection.vendor == "postgresql":
        snapshot = _snapshot(conversation, _Standing(*said))
        parameters += [conversation.pk, len(changes), SCHEMA_VERSION, actor.kind, actor.id, actor.label]
        # One document of all: psycopg takes longer for arrays than the server for the statement.
        told = [{"type": one.type, "data": {**snapshot, "facts": one.facts}} for one in changes]
        parameters.append(_document(told))
        parameters += said
        seq, at, *stands, ids = _row(connection, _TAKE_AND_INSERT, parameters, conversation.pk)
    else:
        seq, at, *stands = _row(connection, _TAKE, parameters, conversation.pk)
    at = instant(at)
    conversation.event_seq, conversation.last_event_at, conversation.updated_at = seq, at, at
    if message:
        conversation.last_message_at = at
    if not changes:
        return []
    standing = _Standing(*stands)
    if ids is None:
        snapshot = _snapshot(conversation, standing)
    events = [
        Event(
            organisation_id=standing.organisation_id,
            conversation_id=conversation.pk,
            contact_id=standing.contact_id,
            type=change.type,
            seq=number,
            schema_version=SCHEMA_VERSION,
            data={**snapshot, "facts": change.facts},
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_label=actor.label,
            created_at=at,
        )
        for number, change in enumerate(changes, seq - len(changes) + 1)
    ]
    for event, pk in zip(events, ids or _insert(connection, events), strict=True):
        event.pk = pk
        event._state.adding, event._state.db = False, using
    recorded.send(sender=Event, events=events)
    return events


def _document(data: Any) -> str:
    return orjson.dumps(data).decode()


@cache
def _filled(statement: str, vendor: str) -> str:
    """A statement with the names of tables and functions filled in."""
    return statement.format(
        conversation=Conversation._meta.db_table,
        event=Event._meta.db_table,
        undispatched=Undispatched._meta.db_table,
        greatest="MAX" if vendor == "sqlite" else "GREATEST",
    )


def _row(
    connection: BaseDatabaseWrapper, statement: str, parameters: list[Any], conversation_id: int
) -> tuple[Any, ...]:
    """The one row of a statement that takes sequence numbers. Raises `Conversation.DoesNotExist`."""
    rows = execute(connection, _filled(statement, connection.vendor), parameters)
    if not rows:
        raise Conversation.DoesNotExist(f"Conversation {conversation_id} is gone.")
    return rows[0]


def _insert(connection: BaseDatabaseWrapper, events: Sequence[Event]) -> list[int]:
    """Insert events for the engine to take; their ids. By hand: Django's insert takes as long as all the rest."""
    rows = ", ".join([f"({', '.join(['%s'] * len(_COLUMNS.split(',')))})"] * len(events))
    given: list[Any] = []
    for one in events:
        created_at = connection.ops.adapt_datetimefield_value(one.created_at)
        numbers = (one.organisation_id, one.conversation_id, one.contact_id, one.type, one.seq, one.schema_version)
        given += [*numbers, _document(one.data), one.actor_kind, one.actor_id, one.actor_label, created_at]
    table = connection.ops.quote_name(Event._meta.db_table)
    statement = f"INSERT INTO {table} ({_COLUMNS}) VALUES {rows} RETURNING id"
    ids = [pk for (pk,) in execute(connection, statement, given)]
    table = connection.ops.quote_name(Undispatched._meta.db_table)
    marks = ", ".join(["(%s, %s)"] * len(ids))
    owners = [value for pk, one in zip(ids, events, strict=True) for value in (pk, one.organisation_id)]
    execute(connection, f"INSERT INTO {table} (event_id, organisation_id) VALUES {marks}", owners)
    return ids


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


def _snapshot(conversation: Conversation, standing: _Standing) -> dict[str, Any]:
    """Everything both formats tell about the conversation, as it is now, and the trace. Ids as strings, unknown as None
    or ""."""
    organisation = cast("Organisation", _related(conversation, "organisation", Organisation, standing.organisation_id))
    channel = cast("Channel", _related(conversation, "channel", Channel, standing.channel_id))
    contact = cast("Contact", _related(conversation, "contact", Contact, standing.contact_id))
    queue = _related(conversation, "queue", Queue, standing.queue_id)
    status = _related(conversation, "status", Status, standing.status_id)
    user = _related(conversation, "assigned_to", User, standing.assigned_to_id)
    return {
        "conversationId": str(conversation.pk),
        "outboundChannelAddress": contact.address,
        "inboundChannelAddress": channel.wire_address,
        "customerUID": standing.customer_uid,
        "timeZone": organisation.time_zone,
        "state": standing.state,
        "handledBy": standing.handled_by,
        "channel": {"id": str(channel.pk), "type": channel.kind, "label": channel.label},
        "queue": named(queue),
        "status": named(status),
        "assignedTo": person(user),
        **traced_data(),
    }


def named(row: Queue | Status | None) -> dict[str, str] | None:
    """`{"id", "name"}` of a queue or status, None for none."""
    return None if row is None else {"id": str(row.pk), "name": row.name}


def person(user: User | None) -> dict[str, str] | None:
    """`{"id", "name"}` of a user, None for none."""
    return None if user is None else {"id": str(user.pk), "name": user.get_full_name()}
