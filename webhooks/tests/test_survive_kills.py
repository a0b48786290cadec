"""A real cluster, killed with SIGKILL at random moments, loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.conf import settings
from django.db import connection

from webhooks.tests.endpoint import Endpoint, running_endpoint

EVENTS = 300
KILLS = 3

MAKE = """
import sys
import django
django.setup()
from django.db import transaction
from conversations import actions
from core.actors import SYSTEM
from organisations.models import Organisation
from webhooks.actions import create_webhook
url, count = sys.argv[1], int(sys.argv[2])
organisation = Organisation.objects.create(name="Acme", slug="acme")
channel = actions.create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="S")
for number in range(2):
    create_webhook(organisation=organisation, actor=SYSTEM, name=str(number), callback_url=f"{url}/{number}",
                   events=["inboundMessage"])
for number in range(count):
    actions.receive_message(channel=channel, address=f"44771700{number % 30:04}", body=str(number))
"""

LEFT = """
import django
django.setup()
from conversations.models import Event
from webhooks.models import Attempt, Delivery
print(Event.objects.filter(position=None).count(), Delivery.objects.exclude(state="delivered").count(),
      Delivery.objects.count(), Attempt.objects.filter(superseded=False).count())
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a platform with an empty database of its own, of the kind the tests run on."""
    if connection.vendor == "sqlite":
        url = f"sqlite:///{tmp_path}/kill.sqlite3"
        yield _environment(url)
        return
    import psycopg

    own = f"webio_kill_{os.getpid()}"
    values = connection.settings_dict
    server = f"//{values['USER']}:{values['PASSWORD']}@{values['HOST']}:{values['PORT'] or 5432}"
    with psycopg.connect(f"postgres:{server}/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{own}"')
        try:
            yield _environment(urlunsplit(urlsplit(f"postgres:{server}/{own}")))
        finally:
            admin.execute(f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')


def _environment(url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DEMO": "1",
        "DATABASE_URL": url,
        "BROKER_URL": "",
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
        "DJANGO_SETTINGS_MODULE": "webio.settings",
        "PYTHONPATH": str(settings.BASE_DIR),
        "Q_CLUSTER_NAME": "deliveries",
    }


def python(environment: dict[str, str], *arguments: str) -> str:
    """Run Python in that environment; what it printed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


class Cluster:
    """A cluster with its whole family in a process group of its own."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and queue the drain as `manage.py up` would."""
        command = [sys.executable, "manage.py", "qcluster"]
        self.process = subprocess.Popen(command, env=self.environment, cwd=settings.BASE_DIR, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


KEEP_ALIVE = """
import time
import django
django.setup()
from core import loops
while True:
    loops.ensure("deliveries")
    time.sleep(0.5)
"""

#: What was leased or held when the cluster died is free once its time is over; the test does not wait for that.
EXPIRE = """
import django
django.setup()
from core.clock import now
from core.models import Slot
from webhooks.models import Lease
Slot.objects.update(lease_until=now(), queued_until=now())
Lease.objects.update(until=now())
"""


def wait_for(endpoint: Endpoint, count: int, seconds: float) -> None:
    """Until so many requests have arrived; raises `AssertionError` when they do not."""
    deadline = time.monotonic() + seconds
    while len(endpoint.asked) < count:
        assert time.monotonic() < deadline, f"{len(endpoint.asked)} of {count} requests after {seconds} s"
        time.sleep(0.01)


def seen(endpoint: Endpoint) -> dict[tuple[str, str], list[bytes]]:
    """Bodies by path and `webhook-id`."""
    found: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for asked in list(endpoint.asked):
        found[asked.path, asked.headers["webhook-id"]].append(asked.body)
    return found


def test_every_event_arrives_though_the_cluster_is_killed_again_and_again(environment: dict[str, str]) -> None:
    chance = random.Random()
    with running_endpoint() as endpoint:
        endpoint.delay = 0.02
        python(environment, "manage.py", "migrate", "--verbosity", "0")
        python(environment, "-c", MAKE, endpoint.url, str(EVENTS))
        keep_alive = subprocess.Popen([sys.executable, "-c", KEEP_ALIVE], env=environment, cwd=settings.BASE_DIR)
        cluster = Cluster(environment)
        try:
            for _ in range(KILLS):
                cluster.start()
                # Far enough into the work that something is under way, at a moment nobody chose.
                wait_for(endpoint, len(endpoint.asked) + chance.randint(1, EVENTS // 3), 30)
                time.sleep(chance.random() / 20)
                cluster.kill()
                python(environment, "-c", EXPIRE)
            cluster.start()
            deadline = time.monotonic() + 45
            left: Any = None
            while time.monotonic() < deadline:
                if len(seen(endpoint)) == 2 * EVENTS:
                    left = [int(word) for word in python(environment, "-c", LEFT).split()]
                    if left[:2] == [0, 0]:
                        break
                time.sleep(0.1)
        finally:
            cluster.kill()
            keep_alive.kill()
            keep_alive.wait()
        found = seen(endpoint)
        assert len(found) == 2 * EVENTS
        assert left is not None
        assert left == [0, 0, 2 * EVENTS, 2 * EVENTS]
        assert all(len(set(copies)) == 1 for copies in found.values())
