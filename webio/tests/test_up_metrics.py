"""/metrics of a real `manage.py up` counts what all its web workers answered."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from webhooks.tests.running import migrated_sqlite

pytestmark = pytest.mark.once

COUNTED = re.compile(r'webio_http_requests_total\{method="GET",route="healthz",status="200"\} ([0-9.]+)')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Platform:
    """A running `manage.py up` with two web workers."""

    process: subprocess.Popen[bytes]
    port: int
    counts: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def answers(self) -> bool:
        try:
            return bool(self.get("/readyz"))
        except OSError:
            return False

    def counted(self) -> int:
        """How many requests for /healthz /metrics knows of."""
        found = COUNTED.findall(self.get("/metrics"))
        assert len(found) <= 1
        return int(float(found[0])) if found else 0

    def workers(self) -> set[int]:
        """Process ids that have files of counts."""
        return {int(pid) for path in self.counts.glob("counter_*.db") if (pid := path.stem.split("_")[1]).isdigit()}

    def wait(self, condition: object, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            assert time.monotonic() < deadline, f"not within {seconds} s"
            time.sleep(0.05)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"},
        "DEMO": "1",
        "DATABASE_URL": f"sqlite:///{tmp_path}/up.sqlite3",
        "BROKER_URL": "",
    }
    shutil.copy(migrated_sqlite(), tmp_path / "up.sqlite3")
    manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
    port = free_port()
    counts = settings.BASE_DIR / "var" / f"metrics-{port}"
    counts.mkdir(parents=True)
    (counts / "counter_1.db").write_bytes(b"of an earlier run")
    # From another folder: it finds its own.
    process = subprocess.Popen([*manage, "up", "--port", str(port)], env=environment, cwd=tmp_path)
    running = Platform(process, port, counts)
    try:
        running.wait(running.answers)
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert not counts.exists()


def test_all_workers_are_counted_and_a_dead_one_leaves_its_counts_but_no_files(platform: Platform) -> None:
    asked = 0
    while len(platform.workers()) < 2:
        platform.get("/healthz")
        asked += 1
        assert asked < 2000
    assert {platform.counted() for _ in range(10)} == {asked}
    killed = platform.workers().pop()
    os.kill(killed, signal.SIGKILL)
    platform.wait(lambda: killed not in platform.workers())
    assert platform.counted() == asked
    platform.get("/healthz")
    assert platform.counted() == asked + 1
