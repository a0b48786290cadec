"""The demo as a newcomer uses it: start, talk, see every webhook, end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from webhooks.tests.running import migrated_sqlite

pytestmark = [pytest.mark.once, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """Wait for something true; what it was, or the last falsehood."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


class Demo:
    """A running demo with its own database."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        ours = ("DATABASE_URL", "DEMO", "DJANGO_SETTINGS_MODULE", "OUTBOUND_ALLOWED_NETWORKS", "BROKER_URL")
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment["DATABASE_URL"] = f"sqlite:///{folder}/demo.sqlite3"
        command = [sys.executable, "manage.py", "demo", "--port", str(self.port), "--receiver-port", str(free_port())]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        key = re.findall(r"wk_live_\w+", self.output)[0]
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def received(self, what: str) -> bool:
        """Whether the receiver printed a genuine request of this kind."""
        return any(f" {what} " in line and "signature valid" in line for line in self.output.splitlines())

    def descendants(self) -> list[int]:
        """Process ids of `up` and everything below it."""
        listing = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.splitlines()[1:]
        children: dict[int, list[int]] = {}
        for line in listing:
            pid, parent = map(int, line.split())
            children.setdefault(parent, []).append(pid)
        found, todo = [], [self.process.pid]
        while todo:
            below = children.get(todo.pop(), [])
            found += below
            todo += below
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where demos have their database, one after another: each begins where the one before it was ended or killed."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def demo(folder: Path) -> Iterator[Demo]:
    started = Demo(folder)
    try:
        assert until(lambda: "Ctrl-C ends everything" in started.output, 180), started.output
        yield started
    finally:
        started.process.send_signal(signal.SIGINT)
        started.process.wait(30)


def gone(pids: list[int]) -> bool:
    """Whether none of the processes runs; zombies do not."""
    states = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True)
    return all(state.startswith("Z") for state in states.stdout.split())


def test_a_newcomer_talks_and_sees_every_webhook_within_a_second(demo: Demo) -> None:
    address = "+353 87 555 0100"
    started = demo.post("conversations", {"channelId": "1", "outboundChannelAddress": address, "body": "Hello"})
    assert until(lambda: demo.received("messageSend") and demo.received("messageStatusUpdate"), 5), demo.output
    demo.post(f"conversations/{started['conversationId']}/messages", {"body": "Are you there?"})
    demo.post("sandbox/inbound", {"channelId": "1", "outboundChannelAddress": address, "body": "Yes I am"})
    assert until(lambda: demo.received("inboundMessage"), 5), demo.output
    below = demo.descendants()
    assert len(below) > 5
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(20) == 0
    assert until(lambda: gone(below), 3)


def test_when_the_platform_is_killed_nothing_of_it_stays(demo: Demo) -> None:
    up, *below = demo.descendants()
    os.kill(up, signal.SIGKILL)
    assert until(lambda: gone(below), 2.0)


def test_when_the_demo_is_killed_nothing_of_it_stays(demo: Demo) -> None:
    below = demo.descendants()
    demo.process.kill()
    assert until(lambda: gone(below), 3.0)


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_taken_port_is_told_at_the_start(command: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DEMO": "1", "DATABASE_URL": f"sqlite:///{tmp_path}/demo.sqlite3"}
    shutil.copy(migrated_sqlite(), tmp_path / "demo.sqlite3")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "manage.py", command, "--port", port],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be had" in done.stderr
    assert "--port" in done.stderr
