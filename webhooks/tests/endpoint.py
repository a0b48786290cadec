"""A customer's endpoint on 127.0.0.1: answers as told and remembers what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """One request as it came, `at` as `time.monotonic()`."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


@dataclass
class Endpoint:
    """What the endpoint answers, and what it was asked. `drops` first requests end without an answer."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    delay: float = 0.0
    drops: int = 0
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def running_endpoint() -> Iterator[Endpoint]:
    """An endpoint on a free port, until the block ends."""
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            # Whoever has seen it come may change how long the next one takes.
            delay = endpoint.delay
            endpoint.asked.append(Asked(self.command, self.path, headers, self.rfile.read(length)))
            if len(endpoint.asked) <= endpoint.drops:
                self.close_connection = True
                return
            time.sleep(delay)
            self.send_response(endpoint.status)
            for name, value in endpoint.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(endpoint.body)))
            self.end_headers()
            self.wfile.write(endpoint.body)

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
