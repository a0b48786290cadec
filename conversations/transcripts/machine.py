"""JSON, JSON Lines and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from conversations import wire
from conversations.models import Message
from conversations.transcripts.source import Entry, Transcript

#: Columns of the CSV, which has one line for each message, event and note.
COLUMNS = (
    "conversationId",
    "outboundChannelAddress",
    "customerUID",
    "createdAt",
    "kind",
    "id",
    "direction",
    "author",
    "text",
    "state",
    "statusCode",
)
#: A spreadsheet takes a cell that starts with one of these for a formula, also in their full-width forms; some skip
#: leading spaces before they look.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def as_json(transcript: Transcript) -> Iterator[str]:
    """One object: the conversation, then `messages`, `events` and, when asked for, `notes`."""
    yield from _object(transcript)


def as_json_lines(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """One line for each conversation, the object of `as_json`."""
    for transcript in transcripts:
        yield from _object(transcript)
        yield "\n"


def as_csv(transcripts: Iterable[Transcript]) -> Iterator[str]:
    """A heading line, then one line for each message, event and note. RFC 4180, guarded against formulas."""
    yield _line(COLUMNS)
    for transcript in transcripts:
        conversation = transcript.conversation
        known = (str(conversation.pk), conversation.contact.address, conversation.customer_uid)
        for entry in transcript.entries():
            yield _line((*known, *_cells(entry)))


def guarded(cell: str) -> str:
    """A cell that no spreadsheet runs: what looks like a formula gets a leading apostrophe."""
    if cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(FORMULA):
        return f"'{cell}"
    return cell


def _object(transcript: Transcript) -> Iterator[str]:
    head = _dumps(wire.conversation_shape(transcript.conversation))
    yield f"{head[:-1]}, "
    yield from _list("messages", map(_message, transcript.messages()))
    yield ", "
    yield from _list("events", map(wire.event_shape, transcript.events()))
    if transcript.notes:
        yield ", "
        yield from _list("notes", map(wire.note_shape, transcript.written_notes()))
    yield "}"


def _list(name: str, items: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield f'"{name}": ['
    for index, item in enumerate(items):
        yield ("" if index == 0 else ", ") + _dumps(item)
    yield "]"


def _message(message: Message) -> dict[str, Any]:
    return {**wire.message_shape(message), "outcomes": message.outcomes}


def _cells(entry: Entry) -> tuple[str, ...]:
    return (
        wire.moment(entry.at),
        entry.kind,
        str(entry.id),
        entry.direction,
        entry.author,
        entry.text,
        entry.state,
        entry.status_code,
    )


def _line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([guarded(cell) for cell in cells])
    return buffer.getvalue()


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
