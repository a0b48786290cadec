"""gunicorn's threaded worker, made patient: a client that sends or reads slowly does not keep a thread for itself.

As it comes, a thread waits for ever for the rest of a request: as many half-sent requests as there are threads stop
the whole server. A proxy that buffers would hide that; this worker needs none.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker


class Worker(ThreadWorker):  # type: ignore[misc]
    """Threads work on connections that have something to say, and wait for the rest of it for a limited time."""

    #: A request must have arrived after so many seconds, body included.
    request_seconds = 30.0
    #: Seconds for which a client may take nothing of an answer.
    answer_seconds = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: When work on a connection began, by connection. Threads write it and the main loop reads it.
        self.begun: dict[TConn, float] = {}

    def handle(self, conn: TConn) -> Any:
        """One request, in a thread."""
        if not conn.initialized and not conn.wait_for_data(0):
            # Back to the main loop, which waits for all silent connections at once.
            return _DEFER
        self.begun[conn] = time.monotonic()
        try:
            with contextlib.suppress(OSError):
                conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.answer_seconds * 1000))
            return super().handle(conn)
        finally:
            del self.begun[conn]

    def murder_pending(self) -> None:
        """What the main loop does every second: also end the reading of requests that take too long."""
        super().murder_pending()
        late = time.monotonic() - self.request_seconds
        for conn, began in list(self.begun.items()):
            if began < late:
                # Only reading ends: an answer that takes long to make or to send goes on.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)
