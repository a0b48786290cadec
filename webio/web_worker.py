"""gunicorn's threaded worker, made patient: who sends, reads or waits for long does not keep a thread for itself.

As it comes, a thread waits for ever for the rest of a request: as many half-sent requests as there are threads stop
the whole server. A proxy that buffers would hide that; this worker needs none. Requests that wait for something to
happen (`core.longpoll`) are parked without a thread until it has.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from gunicorn.http.wsgi import Response
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from core.longpoll import PARKS, WaitingResponse, end


class Parked(BaseException):
    """A request whose answer is made later. No `Exception`, so that it passes gunicorn's handling of errors."""

    def __init__(self, answer: WaitingResponse, response: Response) -> None:
        self.answer = answer
        #: gunicorn's side of the answer: nothing of it has been sent.
        self.response = response


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
        #: Requests that wait. Only the main loop touches it.
        self.parked: dict[TConn, Parked] = {}

    def load_wsgi(self) -> None:
        """The application, told that its requests may wait here."""
        super().load_wsgi()
        application: Any = self.wsgi
        self.wsgi: Any = partial(self.serve, application)

    def serve(self, application: Any, environ: dict[str, Any], start_response: Any) -> Any:
        """The application's answer. Raises `Parked` for one that is made later."""
        if environ.get("HTTP_VERSION") == "2":
            # Its requests share a connection, and a thread.
            return application(environ, start_response)
        environ[PARKS] = True
        answer = application(environ, start_response)
        if isinstance(answer, WaitingResponse):
            raise Parked(answer, start_response.__self__)
        return answer

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
        except Parked as parked:
            return parked
        finally:
            del self.begun[conn]

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """In the main loop, after a thread: a request that waits is put aside."""
        parked = None if fs.cancelled() or fs.exception() else fs.result()
        if not isinstance(parked, Parked):
            super().finish_request(conn, fs)
            return
        self.parked[conn] = parked
        with contextlib.suppress(OSError, ValueError):
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.look_at_parked, conn))
        resume = partial(self.method_queue.defer, self.resume, conn)
        parked.answer.waited.add_done_callback(lambda _waited: resume())

    def look_at_parked(self, conn: TConn, _socket: socket.socket) -> None:
        """A client that waits sent something, or is gone: then nobody waits any longer."""
        if conn not in self.parked:
            # Its wait ended in the same turn of the loop.
            return
        self.poller.unregister(conn.sock)
        gone = True
        with contextlib.suppress(OSError):
            gone = not conn.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if gone:
            end(self.parked[conn].answer.waited)

    def resume(self, conn: TConn) -> None:
        """Let a thread answer a request that has waited."""
        parked = self.parked.pop(conn, None)
        if parked is None:
            return
        with contextlib.suppress(KeyError, OSError, ValueError):
            self.poller.unregister(conn.sock)
        work = self.tpool.submit(self.answer_parked, conn, parked)
        work.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def answer_parked(self, conn: TConn, parked: Parked) -> bool:
        """In a thread: write what had to wait. Returns whether the connection stays open."""
        write: Callable[[bytes], None] = parked.response.write
        if not self.alive:
            parked.response.force_close()
        try:
            with contextlib.closing(parked.answer):
                for piece in parked.answer:
                    write(piece)
                parked.response.close()
        except OSError:
            # The client has gone.
            return False
        except Exception:
            self.log.exception("A request that had waited could not be answered.")
            return False
        return bool(self._keepalive_after(conn, not parked.response.should_close()))

    def murder_pending(self) -> None:
        """What the main loop does every second: also end what takes too long, the reading of requests and waits."""
        super().murder_pending()
        moment = time.monotonic()
        for conn, parked in list(self.parked.items()):
            if not self.alive or parked.answer.until <= moment:
                end(parked.answer.waited)
                self.resume(conn)
        late = time.monotonic() - self.request_seconds
        for conn, began in list(self.begun.items()):
            if began < late:
                # Only reading ends: an answer that takes long to make or to send goes on.
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)
