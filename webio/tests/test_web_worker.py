"""The web server's worker: slow clients keep nobody else waiting."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from webio.web_worker import Worker

pytestmark = pytest.mark.once

THREADS = 2
BIG = 32 * 1024 * 1024


class Impatient(Worker):
    """The worker under test, whose patience a test can outlast."""

    request_seconds = 1.0
    answer_seconds = 1.0


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers the length of the body, or very much."""
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(3)
    answer = b"x" * BIG if environ["PATH_INFO"] == "/big" else str(len(body)).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with few threads."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen: int = free.getsockname()[1]
    here = "webio.tests.test_web_worker"
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", f"{here}:application", "--worker-class", f"{here}.Impatient"),
            *("--bind", f"127.0.0.1:{chosen}", "--threads", str(THREADS), "--log-level", "critical"),
        ]
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", chosen)).close()
                break
            time.sleep(0.05)
        yield chosen
    finally:
        server.terminate()
        server.wait(10)


def opened(port: int, data: bytes) -> socket.socket:
    """A connection on which `data` was sent."""
    connection = socket.socket()
    # Small, so that an answer does not fit into the kernel's buffers.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    connection.sendall(data)
    return connection


def answer_to(port: int, path: str = "/") -> bytes:
    """The whole answer to a POST of three bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    with opened(port, head.encode() + b"abc") as connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST / HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
        b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["silent", "half a head", "half a body", "half a chunk", "reads nothing"],
)
def test_a_slow_client_does_not_keep_a_thread(port: int, sent: bytes) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(THREADS):
            stack.enter_context(opened(port, sent))
        # Would time out if the threads waited for the slow ones.
        assert answer_to(port).endswith(b"3")


def test_an_answer_may_take_longer_than_a_request(port: int) -> None:
    assert answer_to(port, "/slow").endswith(b"3")
