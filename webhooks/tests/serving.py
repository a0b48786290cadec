"""A web server with few threads and a process that records events, for tests of pulls."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from webhooks.tests.running import own_database, python

THREADS = 2

MAKE = """
import json
import django
django.setup()
from conversations import actions
from core.actors import SYSTEM
from organisations.actions import create_api_key
from organisations.models import Organisation
from organisations.scopes import SCOPES
keys = {}
for name in ("acme", "globex"):
    organisation = Organisation.objects.create(name=name.title(), slug=name)
    actions.create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="S")
    keys[name] = create_api_key(organisation=organisation, actor=SYSTEM, name="all", scopes=SCOPES)[1]
print(json.dumps(keys))
"""

#: Does what it is told on its standard input, line by line, and says when it has.
HANDS = """
import sys
import time
import django
django.setup()
from conversations import actions
from conversations.models import Channel, Conversation
from core.actors import SYSTEM
from core.clock import now
from organisations.models import ApiKey
from webhooks.engine.dispatch import dispatch
print("ready", flush=True)
for line in sys.stdin:
    verb, name, text = line.rstrip("\\n").split(" ", 2)
    if verb in ("record", "say"):
        channel = Channel.objects.get(organisation__slug=name)
        actions.receive_message(channel=channel, address="447717472695", body=text)
    if verb in ("close", "reopen"):
        found = Conversation.objects.filter(organisation__slug=name).latest("id")
        where = {"organisation": found.organisation, "actor": SYSTEM, "conversation_id": found.pk}
        actions.close_conversation(**where) if verb == "close" else actions.reopen_conversation(**where)
    if verb == "say":
        # As an engine would that is a little slow.
        time.sleep(0.05)
    if verb in ("dispatch", "say"):
        dispatch()
    if verb == "revoke":
        ApiKey.objects.filter(organisation__slug=name).update(revoked_at=now() if text == "on" else None)
    print("done", flush=True)
"""


@dataclass
class Answer:
    """What a call was answered, and after how many seconds."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    seconds: float

    @property
    def texts(self) -> list[str]:
        """The bodies of the messages pulled."""
        return [event["data"]["body"] for event in self.body["results"]]


@dataclass
class Platform:
    """A web server with few threads, and hands that record events in another process."""

    environment: dict[str, str]
    keys: dict[str, str]
    port: int = 0
    web: subprocess.Popen[bytes] | None = None
    hands: subprocess.Popen[str] | None = None
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start_web(self) -> None:
        """Start the web server; it is not ready yet."""
        command = [
            *(sys.executable, "-m", "gunicorn", "webio.wsgi:application", "--config", "python:webio.gunicorn"),
            *("--worker-class", "webio.web_worker.Worker"),
            *("--bind", f"127.0.0.1:{self.port}", "--threads", str(THREADS), "--log-level", "warning"),
            *("--graceful-timeout", "10"),
        ]
        self.web = subprocess.Popen(command, env=self.environment, cwd=settings.BASE_DIR)

    def do(self, verb: str, name: str = "acme", text: str = "") -> None:
        """Let the hands do something; returns when it is done."""
        assert self.hands is not None
        assert self.hands.stdin is not None
        assert self.hands.stdout is not None
        self.hands.stdin.write(f"{verb} {name} {text}\n")
        self.hands.stdin.flush()
        assert self.hands.stdout.readline() == "done\n"

    def ask(self, query: str = "", name: str = "acme", line: http.client.HTTPConnection | None = None) -> Answer:
        """One pull."""
        began = time.monotonic()
        used = line or http.client.HTTPConnection("127.0.0.1", self.port, timeout=40)
        used.request("GET", f"/api/v1/events?{query}", headers={"Authorization": f"Bearer {self.keys[name]}"})
        with used.getresponse() as found:
            body = json.loads(found.read())
            headers = {key.lower(): value for key, value in found.getheaders()}
        if line is None:
            used.close()
        return Answer(found.status, headers, body, time.monotonic() - began)

    def end_of_events(self, name: str = "acme") -> str:
        """The cursor behind all there is now."""
        self.do("dispatch")
        after, more = "", True
        while more:
            found = self.ask(f"limit=200{after}", name).body
            after, more = f"&after={found['next']}", found["more"]
        return after

    def waiting(self, seconds: int, after: str, name: str = "acme") -> Future[Answer]:
        """A pull that waits, in a thread."""
        future = self.pool.submit(self.ask, f"wait={seconds}{after}", name)
        # Until it has arrived: then it would have been answered if it did not wait.
        time.sleep(0.2)
        return future


@contextmanager
def served(environment: dict[str, str], keys: dict[str, str]) -> Iterator[Platform]:
    """The platform's processes in that environment."""
    platform = Platform({**environment, "DATABASE_POOL": "1", "LOG_LEVEL": "WARNING"}, keys)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        platform.port = free.getsockname()[1]
    platform.start_web()
    platform.hands = subprocess.Popen(
        [sys.executable, "-c", HANDS],
        env=platform.environment,
        cwd=settings.BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert platform.hands.stdout is not None
        assert platform.hands.stdout.readline() == "ready\n"
        until(lambda: ready(platform.port), 60)
        yield platform
    finally:
        for process in (platform.web, platform.hands):
            if process is not None:
                process.terminate()
                process.wait(20)
        platform.pool.shutdown()


def ready(port: int) -> bool:
    """Whether the server answers."""
    with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, 5)) as line:
        line.request("GET", "/readyz")
        return line.getresponse().status < 500
    return False


def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait for it; raises `AssertionError` when it does not come true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.05)


@contextmanager
def two_organisations(folder: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """The environment of a database with two organisations, and their API keys by name."""
    with own_database(folder) as environment:
        environment = {**environment, "API_RATE_LIMIT": "10000/hour"}
        yield environment, json.loads(python(environment, "-c", MAKE))
