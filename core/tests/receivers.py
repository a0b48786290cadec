"""Local HTTP servers for tests: a good one that remembers what it got, and faulty ones of every kind.

    with receiver() as good:
        ...  # requests to good.url
    assert good.requests[0].body == b"..."

A behaviour is a function of the connection and one request, called for each request; it writes the answer to the
socket and says whether the connection stays open. Tests allow `127.0.0.0/8` in OUTBOUND_ALLOWED_NETWORKS first.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True)
class Received:
    """One request as it came: header names in lower case, `at` as `time.monotonic()`, which connection brought it.

    `names` are those of its header lines in their order, each as often as it came.
    """

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes
    at: float
    connection: int
    names: tuple[str, ...]


#: Answers one request; True keeps the connection.
Behaviour = Callable[[socket.socket, Received], bool]


@dataclass
class Receiver:
    """A server on 127.0.0.1. `requests` and `connections` (how many were accepted) grow while it runs."""

    behaviour: Behaviour
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Received] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._arrived = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address, with a path."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}/hook"

    def wait(self, count: int, seconds: float = 10.0) -> list[Received]:
        """The requests, once there are `count`. Raises `TimeoutError`."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, seconds):
                raise TimeoutError(f"{len(self.requests)} of {count} requests came.")
            return list(self.requests)

    def close(self) -> None:
        """Stop listening and drop every connection."""
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        # Whatever the client does to the connection ends this thread and nothing else.
        with contextlib.suppress(OSError, ValueError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            served = connection
            if self.tls:
                served = self.tls.wrap_socket(connection, server_side=True)
                self._open.add(served)
            reader = served.makefile("rb")
            while request := self._read(reader, number):
                with self._arrived:
                    self.requests.append(request)
                    self._arrived.notify_all()
                if not self.behaviour(served, request):
                    break
            with contextlib.suppress(OSError):
                served.shutdown(socket.SHUT_RDWR)
            served.close()

    @staticmethod
    def _read(reader: BinaryIO, number: int) -> Received | None:
        first = reader.readline().decode("latin-1").split()
        if len(first) != 3:
            return None
        headers = {}
        names = []
        while (line := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
            names.append(name.lower())
        body = reader.read(int(headers.get("content-length", 0)))
        method, target, version = first
        return Received(method, target, version, headers, body, time.monotonic(), number, tuple(names))


def answer(status: int = 200, body: bytes = b"ok", headers: str = "", *, keep: bool = True) -> Behaviour:
    """A complete, correct answer. `headers` are lines ending in CRLF."""
    close = "" if keep else "connection: close\r\n"
    data = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n{close}{headers}\r\n".encode("latin-1") + body
    return raw(data, keep=keep)


def raw(data: bytes, *, keep: bool = False) -> Behaviour:
    """These very bytes."""

    def behave(connection: socket.socket, _request: Received) -> bool:
        connection.sendall(data)
        return keep

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Each request gets the next behaviour; the last one stays."""
    left = list(behaviours)

    def behave(connection: socket.socket, request: Received) -> bool:
        chosen = left.pop(0) if len(left) > 1 else left[0]
        return chosen(connection, request)

    return behave


def redirect(to: str, status: int = 302) -> Behaviour:
    """Sends the client elsewhere."""
    return answer(status, b"", f"location: {to}\r\n")


def hang(connection: socket.socket, _request: Received) -> bool:
    """Takes the request and never says a word, until the other side or the test ends."""
    connection.recv(1)
    return False


def slowly(data: bytes, pause: float = 0.05) -> Behaviour:
    """One byte of `data` at a time: no single read is ever slow."""

    def behave(connection: socket.socket, _request: Received) -> bool:
        for number in range(len(data)):
            connection.sendall(data[number : number + 1])
            time.sleep(pause)
        return False

    return behave


def slow_body(connection: socket.socket, request: Received) -> bool:
    """200, then a body that drips for minutes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
    return slowly(b"x" * 10_000)(connection, request)


def slow_headers(connection: socket.socket, request: Received) -> bool:
    """200, then headers that drip for minutes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    return slowly(b"x-drip: drop\r\n" * 1_000)(connection, request)


def _without_end(head: bytes, chunk: bytes) -> Behaviour:
    def behave(connection: socket.socket, _request: Received) -> bool:
        connection.sendall(head)
        while True:
            connection.sendall(chunk)

    return behave


#: A body of unknown length that never ends.
endless_body = _without_end(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536)
#: The same in chunks.
endless_chunks = _without_end(
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n"
)
#: A body that says it has ten gigabytes.
huge_body = _without_end(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n", b"x" * 65_536)
#: Header after header.
endless_headers = _without_end(b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n" * 500)
#: One header line that never ends.
endless_header_line = _without_end(b"HTTP/1.1 200 OK\r\nx-more: ", b"x" * 65_536)
#: One interim answer after the other.
endless_interim = _without_end(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 100)

#: One header line of 1 MB.
large_header = answer(headers=f"x-large: {'x' * 1_000_000}\r\n")
#: 1 MB of headers in lines of 1 KB.
large_headers = answer(headers=f"x-large: {'x' * 1_000}\r\n" * 1_000)


def gzip_bomb(megabytes: int = 100) -> Behaviour:
    """A small body that would grow to `megabytes`."""
    return answer(body=gzip.compress(bytes(megabytes * 1_000_000)), headers="content-encoding: gzip\r\n")


def reset(data: bytes = b"") -> Behaviour:
    """Sends `data`, then tears the connection down with a RST."""

    def behave(connection: socket.socket, _request: Received) -> bool:
        if data:
            connection.sendall(data)
            # The client must have taken the bytes in before the RST throws them away.
            time.sleep(0.05)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        return False

    return behave


@contextlib.contextmanager
def receiver(
    behaviour: Behaviour | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Receiver]:
    """A running `Receiver`; the good one without `behaviour`. `host` is how its URL calls it."""
    running = Receiver(behaviour or answer(), tls, host)
    try:
        yield running
    finally:
        running.close()


def unused_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
