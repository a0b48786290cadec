"""Who waits for events to pull: one listener for all of a process, which looks once for everybody.

Events become visible to pulls when the delivery engine has numbered them. The engine's wake-up reaches the listener
too, which then looks at the counter of positions: one row, whoever waits. Only when it has moved are the events of the
organisations that wait looked at. Without any wake-up it looks twice a second.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass

from django.db import close_old_connections, connection
from django.db.models import Max

from conversations.events import EVENT_TYPES
from conversations.models import Position
from core.longpoll import end
from core.models import Sequence
from core.wakeup import Waiter
from webhooks.engine.dispatch import POSITIONS
from webhooks.signals import LOOP

log = logging.getLogger("webio.waiting")

#: Places in a process: where waiting costs no thread, where it does, and for one organisation.
PLACES = 500
PLACES_WITH_THREADS = 4
PLACES_OF_ONE = 20
#: Between a wake-up and the first look, seconds: the engine, which is woken too, numbers meanwhile. Longer while there
#: are many, so that one look serves several.
FIRST_SECONDS = 0.003
BUSY_SECONDS = 0.02
#: Between two looks, seconds, at most.
MOST_SECONDS = 0.5
#: Two wake-ups within so many seconds are many.
QUIET_SECONDS = 0.1
#: The listener stays for so long after the last has left.
LINGER_SECONDS = 5.0
#: How long somebody who enters waits for the listener to be there.
START_SECONDS = 2.0
#: After the connection was lost, seconds.
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Whose events somebody waits for, behind which position, until when (`time.monotonic`)."""

    organisation_id: int
    after: int
    until: float


class Room:
    """The waiting room of a process. Enter, look whether there is something already, then wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[Future[None], Place] = {}
        self._left_at = 0.0
        self._thread: threading.Thread | None = None
        self._listening = threading.Event()
        self._closing = False
        #: The counter when it was last looked at: later positions are news.
        self._seen: int | None = None

    def enter(self, organisation_id: int, after: int, seconds: float, places: int) -> Future[None] | None:
        """A wait that is done when the organisation has an event behind `after`, or after `seconds`.

        None when all places are taken. Whoever gives up calls `core.longpoll.end`. Returns when the listener listens:
        what is recorded from then on ends the wait.
        """
        waited: Future[None] = Future()
        with self._lock:
            mine = sum(place.organisation_id == organisation_id for place in self._places.values())
            if len(self._places) >= places or mine >= PLACES_OF_ONE or self._closing:
                return None
            self._places[waited] = Place(organisation_id, after, time.monotonic() + seconds)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="events-listener", daemon=True)
                self._thread.start()
        waited.add_done_callback(self._leave)
        self._listening.wait(START_SECONDS)
        return waited

    def close(self) -> None:
        """End all waits and the listener."""
        with self._lock:
            self._closing = True
            waiting, thread = list(self._places), self._thread
        for waited in waiting:
            end(waited)
        if thread is not None:
            thread.join()
        self._closing = False

    def __len__(self) -> int:
        return len(self._places)

    def _leave(self, waited: Future[None]) -> None:
        with self._lock:
            del self._places[waited]
            self._left_at = time.monotonic()

    def _deserted(self) -> bool:
        """Nobody has waited for a while: the listener goes."""
        with self._lock:
            lingers = not self._closing and time.monotonic() < self._left_at + LINGER_SECONDS
            if self._places or lingers:
                return False
            self._thread = None
            self._seen = None
            self._listening.clear()
            return True

    def _run(self) -> None:
        try:
            while not self._deserted():
                try:
                    with closing(Waiter(LOOP)) as waiter:
                        if self._seen is None:
                            self._seen = _numbered()
                        self._listening.set()
                        self._listen(waiter)
                except Exception:
                    log.exception("the listener for events was interrupted")
                    self._end_late()
                    close_old_connections()
                    time.sleep(RETRY_SECONDS)
        finally:
            connection.close()

    def _listen(self, waiter: Waiter) -> None:
        pause, woken_at = MOST_SECONDS, 0.0
        while self._places or (not self._closing and time.monotonic() < self._left_at + LINGER_SECONDS):
            if self._hear(waiter, pause):
                moment = time.monotonic()
                pause = BUSY_SECONDS if moment - woken_at < QUIET_SECONDS else FIRST_SECONDS
                woken_at = moment
                time.sleep(pause)
            self._end_late()
            self._look()
            pause = min(pause * 2, MOST_SECONDS)

    def _hear(self, waiter: Waiter, seconds: float) -> bool:
        """Whether there was a wake-up, waiting for one until it is time to look or somebody's time is over."""
        with self._lock:
            until = min([time.monotonic() + seconds, *(place.until for place in self._places.values())])
        return waiter.wait(max(0.0, until - time.monotonic()))

    def _end_late(self) -> None:
        moment = time.monotonic()
        with self._lock:
            late = [waited for waited, place in self._places.items() if place.until <= moment]
        for waited in late:
            end(waited)

    def _look(self) -> None:
        """End the waits whose organisation has something new."""
        numbered = _numbered()
        # It goes back only when a database is restored or emptied.
        seen = min(numbered, numbered if self._seen is None else self._seen)
        if numbered > seen:
            with self._lock:
                waiting = {place.organisation_id for place in self._places.values()}
            latest = _latest(waiting, seen)
            with self._lock:
                due = [
                    waited
                    for waited, place in self._places.items()
                    if latest.get(place.organisation_id, 0) > place.after
                ]
            for waited in due:
                end(waited)
        self._seen = numbered
        # A pool gets its connection back until the next look.
        close_old_connections()


def _numbered() -> int:
    """The last position that was given to any event."""
    return Sequence.objects.filter(name=POSITIONS).values_list("value", flat=True).first() or 0


def _latest(organisations: set[int], after: int) -> dict[int, int]:
    """The last position behind `after` of each organisation that has one."""
    news = Position.objects.filter(organisation__in=organisations, position__gt=after, event__type__in=EVENT_TYPES)
    return dict(news.order_by().values_list("organisation_id").annotate(latest=Max("position")))


room = Room()
