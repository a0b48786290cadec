"""Which of the real services this machine has. Tests that need one are skipped without it, or fail when required."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from soak.servers import own_postgresql, programs

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

    It is the one at `TEST_POSTGRESQL_URL` or, without that, one of our own, whose data need not survive a crash:
    waiting for the disk takes minutes.
    """
    given = os.environ.get("TEST_POSTGRESQL_URL", "")
    if given:
        yield given if answers(given, 5432) else ""
    elif programs():
        with own_postgresql("fsync = off", "full_page_writes = off") as server:
            yield server.url
    else:
        yield ""


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
