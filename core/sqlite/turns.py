"""Turns at the write lock of an SQLite file, in which time is shared equally between processes."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable

from django.db.utils import OperationalError

log = logging.getLogger("webio.sqlite")

#: How often the turn and the write lock are asked for, seconds.
ASK_SECONDS = 0.0005
#: A process that got no turn for so long, or for half of its time-out, asks out of turn: who has it may be frozen.
OUT_OF_TURN_SECONDS = 0.25
#: How long a process that has held the write lock lets others go first, at most, seconds.
MOST_POLITE_SECONDS = 0.1


class Turns:
    """The turns of this process at one file.

    SQLite's write lock goes to whoever happens to ask while it is free. A process that writes without a pause asks
    again within microseconds, and all others but rarely find it free. So whoever waits holds the turn, a lock on a
    file beside the database, and nobody else asks meanwhile. Only one thread of a process waits there, and after it has
    held the write lock it leaves the turn to others for as long as it held it: who writes much at once and who writes
    little each get their share of the time.
    """

    def __init__(self, database: str) -> None:
        self._gate = threading.Lock()
        self._file = _beside(database)
        self._began_at = 0.0
        self._polite_until = 0.0
        #: Since when others have had the turn whenever it was asked for; None when it was had last.
        self._refused_since: float | None = None

    def begin(self, begins: Callable[[], bool], timeout: float) -> None:
        """Wait until `begins`, which tells whether the write lock was free; then `end` must follow.

        Raises `OperationalError` after `timeout` seconds.
        """
        started = time.monotonic()
        if not self._gate.acquire(timeout=timeout):
            raise OperationalError("database is locked: another thread's transaction does not end")
        try:
            self._wait(begins, started, timeout)
        except BaseException:
            self._gate.release()
            raise

    def end(self) -> None:
        """What was begun is over."""
        moment = time.monotonic()
        self._polite_until = moment + min(moment - self._began_at, MOST_POLITE_SECONDS)
        self._gate.release()

    def close(self) -> None:
        """Wait for no turns any more."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _wait(self, begins: Callable[[], bool], started: float, timeout: float) -> None:
        ours = False
        out_of_turn = min(OUT_OF_TURN_SECONDS, timeout / 2)
        try:
            while True:
                ours = ours or self._take()
                self._began_at = moment = time.monotonic()
                if ours:
                    self._refused_since = None
                elif self._refused_since is None:
                    self._refused_since = moment
                refused = self._refused_since is not None and moment - self._refused_since >= out_of_turn
                if (ours or refused) and begins():
                    return
                if moment - started >= timeout:
                    raise OperationalError("database is locked")
                if ours and moment < self._polite_until:
                    self._give()
                    ours = False
                time.sleep(ASK_SECONDS)
        finally:
            if ours:
                self._give()

    def _take(self) -> bool:
        if self._file is None:
            return True
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _give(self) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


def turn_file(database: str) -> str:
    """The path of the file at which processes that use a database meet."""
    return f"{database}-turn"


def _beside(database: str) -> int | None:
    """That file, open; None for a database in memory, which is this process's own."""
    if not os.path.exists(database):
        return None
    path, flags = turn_file(database), os.O_RDWR | os.O_CLOEXEC
    try:
        try:
            file = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        # Whoever may write to the database may take a turn, as SQLite does it with the files that it makes beside it.
        about = os.stat(database)
        os.fchmod(file, about.st_mode & 0o666)
        if os.geteuid() == 0:
            os.fchown(file, about.st_uid, about.st_gid)
        return file
    except OSError as problem:
        log.warning("writers take no turns: %s", problem)
        return None
