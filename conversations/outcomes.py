"""The one table of message status codes: what a carrier's report means and what state it puts a message in."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _


@dataclass(frozen=True, slots=True)
class Outcome:
    """A status code on the wire, its name for people and the message state it leads to."""

    code: int
    label: str | Promise
    state: str


SENT = 1
DELIVERED = 2
READ = 4

OUTCOMES: dict[int, Outcome] = {
    outcome.code: outcome
    for outcome in (
        Outcome(SENT, _("Sent"), "sent"),
        Outcome(DELIVERED, _("Delivered"), "delivered"),
        Outcome(3, _("Network error"), "failed"),
        Outcome(READ, _("Read"), "read"),
        Outcome(5, _("Expired"), "failed"),
        Outcome(6, _("Invalid message structure"), "failed"),
        Outcome(7, _("Invalid contact structure"), "failed"),
        Outcome(9, _("Overrun"), "failed"),
        Outcome(10, _("Blocklisted"), "failed"),
        Outcome(11, _("Profanity"), "failed"),
        Outcome(12, _("Rejected"), "failed"),
        Outcome(14, _("Unconfirmed"), "failed"),
        Outcome(21, _("Invalid number"), "failed"),
        Outcome(22, _("Unavailable"), "failed"),
    )
}

#: A report moves a message only to a higher rank. Failed ends it: what comes later is late.
RANKS = {"pending": 0, "sent": 1, "delivered": 2, "read": 3, "failed": 4}


def advances(before: str, after: str) -> bool:
    """Whether a report of state `after` changes a message in state `before`.

    A delivered or read message can no longer fail: that report is late or about another part.
    """
    if after == "failed":
        return before in ("pending", "sent")
    return before != "failed" and RANKS[after] > RANKS[before]
