"""Databases that restart, disks that are full, clocks that jump: nothing is lost, and nobody has to help."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event
from core.clock import held_at, now
from soak.servers import Postgresql, Sqlite, own_postgresql, programs
from testing import services
from webhooks.engine.drain import Drain
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.engine import running_drain
from webhooks.tests.running import KEEP_ALIVE, LEFT, MAKE, Cluster, python, seen, wait_for

#: Nobody needs to look after it for longer than this, seconds.
ALONE = 60.0
EVENTS = 200

#: Somebody who receives messages all the time, also long after a cluster has started, and tries again when that fails.
#: Prints the number of those committed.
RECEIVE = """
import sys
import time
import django
django.setup()
from django.db import Error, connection
from conversations import actions
from conversations.models import Channel
channel, number = None, 0
while number < int(sys.argv[1]):
    try:
        channel = channel or Channel.objects.select_related("organisation").get()
        actions.receive_message(channel=channel, address=f"44771700{number % 30:04}", body=f"during-{number}")
    except Error:
        connection.close()
        time.sleep(0.1)
        continue
    number += 1
    time.sleep(0.05)
    print(number, flush=True)
"""

EVENTS_RECORDED = """
import django
django.setup()
from conversations.models import Event
print(Event.objects.filter(type="inboundMessage").count())
"""


class Life:
    """A platform at work: a cluster with somebody who keeps it alive, and somebody who receives messages."""

    def __init__(self, environment: dict[str, str], endpoint: Endpoint, supervisor: Path | None = None) -> None:
        self.environment = environment
        self.endpoint = endpoint
        python(environment, "manage.py", "migrate", "--verbosity", "0")
        python(environment, "-c", MAKE, endpoint.url, "1")
        self.cluster = Cluster(environment, supervisor)
        self.receiver: subprocess.Popen[str] | None = None
        self.received = 0

    @contextmanager
    def running(self, count: int = EVENTS) -> Iterator[None]:
        """Receive `count` messages in the background while the cluster works."""
        quiet = {"env": self.environment, "cwd": settings.BASE_DIR, "stderr": subprocess.DEVNULL}
        # As a supervisor does, it comes back when an error ends it, as long as this process lives.
        again = subprocess.list2cmdline([sys.executable, "-c"]) + ' "$0" deliveries'
        keep = f"while kill -0 {os.getpid()}; do {again}; sleep 0.2; done"
        keep_alive = subprocess.Popen(["bash", "-c", keep, KEEP_ALIVE], start_new_session=True, **quiet)
        self.receiver = subprocess.Popen(
            [sys.executable, "-c", RECEIVE, str(count)], stdout=subprocess.PIPE, text=True, **quiet
        )
        counting = threading.Thread(target=self._count)
        self.cluster.start()
        counting.start()
        try:
            yield
        finally:
            self.receiver.kill()
            self.receiver.wait()
            counting.join(5)
            with suppress(ProcessLookupError):
                os.killpg(keep_alive.pid, signal.SIGKILL)
            keep_alive.wait()
            self.cluster.kill()

    def _count(self) -> None:
        assert self.receiver is not None
        assert self.receiver.stdout is not None
        for line in self.receiver.stdout:
            self.received = int(line)

    def wait_for_received(self, count: int, seconds: float = ALONE) -> None:
        """Until so many messages are committed. Raises `AssertionError`."""
        deadline = time.monotonic() + seconds
        while self.received < count:
            assert time.monotonic() < deadline, f"{self.received} of {count} messages after {seconds} s"
            time.sleep(0.02)

    def wait_for_work(self) -> None:
        """Until a quarter is committed and the cluster delivers: before, it may end where it cannot begin."""
        self.wait_for_received(EVENTS // 4)
        wait_for(self.endpoint, 1, ALONE)

    def check(self, seconds: float = ALONE) -> None:
        """In time everything that was committed has been delivered to both webhooks, each with one body.

        That is what who receives was told, and what the database knows, also when it could not tell.
        """
        committed = {"0", *(f"during-{number}" for number in range(self.received))}
        events = int(python(self.environment, "-c", EVENTS_RECORDED))
        deadline = time.monotonic() + seconds
        left: list[int] = []
        while time.monotonic() < deadline:
            left = [int(word) for word in python(self.environment, "-c", LEFT).split()]
            if left[:2] == [0, 0]:
                break
            time.sleep(0.2)
        assert left[:3] == [0, 0, 2 * events]
        found = seen(self.endpoint)
        assert len(found) == 2 * events
        assert all(len(set(copies)) == 1 for copies in found.values())
        arrived: dict[str, set[str]] = {"/hook/0": set(), "/hook/1": set()}
        for (path, _identifier), copies in found.items():
            arrived[path].add(json.loads(copies[0])["body"])
        assert all(committed <= bodies for bodies in arrived.values())


@pytest.fixture
def customer() -> Iterator[Endpoint]:
    with running_endpoint() as running:
        running.delay = 0.005
        yield running


# The database


@pytest.fixture
def server() -> Iterator[Postgresql]:
    """A PostgreSQL server that may be restarted."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no server")
    services.need(programs(), "PostgreSQL's server programs")
    with own_postgresql() as running:
        yield running


