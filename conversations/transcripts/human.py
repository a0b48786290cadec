"""Plain text and HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from django.utils.html import escape, format_html
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from conversations.transcripts.source import Entry, Transcript, heading, local

CSS = (Path(__file__).parent / "print.css").read_text()
#: The page's own policy: it loads nothing, and only its own style counts.
CSP = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(CSS.encode()).digest()).decode()
    + "'"
)
#: A terminal would obey these.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def as_text(transcript: Transcript) -> Iterator[str]:
    """Plain text, one paragraph for each entry. Lines of a message are indented: none can pass for another entry."""
    for label, value in heading(transcript):
        yield f"{label}: {plain(value)}\n"
    yield "\n"
    for entry in transcript.entries():
        head = f"{local(entry.at, transcript.zone)}  {plain(entry.author)}"
        if entry.kind == "event":
            yield f"{head}  * {plain(entry.text)}\n"
            continue
        yield f"{head}{remark(entry)}\n"
        yield "".join(f"    {line}\n" for line in plain(entry.text, lines=True).split("\n"))


def as_html(transcript: Transcript) -> Iterator[str]:
    """A page that prints well, needs nothing from anywhere and runs nothing (`CSP`)."""
    title = _("Conversation %(id)s") % {"id": transcript.conversation.pk}
    yield (
        f'<!doctype html>\n<html lang="{escape(get_language() or "en")}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n<dl>\n"
    )
    for label, value in heading(transcript):
        yield format_html('<dt>{}</dt><dd dir="auto">{}</dd>\n', label, value)
    yield "</dl>\n<ol>\n"
    for entry in transcript.entries():
        yield format_html(
            '<li class="{}"><p class="meta"><time datetime="{}">{}</time> · <bdi>{}</bdi>{}</p>'
            '<p dir="auto">{}</p></li>\n',
            f"{entry.kind} {entry.direction}".strip(),
            entry.at.isoformat(),
            local(entry.at, transcript.zone),
            entry.author,
            remark(entry),
            entry.text,
        )
    yield "</ol>\n</body>\n</html>\n"


def remark(entry: Entry) -> str:
    """What is said of an entry beside its author: that it is a note, or how a message fared."""
    if entry.kind == "note":
        return " · " + _("internal note")
    return f" · {entry.outcome}" if entry.outcome else ""


def plain(text: str, *, lines: bool = False) -> str:
    """Text without control characters; on one line unless `lines`."""
    text = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text if lines else text.replace("\n", " "))
