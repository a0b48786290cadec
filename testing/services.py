"""Which of the real services this machine has. Tests that need one are skipped without it, or fail when required."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from soak.servers import own_postgresql, programs

#: What a server for tests need not do: its data need not survive a crash, and waiting for the disk takes minutes.
#: Each process of the tests has connections of its own.
HURRIED = ("fsync = off", "full_page_writes = off", "max_connections = 400")
REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/15")


def answers(url: str, default_port: int) -> bool:
    """Whether something listens at a URL's host and port."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or default_port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server for the block, "" when there is none.

    It is the one at `TEST_POSTGRESQL_URL` or, without that, one of our own.
    """
    with ExitStack() as stack:
        url = os.environ.get("TEST_POSTGRESQL_URL", "")
        if url and not answers(url, 5432):
            url = ""
        elif not url and programs():
            try:
                url = stack.enter_context(own_postgresql(*HURRIED)).url
            except (KeyError, OSError, RuntimeError) as error:
                print(f"test      PostgreSQL's programs are there, but no server starts: {error}", flush=True)
        yield url


def redis() -> bool:
    """A Redis server at `TEST_REDIS_URL`."""
    return answers(REDIS_URL, 6379)


def chromium() -> str:
    """Path of a Chromium for browser tests, "" when there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
    return found


def need(there: object, name: str) -> None:
    """Skip the calling test when a service is missing; fail when REQUIRE_SERVICES=1."""
    if not there:
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(f"{name} is required and not there.")
        pytest.skip(f"{name} is not there.")
