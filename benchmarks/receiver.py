"""A cheap keep-alive HTTP receiver, so that what is measured is the sender.

`python -m benchmarks.receiver PORT` answers every POST with 200 and an empty body, and GET /arrivals with the
number of requests so far and the last 10,000 arrivals as `webhook-id` and `time.time()` in JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class Counter:
    """What has arrived, over all connections."""

    def __init__(self) -> None:
        self.count = 0
        self.arrivals: deque[tuple[str, float]] = deque(maxlen=10_000)


class Protocol(asyncio.Protocol):
    """Parses just enough of HTTP/1.1: header end, content-length, the webhook-id."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            total = end + 4 + int(_header(head, b"content-length") or 0)
            if len(self.buffer) < total:
                return
            self.buffer = self.buffer[total:]
            if head.startswith(b"get /arrivals"):
                answer = json.dumps({"count": self.counter.count, "arrivals": list(self.counter.arrivals)}).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
                continue
            self.counter.count += 1
            self.counter.arrivals.append((_header(head, b"webhook-id").decode(), time.time()))
            self.transport.write(OK)


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b":")
    if at < 0:
        return b""
    start = at + len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()


async def main(port: int) -> None:
    """Serve until killed."""
    counter = Counter()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Protocol(counter), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
