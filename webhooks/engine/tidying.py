"""PostgreSQL clears away what was dispatched and delivered.

It would by itself, a minute later; until then each look goes past the index entries of all that (PostgreSQL manual,
25.1.2). After 100,000 events that added half a millisecond to the way from a commit to the endpoint. A process that
becomes an engine's clears away as well, as soon as it is quiet: it cannot know what those before it have left.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from core import notifier
from webhooks.engine import sql

log = logging.getLogger("webio.deliveries")

#: After so many events there is something to clear.
EVENTS = 10_000


@dataclass
class Left:
    """How many events may be there to clear: what this process, in all its slices, has dispatched since it last did."""

    events: int = 0

    @property
    def much(self) -> bool:
        """It is worth clearing away."""
        return self.events >= EVENTS


left = Left()


def inherit() -> None:
    """Take for granted that others have left much."""
    left.events = EVENTS


_VACUUM = "VACUUM (SKIP_LOCKED, TRUNCATE FALSE) {undispatched}, {outstanding}"


def begin() -> None:
    """Begin, where there is something to clear; nobody waits for it, and nothing depends on it.

    In a thread with a connection of its own, because it may take long. A role that does not own the tables is told so
    in the server's log, and nothing happens.
    """
    if sql.vendor() == "postgresql":
        threading.Thread(target=_clear, name="tidying", daemon=True).start()


def _clear() -> None:
    try:
        with notifier.connect() as connection:
            connection.execute(_VACUUM.format(**sql.TABLES))
    except Exception as problem:
        log.warning("tidying up: %s", problem)
