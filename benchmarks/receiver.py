"""A cheap keep-alive HTTP receiver, so that what is measured is the sender.

`python -m benchmarks.receiver PORT` answers every POST with 200 and an empty body, but for those to /hang, which it
never answers, and GET /arrivals with the number of requests so far and the last 10,000 arrivals as `webhook-id` and
`time.time()` in JSON. One thread, epoll and as little parsing as HTTP/1.1 allows: a request costs it about 10 µs, a
tenth of what asyncio's protocols take.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Receiver:
    """All connections and what has arrived over them."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self.arrivals: deque[tuple[bytes, float]] = deque(maxlen=10_000)
        self.listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.listener.setblocking(False)
        self.poller = select.epoll()
        self.poller.register(self.listener, select.EPOLLIN)
        self.connections: dict[int, socket.socket] = {}
        self.partial: dict[int, bytes] = {}

    def serve(self) -> None:
        """Until killed."""
        listening = self.listener.fileno()
        while True:
            for descriptor, _events in self.poller.poll():
                if descriptor == listening:
                    self.accept()
                else:
                    self.read(descriptor)

    def accept(self) -> None:
        """Take a new connection."""
        connection, _address = self.listener.accept()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[connection.fileno()] = connection
        self.poller.register(connection, select.EPOLLIN)

    def read(self, descriptor: int) -> None:
        """Answer every whole request that has come in."""
        connection = self.connections[descriptor]
        try:
            data = connection.recv(65536)
        except ConnectionError:
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
        if not head.startswith(b"GET /arrivals"):
            self.count += 1
            self.arrivals.append((head, time.time()))
            connection.send(OK)
            return
        arrivals = [(_header(head.lower(), b"webhook-id").decode(), at) for head, at in self.arrivals]
        answer = json.dumps({"count": self.count, "arrivals": arrivals}).encode()
        connection.setblocking(True)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
        connection.setblocking(False)


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


if __name__ == "__main__":
    Receiver(int(sys.argv[1])).serve()
