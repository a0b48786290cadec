"""Turns at the write lock of an SQLite file, in which time is shared equally between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable

from django.db.utils import OperationalError

#: How often the turn and the write lock are asked for, seconds.
ASK_SECONDS = 0.0005
#: Who has waited so long for a turn asks out of turn: who has it may be frozen. Seconds.
OUT_OF_TURN_SECONDS = 1.0
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
        self._file: int | None = None
        self._began_at = 0.0
        self._polite_until = 0.0
        # Where none can be made, as for a database in memory, there is nobody to share with, or no way to.
        with contextlib.suppress(OSError):
            if os.path.exists(database):
                self._file = os.open(f"{database}-turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

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
        self._began_at = time.monotonic()

    def end(self) -> None:
        """The transaction is over."""
        moment = time.monotonic()
        self._polite_until = moment + min(moment - self._began_at, MOST_POLITE_SECONDS)
        self._gate.release()

    def _wait(self, begins: Callable[[], bool], started: float, timeout: float) -> None:
        ours = False
        try:
            while True:
                ours = ours or self._take()
                waited = time.monotonic() - started
                if (ours or waited >= OUT_OF_TURN_SECONDS) and begins():
                    return
                if waited >= timeout:
                    raise OperationalError("database is locked")
                if ours and started + waited < self._polite_until:
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
