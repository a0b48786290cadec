"""When an engine looks for work: at once when it hears of some, else now and then."""

from __future__ import annotations

import math
import time

#: How often it looks for new events while busy, and how often while nothing is heard of any, seconds. The latter only
#: where a wake-up can be lost.
BUSY_SECONDS = 0.02
POLL_SECONDS = 0.04
#: How often it then also reads what has become due: retries, what other engines dispatched, what found no room.
READ_BUSY_SECONDS = 0.1
READ_IDLE_SECONDS = 0.5
#: How long it leaves events to the engine that has their webhooks, seconds: that one sends them without reading them.
#: While busy so long at least, and hardly more than three times as long.
OTHERS_SECONDS = 0.01
OTHERS_BUSY_SECONDS = 0.25


class Pace:
    """When the latest looks began, and when somebody said that there is something. Times by `time.monotonic`.

    `polls`: it looks for events of which nobody tells, because wake-ups can be lost.
    """

    def __init__(self) -> None:
        self.polls = False
        self.looked_at = 0.0
        self.read_at = 0.0
        self.glanced_at = 0.0
        self._wanted_at = 0.0
        #: When it last heard of what this engine should dispatch.
        self._home_at = 0.0

    def heard(self, ours: bool, home: bool) -> None:
        """Something has been committed; `ours`: it may be for webhooks that this engine serves, `home`: it is this
        engine that should dispatch it."""
        moment = time.monotonic()
        self._wanted_at = min(self._wanted_at, moment + (0.0 if ours else OTHERS_SECONDS))
        if home:
            self._home_at = moment

    def next_glance(self) -> float:
        """When to glance: heard of something since the latest look or glance, some time after that glance."""
        unseen = self._home_at > max(self.looked_at, self.glanced_at)
        return self.glanced_at + BUSY_SECONDS if unseen else math.inf

    def missed(self) -> None:
        """A glance could not take all that it heard of."""
        self._home_at = time.monotonic()

    def glance(self) -> None:
        """A glance begins."""
        self.glanced_at = time.monotonic()

    def next_look(self, quiet: bool, found: bool, shared: bool = False) -> float:
        """When to look next. `found`: the latest look found something; `quiet`: nothing else happens; `shared`: there
        are other engines, and one of them may have died."""
        # While busy not at every hint: on SQLite our own commits are hints too.
        wanted_at = self._wanted_at if quiet else max(self._wanted_at, self.looked_at + BUSY_SECONDS)
        after = BUSY_SECONDS if found else POLL_SECONDS if self.polls else READ_IDLE_SECONDS
        if shared and not quiet:
            # What is left to them has to be seen twice.
            after = min(after, OTHERS_BUSY_SECONDS / 2)
        return min(wanted_at, self.looked_at + after)

    def put_off(self) -> None:
        """What a look would find is not needed yet."""
        self.looked_at = time.monotonic()

    def look(self) -> bool:
        """A look begins. Returns whether anybody asked for it."""
        asked = self._wanted_at < math.inf
        self.looked_at, self._wanted_at = time.monotonic(), math.inf
        return asked

    def read(self) -> None:
        """The present look also reads."""
        self.read_at = self.looked_at

    def time_to_read(self, found: bool) -> bool:
        """Whether the latest look that read was long ago."""
        return time.monotonic() - self.read_at >= (READ_BUSY_SECONDS if found else READ_IDLE_SECONDS)