@pytest.mark.long
def test_a_database_that_restarts_in_mid_work_costs_nothing(
    environment: dict[str, str], server: Postgresql, customer: Endpoint
) -> None:
    life = Life({**environment, "DATABASE_URL": server.url}, customer)
    with life.running():
        life.wait_for_work()
        server.restart()
        life.wait_for_received(EVENTS // 2)
        server.restart()
        life.wait_for_received(EVENTS)
        life.check()


@pytest.mark.long
def test_a_database_that_is_away_for_a_while_finds_everybody_back(
    environment: dict[str, str], server: Postgresql, customer: Endpoint
) -> None:
    life = Life({**environment, "DATABASE_URL": server.url}, customer)
    with life.running():
        life.wait_for_work()
        server.kill()
        time.sleep(12)
        server.start()
        life.wait_for_received(EVENTS)
        life.check()


@pytest.mark.long
def test_a_cluster_that_starts_while_the_database_is_away_is_started_again_and_works_when_it_is_back(
    environment: dict[str, str], server: Postgresql, customer: Endpoint, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    life = Life({**environment, "DATABASE_URL": server.url}, customer, supervisor=said)
    server.kill()
    with life.running():
        deadline = time.monotonic() + ALONE
        while not said.exists() or "deliveries ended with 1" not in said.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.start()
        life.wait_for_received(EVENTS)
        life.check()


# The disk


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder on a disk on which the database has room for little more than it begins with."""
    size = "24m" if connection.vendor == "sqlite" else "80m"
    # Not in a folder of pytest's, which another user, as whom the server runs, may not enter.
    with tempfile.TemporaryDirectory(prefix="webio-disk-") as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        services.need(not mounted.returncode, "A small disk, which only root may mount,")
        os.chmod(folder, 0o755)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def on_small_disk(small_disk: Path) -> Iterator[Postgresql | Sqlite]:
    """A database on it."""
    if connection.vendor == "sqlite":
        yield Sqlite(small_disk)
        return
    services.need(programs(), "PostgreSQL's server programs")
    with own_postgresql("min_wal_size = 2MB", "max_wal_size = 8MB", where=small_disk, segment=1) as running:
        yield running


@pytest.mark.long
def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(
    environment: dict[str, str], on_small_disk: Postgresql | Sqlite, small_disk: Path, customer: Endpoint
) -> None:
    life = Life({**environment, "DATABASE_URL": on_small_disk.url}, customer)
    with life.running():
        life.wait_for_work()
        filler = small_disk / "filler"
        before = -1
        while before < life.received:
            before = life.received
            for _ in range(6):
                fill(filler)
                time.sleep(0.5)
        assert life.received < EVENTS
        with pytest.raises(Exception, match=r"disk is full|No space left on device|refused|recovery"):
            on_small_disk.rows("CREATE TABLE more AS SELECT type, data FROM conversations_event")
        filler.unlink()
        if isinstance(on_small_disk, Postgresql):
            # One that cannot write its log ends.
            on_small_disk.look_after()
        life.wait_for_received(EVENTS)
        life.check()


def fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


# The clock


@pytest.fixture
def endpoint(settings: Any) -> Iterator[Endpoint]:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with running_endpoint() as running:
        yield running


@pytest.mark.django_db
def test_a_clock_that_jumps_by_hours_costs_nothing_and_repeats_nothing(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    chance = random.Random(5)
    real = now()
    count = 0
    with running_drain() as drain:
        for _ in range(60):
            moment = real + timedelta(hours=1 + chance.choice((-1, 0, 0, 1)), seconds=chance.randrange(60))
            with held_at(moment):
                conversation_actions.receive_message(
                    channel=acme.channel, address=f"44771700{chance.randrange(5):04}", body=str(count)
                )
                count += 1
                turn(drain, 3)
        with held_at(real + timedelta(hours=2)):
            turn(drain, 20)
    assert count == len(endpoint.asked) == Delivery.objects.filter(state="delivered", attempt_count=1).count()
    conversation = dict(Event.objects.values_list("id", "conversation_id"))
    lanes: dict[int | None, list[int]] = {}
    for asked in endpoint.asked:
        event = int(asked.headers["webhook-id"].split("_")[1])
        lanes.setdefault(conversation[event], []).append(event)
    assert all(events == sorted(events) for events in lanes.values())


@pytest.mark.django_db
@pytest.mark.parametrize("hours", [1, -1])
def test_a_retry_is_made_once_after_a_jump(acme: Cast, endpoint: Endpoint, hours: int) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    conversation_actions.receive_message(channel=acme.channel, address="447717000000", body="hello")
    endpoint.status = 500
    start = now() + timedelta(seconds=1)
    with running_drain() as drain:
        for seconds in (0, hours * 3600, hours * 3600 + 10, 20, 4000):
            endpoint.status = 500 if not endpoint.asked else 200
            with held_at(start + timedelta(seconds=seconds)):
                turn(drain, 10)
    assert len(endpoint.asked) == 2
    assert Delivery.objects.get().state == "delivered"


def turn(drain: Drain, times: int) -> None:
    """Some rounds of the engine's loop."""
    for _ in range(times):
        drain.settle((0, 1))
        drain.look()
        drain.sender.start()
        drain.collect(0.01)
