"""A cheap keep-alive HTTP receiver, so that what is measured is the sender.

`python -m benchmarks.receiver PORT [TLS_PORT PEM]` answers every POST with 200 and an empty body: one to /slow/50/…
after 50 ms, one to /hang never. PEM is the file of a certificate with its key. GET /arrivals gives the number of
requests and of connections so far and the last 10,000 arrivals as `webhook-id` and `time.time()`, GET /growth when 1,
2, 3 … slow requests first were unanswered at once, both in JSON. Whoever GETs is not counted. One thread, epoll and as
little parsing as HTTP/1.1 allows: a request costs it about 10 µs, a tenth of what asyncio's protocols take.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import ssl
import sys
import time
from collections import deque

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """All connections and what has arrived over them."""

    def __init__(self, port: int, tls_port: int = 0, pem: str = "") -> None:
        self.count = 0
        self.connected = 0
        self.arrivals: deque[tuple[bytes, float]] = deque(maxlen=10_000)
        #: When each number of unanswered slow requests was first reached, by `time.time`.
        self.growth: list[float] = []
        #: (when to answer by `time.monotonic`, a number that keeps their order, whom): slow requests, soonest first.
        self.slow: list[tuple[float, int, socket.socket]] = []
        self.poller = select.epoll()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        #: Listening sockets by descriptor, and whether they speak TLS.
        self.listeners: dict[int, tuple[socket.socket, bool]] = {}
        self.listen(port, tls=False)
        if tls_port:
            self.context.load_cert_chain(pem)
            self.listen(tls_port, tls=True)
        self.connections: dict[int, socket.socket] = {}
        self.partial: dict[int, bytes] = {}

    def listen(self, port: int, *, tls: bool) -> None:
        """Take connections at a port."""
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        listener.setblocking(False)
        self.listeners[listener.fileno()] = listener, tls
        self.poller.register(listener, select.EPOLLIN)

    def serve(self) -> None:
        """Until killed."""
        while True:
            wait = max(0.0, self.slow[0][0] - time.monotonic()) if self.slow else None
            for descriptor, _events in self.poller.poll(wait):
                if descriptor in self.listeners:
                    self.accept(*self.listeners[descriptor])
                else:
                    self.read(descriptor)
            while self.slow and self.slow[0][0] <= time.monotonic():
                self.send(heapq.heappop(self.slow)[2])

    def accept(self, listener: socket.socket, tls: bool) -> None:
        """Take a new connection. Its TLS handshake is part of its first reads."""
        connection, _address = listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.connected += 1
        self.connections[connection.fileno()] = connection
        self.poller.register(connection, select.EPOLLIN)

    def read(self, descriptor: int) -> None:
        """Answer every whole request that has come in."""
        connection = self.connections[descriptor]
        try:
            data = connection.recv(65536)
        except ssl.SSLWantReadError:
            return
        except OSError:
            data = b""
        if not data:
            self.poller.unregister(descriptor)
            self.partial.pop(descriptor, None)
            self.connections.pop(descriptor).close()
            return
        data = self.partial.pop(descriptor, b"") + data
        while data:
            end = data.find(b"\r\n\r\n")
            total = end + 4 + int(_header(data[:end].lower(), b"content-length") or 0)
            if end < 0 or len(data) < total:
                self.partial[descriptor] = data
                return
            self.answer(connection, data[:end])
            data = data[total:]

    def answer(self, connection: socket.socket, head: bytes) -> None:
        """Count a POST, or tell what was counted."""
        if head.startswith(b"POST /hang"):
            return
        if head.startswith(b"GET "):
            self.connected -= 1
            self.tell(connection, {"growth": self.growth} if head.startswith(b"GET /growth") else self.counted())
            return
        self.count += 1
        self.arrivals.append((head, time.time()))
        if head.startswith(b"POST /slow/"):
            seconds = int(head.split(b"/", 3)[2]) / 1000
            heapq.heappush(self.slow, (time.monotonic() + seconds, self.count, connection))
            if len(self.slow) > len(self.growth):
                self.growth.append(time.time())
        else:
            self.send(connection)

    def send(self, connection: socket.socket) -> None:
        """Answer a POST, unless whoever sent it has gone."""
        if connection.fileno() >= 0:
            connection.send(OK)

    def counted(self) -> dict[str, object]:
        """What has come so far."""
        arrivals = [(_header(head.lower(), b"webhook-id").decode(), at) for head, at in self.arrivals]
        return {"count": self.count, "connections": self.connected, "arrivals": arrivals}

    def tell(self, connection: socket.socket, facts: dict[str, object]) -> None:
        """Answer with JSON of any length."""
        body = json.dumps(facts).encode()
        connection.setblocking(True)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        connection.setblocking(False)


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Receiver(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).serve()
    Receiver(int(sys.argv[1])).serve()
