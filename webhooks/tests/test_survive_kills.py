"""A real cluster, killed with SIGKILL at random moments, loses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings

from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.running import KEEP_ALIVE, LEFT, MAKE, Cluster, python, seen, wait_for

EVENTS = 300
KILLS = 3
#: Everything due is delivered so many seconds after a new cluster was started.
RECOVERY_SECONDS = 45.0

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


@contextmanager
def work_and_cluster(environment: dict[str, str]) -> Iterator[tuple[Endpoint, Cluster]]:
    """Events for two webhooks of a slow endpoint, somebody who keeps the loop alive, and a cluster, not started."""
    with running_endpoint() as endpoint:
        endpoint.delay = 0.02
        python(environment, "-c", MAKE, endpoint.url, str(EVENTS))
        command = [sys.executable, "-c", KEEP_ALIVE, "deliveries"]
        keep_alive = subprocess.Popen(command, env=environment, cwd=settings.BASE_DIR)
        cluster = Cluster(environment)
        try:
            yield endpoint, cluster
        finally:
            cluster.kill()
            keep_alive.kill()
            keep_alive.wait()


def check_all_arrives(environment: dict[str, str], endpoint: Endpoint) -> None:
    """In time, every event, with the same body however often, and the rows say so."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    left: list[int] = []
    while time.monotonic() < deadline:
        if len(seen(endpoint)) == 2 * EVENTS:
            left = [int(word) for word in python(environment, "-c", LEFT).split()]
            if left[:2] == [0, 0]:
                break
        time.sleep(0.1)
    found = seen(endpoint)
    assert len(found) == 2 * EVENTS
    assert left == [0, 0, 2 * EVENTS, 2 * EVENTS]
    assert all(len(set(copies)) == 1 for copies in found.values())


@pytest.mark.long
def test_every_event_arrives_though_the_cluster_is_killed_again_and_again(environment: dict[str, str]) -> None:
    chance = random.Random()
    with work_and_cluster(environment) as (endpoint, cluster):
        for _ in range(KILLS):
            cluster.start()
            # Far enough into the work that something is under way, at a moment nobody chose.
            wait_for(endpoint, len(endpoint.asked) + chance.randint(1, EVENTS // 3), 30)
            time.sleep(chance.random() / 20)
            cluster.kill()
            python(environment, "-c", EXPIRE)
        cluster.start()
        check_all_arrives(environment, endpoint)


def desks(cluster: Cluster) -> list[int]:
    """The processes that ask the database for engines: children of the cluster's workers."""
    assert cluster.process is not None
    children: dict[int, list[int]] = {}
    for line in subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True).stdout.splitlines()[1:]:
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    generation = [cluster.process.pid]
    for _ in range(3):
        generation = [child for pid in generation for child in children.get(pid, [])]
    return generation


@pytest.mark.long
def test_every_event_arrives_though_who_asks_the_database_is_killed_again_and_again(
    environment: dict[str, str],
) -> None:
    chance = random.Random()
    with work_and_cluster(environment) as (endpoint, cluster):
        cluster.start()
        for _ in range(KILLS):
            wait_for(endpoint, len(endpoint.asked) + chance.randint(1, EVENTS // 3), 30)
            time.sleep(chance.random() / 20)
            # The one before may just have ended with its slice.
            deadline = time.monotonic() + 30
            while not (found := desks(cluster)):
                assert time.monotonic() < deadline
            for pid in found:
                os.kill(pid, signal.SIGKILL)
        check_all_arrives(environment, endpoint)


@pytest.mark.long
@pytest.mark.once
def test_after_a_kill_in_mid_delivery_leases_run_out_by_themselves(environment: dict[str, str]) -> None:
    with work_and_cluster(environment) as (endpoint, cluster):
        cluster.start()
        wait_for(endpoint, EVENTS // 2, 30)
        cluster.kill()
        assert len(seen(endpoint)) < 2 * EVENTS
        cluster.start()
        check_all_arrives(environment, endpoint)
