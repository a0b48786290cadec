"""SQLite has one writer at a time. Who comes second asks again after 1, 2, 5, … 100 ms: under load, long waits.

Here the threads of a process take turns at a lock of their own before they begin a transaction, so that only one of
them asks SQLite at all; and that one asks every half millisecond. Statements outside a transaction wait as ever.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

#: How often the write lock of other processes is asked for, seconds.
ASK_SECONDS = 0.0005

#: One lock for each database file of this process.
_gates: dict[str, threading.Lock] = {}
_gates_lock = threading.Lock()


class DatabaseWrapper(base.DatabaseWrapper):
    """The backend. `OPTIONS["timeout"]` bounds the whole wait, seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate: threading.Lock | None = None

    def _start_transaction_under_autocommit(self) -> None:
        timeout = float(self.settings_dict["OPTIONS"].get("timeout", 5))
        deadline = time.monotonic() + timeout
        with _gates_lock:
            gate = _gates.setdefault(str(self.settings_dict["NAME"]), threading.Lock())
        if not gate.acquire(timeout=timeout):
            raise OperationalError("database is locked: another thread's transaction does not end")
        try:
            self._begin(deadline, timeout)
        except BaseException:
            gate.release()
            raise
        self._gate = gate

    def _begin(self, deadline: float, timeout: float) -> None:
        connection = self.connection
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                        raise OperationalError(*error.args) from error
                time.sleep(ASK_SECONDS)
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")

    def _leave(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()

    def _commit(self) -> Any:
        # A commit that fails leaves the transaction open, for a rollback to end.
        done = super()._commit()  # type: ignore[misc]
        self._leave()
        return done

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self._leave()

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self.connection is None:
                self._leave()
