"""SQLite has one writer at a time. Who comes second asks again after 1, 2, 5, … 100 ms: under load, long waits.

Here whoever finds the write lock taken waits for a turn instead, see `turns`: transactions, which all begin by taking
it, and statements outside of one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from django.db import transaction
from django.db.backends.sqlite3 import base

from core.sqlite.turns import Turns

Answer = TypeVar("Answer")

#: One for each database file of this process.
_turns: dict[str, Turns] = {}
_turns_lock = threading.Lock()
# A child has none of its parent's threads, which would have to end their transactions.
os.register_at_fork(after_in_child=_turns.clear)


class DatabaseWrapper(base.DatabaseWrapper):
    """The backend. `OPTIONS["timeout"]` bounds the whole wait, seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Whose `end` has to be called.
        self._turn: Turns | None = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        # Waiting is done here from now on.
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=partial(Cursor, owner=self))

    def when_free(self, asks: Callable[[], Answer]) -> Answer:
        """What `asks` returns, which executes one statement, when no other process is writing.

        Raises what `asks` raises, and `OperationalError` if it takes longer than the time-out.
        """
        try:
            return asks()
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or self.connection.in_transaction:
                raise
        answers: list[Answer] = []
        turns = self._turns()
        turns.begin(lambda: _unless_busy(lambda: answers.append(asks())), self._timeout())
        turns.end()
        return answers[0]

    def _start_transaction_under_autocommit(self) -> None:
        turns = self._turns()
        with self.wrap_database_errors:
            turns.begin(lambda: _unless_busy(lambda: self.connection.execute("BEGIN IMMEDIATE")), self._timeout())
        self._turn = turns

    def _timeout(self) -> float:
        return float(self.settings_dict["OPTIONS"].get("timeout", 5))

    def _turns(self) -> Turns:
        name = str(self.settings_dict["NAME"])
        with _turns_lock:
            return _turns.get(name) or _turns.setdefault(name, Turns(name))

    def _leave(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()

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


class Cursor(base.SQLiteCursorWrapper):
    """Django's, which waits in turn."""

    def __init__(self, connection: sqlite3.Connection, owner: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._owner = owner

    def execute(self, query: str, params: Any = None) -> Any:
        return self._owner.when_free(lambda: super(Cursor, self).execute(query, params))

    def executemany(self, query: str, param_list: Iterable[Any]) -> Any:
        if self.connection.in_transaction:
            return super().executemany(query, param_list)
        # All or none: what has been done of them could not be told from what has yet to be done.
        with transaction.atomic(using=self._owner.alias):
            return super().executemany(query, param_list)


def _unless_busy(asks: Callable[[], object]) -> bool:
    """Do it, and tell whether that could be done."""
    try:
        asks()
    except sqlite3.OperationalError as error:
        if not _is_busy(error):
            raise
        return False
    return True


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # The rest of the code tells more of it (sqlite.org/rescode.html).
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
