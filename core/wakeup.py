"""Wake-ups: a hint that rows have been committed. Losing one costs a moment, since every loop also polls.

Who waits hears of a commit by LISTEN/NOTIFY on PostgreSQL; by Redis when it is the broker and PostgreSQL cannot tell
(SQLite, or PgBouncer before it, which passes no NOTIFY on); and else on SQLite by asking `PRAGMA data_version`, which
changes when another connection has committed and costs some microseconds. It is asked when the kernel tells that the
write-ahead log has been written to (inotify(7)), else every few milliseconds.
"""

from __future__ import annotations

import contextlib
import logging
import select
import sqlite3
import time
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from inotify_simple import INotify, flags

from core import loops, notifier

log = logging.getLogger("webio.wakeup")

#: How often SQLite's version is asked, seconds: where the kernel tells nothing of writes, and where it does, lest one
#: of them is committed long after it was told of.
SQLITE_POLL = 0.005
SQLITE_POLL_TOLD = 0.05
#: A write is told of before its commit can be seen: how often the version is then asked, and for how long, seconds.
SQLITE_SOON = 0.0002
SQLITE_SOON_FOR = 0.02
#: A process looks at most this often whether anybody runs the loop it wakes, seconds.
LOOK_SECONDS = 5.0

_looked: dict[str, float] = {}
_redis: Any = None
_notifier = notifier.Notifier()


class _Mark:
    """One transaction's wake-ups: the first callback after the commit sends, the others see that it has."""

    __slots__ = ("sent", "topics")

    def __init__(self) -> None:
        self.sent = False
        self.topics: set[str] = set()


def wake(name: str, topic: str = "") -> None:
    """Wake the loop `name` when the current transaction has committed (at once outside of one).

    `topic` tells those of its runs that share the work what it is about; "" concerns all. Registered anew for every
    event, because a rolled-back savepoint discards what was registered inside it; sent once.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    marks: dict[str, _Mark] = connection.__dict__.setdefault("webio_wake_marks", {})
    mark = marks.get(name)
    if mark is None or mark.sent:
        mark = marks[name] = _Mark()
    mark.topics.add(topic)
    transaction.on_commit(lambda: _send_once(name, mark))


def _send_once(name: str, mark: _Mark) -> None:
    if not mark.sent:
        mark.sent = True
        send(name, mark.topics.pop() if len(mark.topics) == 1 else "")


def send(name: str, topic: str = "") -> None:
    """Wake the loop now, outside of a transaction. Never raises: the rows are there, and polls find them."""
    try:
        way = _way()
        if way == "redis":
            _redis_client().publish(f"webio:{name}", topic)
        elif way == "postgresql":
            # After the commit and on its own: NOTIFY inside a transaction makes commits wait for each other.
            _notifier.send(f"webio_{name}", topic)
        moment = time.monotonic()
        if moment - _looked.get(name, -LOOK_SECONDS) >= LOOK_SECONDS:
            _looked[name] = moment
            loops.ensure(name)
    except Exception:
        log.exception("wake-up of %s failed", name)


def _way() -> str:
    """How wake-ups travel: "postgresql", "redis" or "sqlite"."""
    connection = connections[DEFAULT_DB_ALIAS]
    listens = connection.vendor == "postgresql" and not connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]
    return "redis" if settings.BROKER_URL and not listens else connection.vendor


def _redis_client() -> Any:
    global _redis
    if _redis is None:
        import redis

        _redis = redis.Redis.from_url(settings.BROKER_URL)
    return _redis


def _writes_to(path: str) -> INotify | None:
    """What becomes readable when a file is written to; None where there is no such file or the kernel tells nothing."""
    try:
        writes = INotify()
    except OSError:
        return None
    try:
        writes.add_watch(path, flags.MODIFY)
    except OSError:
        writes.close()
        return None
    return writes


class Waiter:
    """Waits for the wake-ups of one loop. Start it before the first look at the rows, or a wake-up may fall between."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: What the latest wake-ups were about.
        self.topics: set[str] = set()
        self._connection: Any = None
        self._pubsub: Any = None
        self._version: int | None = None
        self._writes: INotify | None = None
        self._soon_until = 0.0
        way = _way()
        if way == "redis":
            self._pubsub = _redis_client().pubsub(ignore_subscribe_messages=True)
            self._pubsub.subscribe(f"webio:{name}")
            self._pubsub.get_message(timeout=1)
        elif way == "postgresql":
            self._connection = notifier.connect()
            self._connection.execute(f'LISTEN "webio_{name}"')
        else:
            path = str(connections[DEFAULT_DB_ALIAS].settings_dict["NAME"])
            uri = path if path.startswith("file:") else f"file:{path}"
            self._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
            self._version = self._data_version()
            # Since the question that log is there, and stays while this connection does.
            self._writes = _writes_to(f"{path}-wal")

    def fileno(self) -> int | None:
        """A descriptor that becomes readable on a wake-up, or None where only `wait` and asking tell (SQLite)."""
        if self._version is not None:
            return None
        if self._pubsub is not None:
            found: int = self._pubsub.connection._sock.fileno()
            return found
        descriptor: int = self._connection.fileno()
        return descriptor

    @property
    def poll_seconds(self) -> float:
        """How long to wait between two questions at most."""
        return SQLITE_POLL if self._version is not None else 0.5

    def woken(self) -> bool:
        """Whether there was a wake-up since the last question. Raises when the connection is gone."""
        if self._version is not None:
            version = self._data_version()
            if version == self._version:
                return False
            self._version, self.topics = version, {""}
        elif self._pubsub is not None:
            self.topics = set()
            while (message := self._pubsub.get_message(timeout=0)) is not None:
                self.topics.add(message["data"].decode())
        else:
            # By libpq itself: psycopg's generator takes ten times as long, and somebody waits.
            libpq = self._connection.pgconn
            libpq.consume_input()
            self.topics = set()
            while (notice := libpq.notifies()) is not None:
                self.topics.add(notice.extra.decode())
        return bool(self.topics)

    def wait(self, seconds: float) -> bool:
        """Wait for a wake-up, at most so long. Returns whether there was one."""
        until = time.monotonic() + seconds
        while not self.woken():
            if (left := until - time.monotonic()) <= 0:
                return False
            self._rest(left)
        return True

    def _rest(self, seconds: float) -> None:
        """Until it is worth asking again, at most so long."""
        descriptor = self.fileno()
        if descriptor is not None:
            select.select([descriptor], [], [], seconds)
        elif self._writes is None:
            time.sleep(min(seconds, SQLITE_POLL))
        elif time.monotonic() < self._soon_until:
            time.sleep(SQLITE_SOON)
        elif self._writes.read(timeout=1 + int(min(seconds, SQLITE_POLL_TOLD) * 1000)):
            self._soon_until = time.monotonic() + SQLITE_SOON_FOR

    def close(self) -> None:
        """Stop listening."""
        with contextlib.suppress(Exception):
            for one in (self._pubsub, self._writes, self._connection):
                if one is not None:
                    one.close()

    def _data_version(self) -> int:
        version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return version
