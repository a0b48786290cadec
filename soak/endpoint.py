"""The customers' endpoint: notes everything that arrives, and refuses the first copy of some events."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.tests.receivers import Received, Receiver, answer, receiver

_OK = answer(200, b"")
_FAULT = answer(500, b"try again")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: whose, which event, what, and whether it was accepted."""

    path: str
    identifier: str
    digest: bytes
    accepted: bool


class Book:
    """What arrived, in the order of arrival. The first copy of one event in `refuse_one_in` is refused."""

    def __init__(self, refuse_one_in: int) -> None:
        self.refuse_one_in = refuse_one_in
        self.arrivals: list[Arrival] = []
        self._known: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def behave(self, connection: socket.socket, request: Received) -> bool:
        """Answer one request (`core.tests.receivers.Behaviour`)."""
        digest = hashlib.sha256(request.body).digest()
        path, identifier = request.target, request.headers["webhook-id"]
        chosen = int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:4], "big") % self.refuse_one_in == 0
        with self._lock:
            accepted = not chosen or (path, identifier) in self._known
            self._known.add((path, identifier))
            self.arrivals.append(Arrival(path, identifier, digest, accepted))
        return (_OK if accepted else _FAULT)(connection, request)


@contextmanager
def running_book(refuse_one_in: int = 100) -> Iterator[tuple[Book, Receiver]]:
    """A book and the server that keeps it."""
    book = Book(refuse_one_in)
    with receiver(book.behave) as server:
        yield book, server
