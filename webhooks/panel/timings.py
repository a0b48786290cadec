"""Where the time of one request went, as a bar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

#: What `core.outbound` measures the ends of, in order, and what people call the time before each end.
PHASES = (
    ("dns", _("DNS")),
    ("connect", _("connect")),
    ("tls", _("TLS")),
    ("firstByte", _("wait for the first byte")),
    ("total", _("rest of the answer")),
)
UNANSWERED = _("waiting")


@dataclass(frozen=True, slots=True)
class Phase:
    """A piece of the bar: `x` and `width` are SVG lengths, `ms` is how long it took."""

    key: str
    label: Any
    ms: int
    x: str
    width: str


def phases_of(timings: Mapping[str, int]) -> list[Phase]:
    """The phases that took time: a reused connection has none before the first byte, no answer has no first byte."""
    whole = timings.get("total") or 0
    answered = timings.get("firstByte")
    found, began = [], 0
    for key, label in PHASES:
        ended = min(timings.get(key) or 0, whole)
        if ended <= began:
            continue
        if key == "total" and not answered:
            label = UNANSWERED
        found.append(Phase(key, label, ended - began, _share(began, whole), _share(ended - began, whole)))
        began = ended
    return found


def _share(part: int, whole: int) -> str:
    return f"{part / whole * 100:.2f}%"
