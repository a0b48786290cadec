"""Transcripts: what was said in a conversation and what happened to it, in five formats.

All but PDF are written while they are read, in constant memory however long the conversation is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from conversations.transcripts.human import CSP, as_html, as_text
from conversations.transcripts.machine import as_csv, as_json, as_json_lines
from conversations.transcripts.select import transcripts_of
from conversations.transcripts.source import Transcript

__all__ = ["CSP", "FORMATS", "Format", "Transcript", "as_csv", "as_json_lines", "transcripts_of", "write"]


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write a transcript: `write` yields text (sent as UTF-8) or bytes."""

    code: str
    media_type: str
    write: Callable[[Transcript], Iterator[str] | Iterator[bytes]]


def _as_pdf(transcript: Transcript) -> Iterator[bytes]:
    """What lays out a PDF is imported for the first one: it takes a fifth of the time in which a process starts."""
    from conversations.transcripts.pdf import as_pdf, refuse_too_long

    refuse_too_long(transcript)
    return as_pdf(transcript)


FORMATS: dict[str, Format] = {
    entry.code: entry
    for entry in (
        Format("json", "application/json", as_json),
        Format("csv", "text/csv; charset=utf-8", lambda transcript: as_csv([transcript])),
        Format("txt", "text/plain; charset=utf-8", as_text),
        Format("html", "text/html; charset=utf-8", as_html),
        Format("pdf", "application/pdf", _as_pdf),
    )
}


def write(transcript: Transcript, code: str) -> Iterator[str] | Iterator[bytes]:
    """The transcript in a format of `FORMATS`. Raises `Conflict` where a PDF would be too long."""
    return FORMATS[code].write(transcript)
