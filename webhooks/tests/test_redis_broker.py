"""`manage.py up` with Redis as the broker: quick from idle, and unharmed when Redis forgets everything."""

from __future__ import annotations

import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from django.conf import settings

from testing import services
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.running import MAKE, python, wait_for

#: A process that receives messages: for each line on stdin one, whose body it is; it answers when it is committed.
RECEIVE = """
import sys
import time
import django
django.setup()
from conversations import actions
from conversations.models import Channel
channel = Channel.objects.get()
print("ready", flush=True)
for line in sys.stdin:
    actions.receive_message(channel=channel, address="447717472695", body=line.strip())
    print(time.time(), flush=True)
"""

QUEUED_IN_DATABASE = """
import django
django.setup()
from django_q.models import OrmQ
print(OrmQ.objects.count())
"""


class Receiver:
    """Receives messages of a contact in a process of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RECEIVE], env=environment, cwd=settings.BASE_DIR, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.told() == "ready"

    def told(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def receive(self, body: str) -> float:
        """Receive one message; when its transaction was committed, as `time.time()` tells it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{body}\n")
        self.process.stdin.flush()
        return float(self.told())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def broker(environment: dict[str, str]) -> Iterator[redis.Redis]:
    """A Redis database of our own, empty, which `environment` names as its broker; wake-ups go over it too."""
    services.need(services.redis(), "Redis")
    url = urlunsplit(urlsplit(services.REDIS_URL)._replace(path="/14"))
    environment["BROKER_URL"] = url
    # Without it PostgreSQL would carry them.
    environment["DATABASE_PGBOUNCER"] = "1"
    client = redis.Redis.from_url(url)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as running:
        yield running


@pytest.fixture
def receiver(
    environment: dict[str, str], broker: redis.Redis, endpoint: Endpoint, tmp_path: Path
) -> Iterator[Receiver]:
    """Somebody who receives messages on a running platform with two webhooks to the endpoint."""
    del environment["Q_CLUSTER_NAME"]
    python(environment, "-c", MAKE, endpoint.url, "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "manage.py", "up", "--port", str(port), "--web-workers", "1", "--clusters", "1"]
    up = subprocess.Popen(
        command, env={**environment, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "counts")}, cwd=settings.BASE_DIR
    )
    made = None
    try:
        wait_for(endpoint, 2, 30)
        made = Receiver(environment)
        yield made
    finally:
        if made is not None:
            made.end()
        up.send_signal(signal.SIGTERM)
        up.wait(20)


def seconds_to_arrive(receiver: Receiver, endpoint: Endpoint, body: str, limit: float = 10.0) -> float:
    """From the commit of a message to its arrival at both webhooks."""
    before = len(endpoint.asked)
    committed = receiver.receive(body)
    wait_for(endpoint, before + 2, limit)
    arrived = time.time()
    assert all(body.encode() in asked.body for asked in endpoint.asked[before:])
    return arrived - committed


def test_from_idle_an_event_arrives_within_a_second(
    environment: dict[str, str], broker: redis.Redis, receiver: Receiver, endpoint: Endpoint
) -> None:
    taken = []
    for number in range(5):
        # Idle for long enough that nobody looks by chance.
        time.sleep(1.2)
        taken.append(seconds_to_arrive(receiver, endpoint, f"idle-{number}"))
    assert statistics.median(taken) < 1.0, taken
    # It was Redis that carried the tasks.
    assert python(environment, "-c", QUEUED_IN_DATABASE).strip() == "0"
    assert broker.pubsub_numsub("webio:deliveries")[0][1] >= 1


@contextmanager
def flushing(flush: Callable[[], object]) -> Iterator[None]:
    """Redis forgets everything again and again, until the block ends."""
    over = threading.Event()

    def body() -> None:
        while not over.wait(0.02):
            flush()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def test_work_flows_though_redis_forgets_everything(
    broker: redis.Redis, receiver: Receiver, endpoint: Endpoint
) -> None:
    broker.flushdb()
    assert seconds_to_arrive(receiver, endpoint, "after") < 5.0
    with flushing(broker.flushdb):
        for number in range(40):
            receiver.receive(f"during-{number}")
            time.sleep(0.05)
        wait_for(endpoint, 2 + 2 + 80, 20)
    assert seconds_to_arrive(receiver, endpoint, "in the end") < 5.0
    assert len(endpoint.asked) == 2 + 2 + 80 + 2
