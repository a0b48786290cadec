"""PDF, with a font that travels with the project (DejaVu Sans: Latin, Greek, Cyrillic, Arabic, Hebrew and more).

Bidirectional and joined scripts are shaped where they occur. A character the font lacks is shown as its name when it
is a symbol, such as an emoji, and as an empty box otherwise; the other formats have it as it was written.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from django.utils.translation import gettext as _
from fpdf import FPDF
from fpdf.enums import XPos, YPos

from conversations.models import Message, Note
from conversations.transcripts.human import plain, remark
from conversations.transcripts.source import Entry, Transcript, heading, local
from core.errors import Conflict

FONTS = Path(__file__).resolve().parent.parent / "fonts"
FAMILY = "DejaVu"
BOX = "\N{WHITE SQUARE}"
PIECE = 65_536
#: A PDF is laid out in memory, unlike the other formats: at about 1.5 ms a message this is half a minute's work.
MOST = 25_000
MARGIN_MM = 18
LIGHT, DARK = (110, 110, 110), (0, 0, 0)


class _Page(FPDF):
    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        self.set_margins(MARGIN_MM, MARGIN_MM)
        self.set_auto_page_break(True, margin=MARGIN_MM)
        self.add_font(FAMILY, "", FONTS / "DejaVuSans.ttf")
        self.add_font(FAMILY, "B", FONTS / "DejaVuSans-Bold.ttf")
        self.set_title(title)
        self.add_page()

    def footer(self) -> None:
        self.set_y(-12)
        self.set_text_shaping(False)
        self.set_font(FAMILY, "", 8)
        self.set_text_color(*LIGHT)
        self.cell(0, 5, str(self.page_no()), align="C")

    def paragraph(self, text: str, size: float, style: str = "", colour: tuple[int, int, int] = DARK) -> None:
        """Write `text` over the whole width, wrapped."""
        text = drawable(text)
        self.set_text_shaping(complex_script(text))
        self.set_font(FAMILY, style, size)
        self.set_text_color(*colour)
        self.multi_cell(0, size * 0.5, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)


def refuse_too_long(transcript: Transcript) -> None:
    """Raises `Conflict` `transcript_too_long` for a conversation of more than `MOST` messages and notes."""
    pk = transcript.conversation.pk
    count = Message.objects.filter(conversation_id=pk)[: MOST + 1].count()
    if transcript.notes:
        count += Note.objects.filter(conversation_id=pk)[: MOST + 1].count()
    if count > MOST:
        raise Conflict(
            "transcript_too_long",
            _("A PDF holds at most %(most)d messages: choose another format.") % {"most": MOST},
        )


def as_pdf(transcript: Transcript) -> Iterator[bytes]:
    """The document, in pieces."""
    title = _("Conversation %(id)s") % {"id": transcript.conversation.pk}
    page = _Page(title)
    page.paragraph(title, 16, "B")
    page.ln(2)
    for label, value in heading(transcript):
        page.paragraph(f"{label}: {plain(value)}", 9, colour=LIGHT)
    page.ln(4)
    for entry in transcript.entries():
        _write(page, entry, transcript)
    document = page.output()
    for start in range(0, len(document), PIECE):
        yield bytes(document[start : start + PIECE])


def _write(page: _Page, entry: Entry, transcript: Transcript) -> None:
    meta = f"{local(entry.at, transcript.zone)} · {plain(entry.author)}{remark(entry)}"
    if entry.kind == "event":
        page.paragraph(f"{meta} · {plain(entry.text)}", 8, colour=LIGHT)
    else:
        page.paragraph(meta, 8, colour=LIGHT)
        page.paragraph(plain(entry.text, lines=True), 10)
    page.ln(1.5)


@cache
def _glyphs() -> frozenset[int]:
    """Code points the font can draw."""
    from fontTools.ttLib import TTFont

    with TTFont(FONTS / "DejaVuSans.ttf", lazy=True) as font:
        return frozenset(font.getBestCmap())


def drawable(text: str) -> str:
    """`text` with each character the font lacks replaced by its name in brackets, or by a box."""
    if text.isascii():
        return text
    glyphs = _glyphs()
    return "".join(
        character if character == "\n" or ord(character) in glyphs else _stand_in(character) for character in text
    )


def _stand_in(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Mn", "Me", "Cf", "Sk"):
        # Joiners, variation selectors and skin tones say nothing by themselves.
        return ""
    if category == "So":
        return f"[{unicodedata.name(character, 'symbol').lower()}]"
    return BOX


def complex_script(text: str) -> bool:
    """Whether some character runs from right to left, or joins or marks another: then order and form need shaping."""
    return not text.isascii() and any(
        unicodedata.bidirectional(character) in ("R", "AL", "AN", "NSM") for character in text
    )
