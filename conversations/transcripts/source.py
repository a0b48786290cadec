"""What a transcript is made of, read in small pieces: a long conversation never stands in memory as a whole."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from django.db.models import Count, Max, QuerySet
from django.utils.translation import gettext as _

from conversations import events
from conversations.models import Conversation, Event, Message, Note
from conversations.outcomes import OUTCOMES

#: Rows read at once.
CHUNK = 500
#: Conversations with at most so many rows of a kind are read together.
SHORT = 20

#: Events a transcript tells of: status, queue, assignment, closing and reopening.
EVENT_TYPES = (
    "setStatus",
    "moveToQueue",
    "conversationAssignment",
    "conversationClosed",
    events.REOPENED,
    events.FAILED,
)

R = TypeVar("R", Message, Event, Note)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the human formats: a message, an event or a note.

    `author` is who wrote or did it, `text` what was written or what happened, in the reader's language. `outcome`
    is the message's fate in words, "" for everything else.
    """

    kind: str
    at: datetime
    id: int
    author: str
    text: str
    direction: str = ""
    state: str = ""
    status_code: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Transcript:
    """A conversation to be written down; `notes` says whether internal notes belong to it.

    The conversation must be loaded `with_names()` and with its organisation. Rows that are added while the
    transcript is written are left out.
    """

    conversation: Conversation
    notes: bool = False
    _last: dict[str, int] = field(default_factory=dict)
    _read: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def zone(self) -> ZoneInfo:
        """The organisation's time zone: human formats show their times in it."""
        return ZoneInfo(self.conversation.organisation.time_zone)

    def messages(self) -> Iterator[Message]:
        """Messages in order."""
        return self._rows(Message.objects.order_by("id"))

    def events(self) -> Iterator[Event]:
        """Events of `EVENT_TYPES` in order."""
        return self._rows(told_events(), order="seq")

    def written_notes(self) -> Iterator[Note]:
        """Notes in order; none unless they were asked for."""
        if not self.notes:
            return iter(())
        return self._rows(Note.objects.order_by("id"))

    def entries(self) -> Iterator[Entry]:
        """Messages, events and notes in one line of time."""
        streams: tuple[Iterator[Entry], ...] = (
            map(message_entry, self.messages()),
            map(event_entry, self.events()),
            map(note_entry, self.written_notes()),
        )
        return heapq.merge(*streams, key=lambda entry: entry.at)

    def _rows(self, rows: QuerySet[R], order: str = "id") -> Iterator[R]:
        """Rows by keyset, each chunk a query of its own: no transaction and no cursor stays open meanwhile."""
        key = rows.model.__name__
        if key in self._read:
            yield from self._read[key]
            return
        rows = rows.filter(conversation_id=self.conversation.pk)
        if key not in self._last:
            self._last[key] = rows.aggregate(last=Max(order))["last"] or 0
        after = 0
        while True:
            chunk = list(rows.filter(**{f"{order}__gt": after, f"{order}__lte": self._last[key]})[:CHUNK])
            yield from chunk
            if len(chunk) < CHUNK:
                return
            after = getattr(chunk[-1], order)


def told_events() -> QuerySet[Event]:
    """The events that transcripts tell of, in a conversation's order."""
    return Event.objects.filter(type__in=EVENT_TYPES).order_by("seq")


def read_together(transcripts: Sequence[Transcript]) -> None:
    """Read what the short ones of `transcripts` are made of, with two queries for each kind of rows."""
    own = {transcript.conversation.pk: transcript for transcript in transcripts}
    kinds: list[QuerySet[Any]] = [Message.objects.order_by("id"), told_events()]
    if any(transcript.notes for transcript in transcripts):
        kinds.append(Note.objects.order_by("id"))
    for rows in kinds:
        key = rows.model.__name__
        counts = rows.order_by().filter(conversation_id__in=own).values_list("conversation_id").annotate(Count("pk"))
        long = {pk for pk, count in counts if count > SHORT}
        short = [pk for pk in own if pk not in long]
        for pk in short:
            own[pk]._read[key] = []
        for row in rows.filter(conversation_id__in=short):
            own[row.conversation_id]._read[key].append(row)


def message_entry(message: Message) -> Entry:
    """A message as a line. The contact's name is who wrote an inbound one."""
    outcome = OUTCOMES.get(message.status_code or 0)
    return Entry(
        kind="message",
        at=message.created_at,
        id=message.pk,
        author=message.actor_label or message.actor_kind,
        text=message.body,
        direction=message.direction,
        state=message.state,
        status_code=message.wire_status_code,
        outcome=str(outcome.label if outcome else message.get_state_display()),
    )


def event_entry(event: Event) -> Entry:
    """An event as a line."""
    return Entry(
        kind="event",
        at=event.created_at,
        id=event.pk,
        author=event.actor_label or event.actor_kind,
        text=told(event.type, event.data["facts"]),
    )


def note_entry(note: Note) -> Entry:
    """A note as a line."""
    return Entry(kind="note", at=note.created_at, id=note.pk, author=note.actor_label, text=note.body)


def told(type_: str, facts: dict[str, Any]) -> str:
    """What happened, in words."""
    if type_ == "setStatus":
        return _("Status set to “%(name)s”") % {"name": facts["status"]}
    if type_ == "moveToQueue":
        return _("Moved to queue “%(name)s”") % {"name": facts["queue"]}
    if type_ == "conversationAssignment":
        if facts["assigned"]:
            return _("Assigned to %(name)s") % {"name": facts["assignedTo"]}
        return _("Assigned to nobody")
    if type_ == "conversationClosed":
        return _("Conversation closed")
    if type_ == events.REOPENED:
        return _("Conversation reopened")
    return _("Conversation stopped by an error")


def heading(transcript: Transcript) -> list[tuple[str, str]]:
    """Label and value of what the human formats say first."""
    conversation = transcript.conversation
    rows = [
        (_("Organisation"), conversation.organisation.name),
        (_("Conversation"), str(conversation.pk)),
        (_("Contact"), conversation.contact.name),
        (_("Contact's address"), conversation.contact.address),
        (_("Customer UID"), conversation.customer_uid),
        (_("Channel"), conversation.channel.label),
        (_("State"), str(conversation.get_state_display())),
        (_("Queue"), conversation.queue.name if conversation.queue else ""),
        (_("Status"), conversation.status.name if conversation.status else ""),
        (_("Started"), local(conversation.created_at, transcript.zone)),
        (_("Time zone"), transcript.zone.key),
    ]
    return [(label, value) for label, value in rows if value]


def local(at: datetime, zone: ZoneInfo) -> str:
    """An instant for people, in the organisation's time zone, with its offset."""
    shown = at.astimezone(zone)
    return f"{shown:%Y-%m-%d %H:%M:%S} {shown:%Z}"
