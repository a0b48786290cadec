"""Engines on several machines: clusters that share nothing but the PostgreSQL database, each with its own broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from django.conf import settings
from django.db import connection

from testing import services
from webhooks.engine.lane import CAP_START
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.running import KEEP_ALIVE, Cluster, python, seen, wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one machine"),
]

ORGANISATIONS = 3
WEBHOOKS = 4
#: Redis databases of the second and third machine; the first one's broker is the database.
BROKERS = (12, 13)

MAKE = """
import sys
import django
django.setup()
from conversations import actions
from core.actors import SYSTEM
from organisations.models import Organisation
from webhooks.actions import create_webhook
url, organisations, webhooks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for name in range(organisations):
    organisation = Organisation.objects.create(name=str(name), slug=f"acme-{name}")
    actions.create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="S")
    for number in range(webhooks):
        create_webhook(organisation=organisation, actor=SYSTEM, name=str(number), events=["inboundMessage"],
                       callback_url=f"{url}/{name}/{number}")
"""

RECORD = """
import sys
import django
django.setup()
from conversations import actions
from conversations.models import Channel
channels = list(Channel.objects.select_related("organisation").order_by("id"))
for number in range(int(sys.argv[1])):
    channel = channels[number % len(channels)]
    actions.receive_message(channel=channel, address=f"44771700{number % 20:04}", body=str(number))
"""

WAIT = """
import sys
import time
import django
django.setup()
from core import loops
for _ in range(200):
    if loops.alive("deliveries") == int(sys.argv[1]):
        break
    time.sleep(0.1)
else:
    sys.exit(1)
"""

#: Engines alive, deliveries not delivered, attempts by whether they count, and how many engines delivered something.
STATE = """
import django
django.setup()
from core import loops
from webhooks.models import Attempt, Delivery, EngineTotal
print(loops.alive("deliveries"), Delivery.objects.exclude(state="delivered").count(),
      Attempt.objects.filter(superseded=False).count(), Attempt.objects.filter(superseded=True).count(),
      EngineTotal.objects.filter(delivered__gt=0).count())
"""


def state(environment: dict[str, str]) -> list[int]:
    """See `STATE`."""
    return [int(word) for word in python(environment, "-c", STATE).split()]


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.2)
    return False


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as running:
        yield running


@pytest.fixture
def machines(environment: dict[str, str], endpoint: Endpoint) -> Iterator[list[Cluster]]:
    """Three clusters, not started. Each lets one engine more run than the one before, and so runs one itself."""
    services.need(services.redis(), "Redis")
    python(environment, "-c", MAKE, endpoint.url, str(ORGANISATIONS), str(WEBHOOKS))
    brokers = [urlunsplit(urlsplit(services.REDIS_URL)._replace(path=f"/{number}")) for number in BROKERS]
    clients = [redis.Redis.from_url(url) for url in brokers]
    for client in clients:
        client.flushdb()
    made = [
        Cluster({**environment, "BROKER_URL": broker, "DELIVERY_DRAINS": str(number)})
        for number, broker in enumerate(["", *brokers], start=1)
    ]
    yield made
    for cluster in made:
        cluster.kill()
    for client in clients:
        client.flushdb()
        client.close()


@contextmanager
def keeping_alive(machine: Cluster) -> Iterator[None]:
    """Start a machine with somebody who keeps its loops alive, as `manage.py up` does."""
    machine.start()
    command = [sys.executable, "-c", KEEP_ALIVE, "deliveries"]
    process = subprocess.Popen(command, env=machine.environment, cwd=settings.BASE_DIR)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def all_running(machines: list[Cluster]) -> Iterator[None]:
    """All machines, started one after the other, so that each gets one engine."""
    with ExitStack() as stack:
        for number, machine in enumerate(machines, start=1):
            stack.enter_context(keeping_alive(machine))
            python(machine.environment, "-c", WAIT, str(number))
        yield


def test_exactly_one_of_several_machines_sends_each_attempt(
    environment: dict[str, str], machines: list[Cluster], endpoint: Endpoint
) -> None:
    endpoint.delay = 0.002
    expected = 0
    with all_running(machines):
        # Past the end of a slice, so that engines hand over to their successors meanwhile.
        until = time.monotonic() + 24
        while time.monotonic() < until:
            python(environment, "-c", RECORD, "90")
            expected += 90 * WEBHOOKS
        # One leaves as it would for an update of its machine, with work at hand.
        assert machines[1].process is not None
        os.killpg(machines[1].process.pid, signal.SIGINT)
        python(environment, "-c", RECORD, "90")
        expected += 90 * WEBHOOKS
        assert eventually(lambda: state(environment)[1] == 0 and len(endpoint.asked) >= expected, 40)
    found = seen(endpoint)
    assert len(found) == expected
    assert [len(copies) for copies in found.values()] == [1] * expected
    _alive, left, attempts, superseded, engines = state(environment)
    assert (left, attempts, superseded) == (0, expected, 0)
    assert engines == len(machines)


def test_a_machine_that_freezes_past_its_leases_overwrites_nothing(
    environment: dict[str, str], machines: list[Cluster], endpoint: Endpoint
) -> None:
    """What it had under way failed, as far as it knows; the one that took over delivered the same meanwhile."""
    first, second = machines[:2]
    with keeping_alive(first):
        # Longer than it takes to record all of them on a busy machine.
        endpoint.delay, endpoint.status = 6.0, 500
        python(environment, "-c", RECORD, "30")
        wait_for(endpoint, 12, 20)
    assert first.process is not None
    os.killpg(first.process.pid, signal.SIGSTOP)
    # Answers to what is under way arrive while it is frozen.
    time.sleep(6.5)
    endpoint.delay, endpoint.status = 0.0, 200
    frozen = len(endpoint.asked)
    with keeping_alive(second):
        # The leases last 30 seconds: until then nobody else sends.
        assert eventually(lambda: state(environment)[1] == 0, 60)
        sent = len(endpoint.asked)
        assert sent > frozen
        _alive, _left, attempts, superseded, _engines = state(environment)
        os.killpg(first.process.pid, signal.SIGCONT)
        assert eventually(lambda: state(environment)[3] > superseded, 20)
        time.sleep(1)
        _alive, left, later_attempts, later_superseded, _engines = state(environment)
    assert left == 0
    assert later_attempts == attempts
    assert 0 < later_superseded <= ORGANISATIONS * WEBHOOKS * CAP_START
    # Of what it had read nothing is sent now but what was on its way to the endpoint already.
    assert len(endpoint.asked) <= sent + max(0, later_superseded - frozen)
    assert all(len(set(copies)) == 1 for copies in seen(endpoint).values())
