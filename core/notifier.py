"""NOTIFY without waiting: who tells listeners of a commit goes on before the server has answered.

A process has one connection for this beside those that its threads work with. Statements follow each other in
libpq's pipeline mode (PostgreSQL manual, 34.5), and what became of them is looked at when the next is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

log = logging.getLogger("webio.wakeup")

#: Read and planned once for each connection, by this name.
_NOTIFY = b"webio_notify"
#: How long whoever sends waits for a connection at most, and how long nobody tries again when there is none, seconds.
CONNECT_SECONDS = 2
AGAIN_SECONDS = 1.0
#: With so many unanswered the server is taken for lost.
UNANSWERED_MOST = 1000


def connect(**options: Any) -> Any:
    """A psycopg connection to the platform's database in autocommit mode; `options` are more of libpq's.

    Raises `psycopg.OperationalError`.
    """
    import psycopg

    ours = ("cursor_factory", "context", "pool", "prepare_threshold", "server_side_binding")
    given = connections[DEFAULT_DB_ALIAS].get_connection_params()
    kept = {key: value for key, value in given.items() if key not in ours}
    return psycopg.connect(**{**kept, **options}, autocommit=True)


class Notifier:
    """Sends notifications from any thread. After a fork each process has its own connection."""

    def __init__(self) -> None:
        self._connection: Any = None
        #: That of the process we were forked from, which is never closed here.
        self._inherited: Any = None
        self._unanswered = 0
        self._not_before = 0.0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forked)

    def send(self, channel: str, payload: str) -> None:
        """Send one notification.

        Raises `psycopg.Error` when there is no connection to be had; until `AGAIN_SECONDS` later nothing is sent then.
        """
        with self._lock:
            had = self._connection is not None
            try:
                self._send(channel, payload)
            except Exception as problem:
                self._close()
                if not had:
                    raise
                # The server has restarted since the last, or refused that.
                log.warning("notifications: %s", problem)
                self._send(channel, payload)

    def close(self) -> None:
        """Close the connection once what was sent is answered; the next `send` opens another."""
        with self._lock:
            deadline = time.monotonic() + CONNECT_SECONDS
            with contextlib.suppress(Exception):
                while self._unanswered and time.monotonic() < deadline:
                    select.select([self._connection.pgconn.socket], [], [], 0.1)
                    self._take_answers(self._connection.pgconn)
            self._close()

    def _send(self, channel: str, payload: str) -> None:
        libpq = self._open()
        if libpq is None:
            return
        self._take_answers(libpq)
        libpq.send_query_prepared(_NOTIFY, [channel.encode(), payload.encode()])
        libpq.pipeline_sync()
        self._unanswered += 1
        libpq.flush()

    def _open(self) -> Any:
        """The connection as psycopg's `PGconn`; None where there was none a moment ago."""
        from psycopg import errors, pq

        if self._connection is None:
            if time.monotonic() < self._not_before:
                return None
            self._not_before = time.monotonic() + AGAIN_SECONDS
            self._connection, self._unanswered = connect(connect_timeout=CONNECT_SECONDS), 0
            self._not_before = 0.0
            # A notification takes a transaction number, and nobody need wait until that is on disk.
            self._connection.execute("SET synchronous_commit = off")
            prepared = self._connection.pgconn.prepare(_NOTIFY, b"SELECT pg_notify($1, $2)")
            if prepared.status != pq.ExecStatus.COMMAND_OK:
                raise errors.OperationalError(prepared.error_message.decode("utf-8", "replace"))
            self._connection.pgconn.nonblocking = 1
            self._connection.pgconn.enter_pipeline_mode()
        return self._connection.pgconn

    def _take_answers(self, libpq: Any) -> None:
        """Take in what the server has said so far. Raises `psycopg.Error` when it refused something or is gone."""
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
        if self._unanswered >= UNANSWERED_MOST:
            raise errors.OperationalError(f"{self._unanswered} were not answered")

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection, self._unanswered = None, 0

    def _forked(self) -> None:
        # Whoever held the lock is not in this process.
        self._lock = threading.Lock()
        self._inherited, self._connection, self._unanswered = self._connection, None, 0
