"""Shares and durations as people read them, and the phases of a request."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from math import isinf

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from webhooks.models import DURATION_BOUNDS
from webhooks.panel.timings import Phase, phases_of

register = template.Library()
NOTHING = "–"


@register.filter
def percent(share: float | None) -> str:
    """A share as a percentage. Only all of it is 100 %, only none of it 0 %."""
    if share is None:
        return NOTHING
    value = min(99.9, max(0.1, share * 100)) if 0 < share < 1 else share * 100
    return _("%(value)s %%") % {"value": _number(value)}


@register.filter
def duration(milliseconds: float | None) -> str:
    """Milliseconds to three figures, from a second on as seconds."""
    if milliseconds is None:
        return NOTHING
    if isinf(milliseconds):
        return _("over %(seconds)s s") % {"seconds": number_format(DURATION_BOUNDS[-1] // 1000)}
    if milliseconds < 999.5:
        return _("%(value)s ms") % {"value": number_format(round(milliseconds))}
    seconds = milliseconds / 1000
    return _("%(value)s s") % {"value": _number(seconds if seconds < 9.95 else round(seconds))}


@register.filter
def pause(length: timedelta) -> str:
    """A time between two attempts, in the largest unit of which it holds at least two."""
    seconds = length.total_seconds()
    for unit, told in (
        (86_400, gettext_noop("%(value)s days")),
        (3_600, gettext_noop("%(value)s h")),
        (60, gettext_noop("%(value)s min")),
    ):
        if seconds >= 2 * unit:
            return _(told) % {"value": _number(seconds / unit)}
    return duration(seconds * 1000)


@register.filter
def phases(timings: Mapping[str, int] | None) -> list[Phase]:
    """The phases of a request for its bar; none when nothing was measured."""
    return phases_of(timings or {})


def _number(value: float) -> str:
    """To one place at most. Django's own way cuts instead of rounding."""
    rounded = round(value, 1)
    return number_format(rounded, 0 if rounded == int(rounded) else 1)
