"""SQLite has one writer at a time. Who comes second asks again after 1, 2, 5, … 100 ms: under load, long waits.

Here whoever writes does so in turn, see `turns`: transactions, which all begin by taking the write lock, and statements
outside of one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from django.db.backends.sqlite3 import base
from django.db.backends.sqlite3.creation import DatabaseCreation

from core.sqlite.turns import Turns, turn_file

Answer = TypeVar("Answer")

#: How statements begin that write; others, such as VACUUM, wait only when they find somebody in their way.
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE")

#: One for each database file of this process.
_turns: dict[str, Turns] = {}
_turns_lock = threading.Lock()


def _forked() -> None:
    """A child has none of its parent's threads, which would have to end their transactions."""
    global _turns_lock
    _turns_lock = threading.Lock()
    for turns in _turns.values():
        turns.close()
    _turns.clear()


os.register_at_fork(after_in_child=_forked)


class Creation(DatabaseCreation):
    """Makes and removes the databases of tests."""

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]
        with contextlib.suppress(FileNotFoundError):
            os.remove(turn_file(test_database_name))


class DatabaseWrapper(base.DatabaseWrapper):
    """The backend. `OPTIONS["timeout"]` bounds the whole wait, seconds."""

    creation_class = Creation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Whose `end` has to be called.
        self._turn: Turns | None = None

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        connection = super().get_new_connection(conn_params)
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            # Only who writes is in anybody's way then, and waiting for that is done here.
            connection.execute("PRAGMA busy_timeout = 0")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        return self.connection.cursor(factory=partial(Cursor, owner=self))

    def in_turn(self, text: str, asks: Callable[[], Answer]) -> Answer:
        """What `asks` returns, which executes the statement `text`, when no other process is writing.

        Raises what `asks` raises, and `OperationalError` if it takes longer than the time-out.
        """
        if self._turn is not None or self.connection is None:
            # Nothing is to be waited for, also when SQLite has ended the transaction by itself, as on a full disk.
            return asks()
        if self.connection.in_transaction or not text.lstrip()[:7].upper().startswith(_WRITES):
            try:
                return asks()
            except sqlite3.OperationalError as error:
                if not _is_busy(error):
                    raise
        answers: list[Answer] = []
        turns = self._turns()
        turns.begin(lambda: _unless_busy(lambda: answers.append(asks())), self._timeout())
        turns.end()
        return answers[0]

    def _start_transaction_under_autocommit(self) -> None:
        turns = self._turns()
        try:
            with self.wrap_database_errors:
                turns.begin(lambda: _unless_busy(lambda: self.connection.execute("BEGIN IMMEDIATE")), self._timeout())
        except BaseException:
            # One from outside, such as the end of a task's time, may come when it had begun.
            if self.connection.in_transaction:
                self.connection.rollback()
            raise
        self._turn = turns

    def _timeout(self) -> float:
        return float(self.settings_dict["OPTIONS"].get("timeout", 5))

    def _turns(self) -> Turns:
        name = self.settings_dict["NAME"]
        # One in memory is its connection's own.
        path = f"{name} {id(self)}" if name == ":memory:" else os.path.abspath(name)
        with _turns_lock:
            return _turns.get(path) or _turns.setdefault(path, Turns(path))

    def _leave(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()

    def _commit(self) -> Any:
        try:
            return super()._commit()  # type: ignore[misc]
        finally:
            # One that fails leaves the transaction open, for a rollback to end.
            if self.connection is None or not self.connection.in_transaction:
                self._leave()

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self._leave()

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]
        finally:
            self._leave()


class Cursor(base.SQLiteCursorWrapper):
    """Django's, which writes in turn."""

    def __init__(self, connection: sqlite3.Connection, owner: DatabaseWrapper) -> None:
        super().__init__(connection)
        self._owner = owner

    def execute(self, query: str, params: Any = None) -> Any:
        return self._owner.in_turn(query, lambda: super(Cursor, self).execute(query, params))

    def executemany(self, query: str, param_list: Iterable[Any]) -> Any:
        if self.connection.in_transaction or not self._owner.autocommit:
            rows = list(param_list)
            return self._owner.in_turn(query, lambda: super(Cursor, self).executemany(query, rows))
        # All or none: what has been done of them could not be told from what has yet to be done.
        self._owner._start_transaction_under_autocommit()
        try:
            done = super().executemany(query, param_list)
            self._owner._commit()
        except BaseException:
            self._owner._rollback()
            raise
        return done


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
    """Somebody is in the way and will be gone (sqlite.org/rescode.html).

    What was read before another wrote stays old, however long one waits.
    """
    # What Python itself raises, such as for text that is no UTF-8, has no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY and code != sqlite3.SQLITE_BUSY_SNAPSHOT
