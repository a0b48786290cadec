"""The engine's database thread: jobs and the steps between them keep their order, and what goes wrong is heard of."""

from __future__ import annotations

import select
import threading
import time
from functools import partial

import pytest
from django.db import connection, connections

from conftest import Cast
from conversations.actions import receive_message
from webhooks.engine.desk import Course, Desk, Inline
from webhooks.engine.drain import Drain
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies


def course(noted: list[tuple[str, int, int]], number: int, jobs: int) -> Course:
    """Notes (what, course, thread) of each job and of each step after one."""

    def job(name: str) -> int:
        noted.append((name, number, threading.get_ident()))
        return number

    for index in range(jobs):
        assert (yield partial(job, f"job {index}")) == number
        noted.append((f"step {index}", number, threading.get_ident()))


def test_jobs_are_done_in_another_thread_and_steps_in_this_one() -> None:
    noted: list[tuple[str, int, int]] = []
    with Desk() as desk:
        for number in (1, 2):
            desk.follow(course(noted, number, 2))
        assert desk.busy == 2
        desk.wait()
        assert desk.busy == 0
    own = threading.get_ident()
    assert all((thread == own) == name.startswith("step") for name, _number, thread in noted)
    # Each kind in the order in which it was asked for, whichever thread was quicker.
    for kind in ("job", "step"):
        found = [(name, number) for name, number, _thread in noted if name.startswith(kind)]
        assert found == [(f"{kind} {index}", number) for index in (0, 1) for number in (1, 2)]


def test_the_descriptor_tells_when_to_proceed() -> None:
    noted: list[tuple[str, int, int]] = []
    with Desk() as desk:
        assert select.select([desk.fileno()], [], [], 0)[0] == []
        desk.follow(course(noted, 1, 1))
        assert select.select([desk.fileno()], [], [], 5)[0] == [desk.fileno()]
        desk.proceed()
        assert select.select([desk.fileno()], [], [], 0)[0] == []
    assert [name for name, _number, _thread in noted] == ["job 0", "step 0"]


def failing() -> Course:
    """A course whose job cannot be done."""
    yield partial(int, "x")


def test_what_a_job_raises_is_raised_when_it_is_heard_of() -> None:
    with Desk() as desk:
        desk.follow(failing())
        with pytest.raises(ValueError, match="invalid literal"):
            desk.wait()
        assert desk.busy == 0


def test_without_a_thread_it_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Inline().follow(failing())


@pytest.mark.django_db(transaction=True)
def test_the_threads_connection_ends_with_it() -> None:
    seen: list[object] = []

    def asks() -> Course:
        yield lambda: seen.append(connections["default"]) or connection.ensure_connection()

    with Desk() as desk:
        desk.follow(asks())
        desk.wait()
    assert len(seen) == 1
    assert seen[0] is not connections["default"]
    assert getattr(seen[0], "connection", "") is None


@pytest.mark.django_db(transaction=True)
def test_requests_go_on_while_the_database_stands_still(acme: Cast, endpoint: Endpoint) -> None:
    """Another transaction keeps outcomes from being written: what has been read is sent all the same."""
    make_webhook(acme, callback_url=endpoint.url)
    for number in range(3):
        receive_message(channel=acme.channel, address=acme.contact.address, body=str(number))
    begin, lock = "BEGIN", "SELECT 1 FROM webhooks_webhook FOR NO KEY UPDATE"
    if connection.vendor == "sqlite":
        begin, lock = "BEGIN IMMEDIATE", "SELECT 1"
    other = connection.copy("other")
    with Desk() as desk:
        drain = Drain(desk=desk)
        try:
            drain.look()
            desk.wait()
            with other.cursor() as cursor:
                cursor.execute(begin)
                cursor.execute(lock)
                until = time.monotonic() + 15
                while (len(endpoint.asked) < 3 or not drain.writer.writing) and time.monotonic() < until:
                    drain.sender.start()
                    drain.collect(0.01)
                assert drain.writer.writing
                assert not Delivery.objects.filter(state="delivered").exists()
                cursor.execute("ROLLBACK")
        finally:
            other.close()
            drain.finish()
    assert [b'"%d"' % number in body for number, body in enumerate(bodies(endpoint))] == [True] * 3
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
