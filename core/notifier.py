"""NOTIFY without waiting: who tells listeners of a commit goes on before the server has answered.

A process has one connection for this beside those that its threads work with. Statements follow each other in
libpq's pipeline mode (PostgreSQL manual, 34.5), and what became of them is looked at when the next is sent.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

#: It takes a transaction number, and nobody need wait until that is on disk.
_NOTIFY = b"SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"


def connect() -> Any:
    """A psycopg connection to the platform's database in autocommit mode. Raises `psycopg.OperationalError`."""
    import psycopg

    ours = ("cursor_factory", "context", "pool", "prepare_threshold", "server_side_binding")
    given = connections[DEFAULT_DB_ALIAS].get_connection_params()
    return psycopg.connect(**{key: value for key, value in given.items() if key not in ours}, autocommit=True)


class Notifier:
    """Sends notifications from any thread. After a fork each process has its own connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._process = 0
        self._unanswered = 0

    def send(self, channel: str, payload: str) -> None:
        """Send one notification. Raises `psycopg.Error` when there is no connection to be had."""
        with self._lock:
            try:
                self._send(channel, payload)
            except Exception:
                # The server may have restarted since the last.
                self._close()
                self._send(channel, payload)

    def _send(self, channel: str, payload: str) -> None:
        libpq = self._open()
        self._take_answers(libpq)
        libpq.send_query_params(_NOTIFY, [channel.encode(), payload.encode()])
        libpq.pipeline_sync()
        self._unanswered += 1
        libpq.flush()

    def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        with self._lock:
            self._close()

    def _open(self) -> Any:
        """The connection of this process, as psycopg's `PGconn`."""
        if self._process != os.getpid():
            # That of the process we were forked from stays its own.
            self._connection = None
        if self._connection is None:
            self._connection, self._process, self._unanswered = connect(), os.getpid(), 0
            self._connection.pgconn.nonblocking = 1
            self._connection.pgconn.enter_pipeline_mode()
        return self._connection.pgconn

    def _take_answers(self, libpq: Any) -> None:
        """Take in what the server has said so far. Raises `psycopg.Error` when it refused something."""
        from psycopg import errors, pq

        libpq.consume_input()
        while self._unanswered and not libpq.is_busy():
            answer = libpq.get_result()
            if answer is not None and answer.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.OperationalError(answer.error_message.decode("utf-8", "replace"))
            if answer is not None and answer.status == pq.ExecStatus.PIPELINE_SYNC:
                self._unanswered -= 1
                libpq.consume_input()
        # The end of the connection comes after whatever the server said last.
        libpq.consume_input()

    def _close(self) -> None:
        if self._connection is not None and self._process == os.getpid():
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None
