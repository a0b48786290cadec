"""The engine's database process: jobs and the steps between them keep their order, and what goes wrong is heard of."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from conftest import make_cast
from conversations.actions import receive_message
from webhooks.engine.desk import Course, Desk, Inline, Job, Line
from webhooks.engine.drain import Drain
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import running_endpoint
from webhooks.tests.engine import bodies
from webhooks.tests.running import python

#: (what, course, process).
Noted = list[tuple[str, int, int]]


def told(name: str, number: int) -> tuple[str, int, int]:
    """A job that tells who does it."""
    return name, number, os.getpid()


def course(noted: Noted, number: int, jobs: int) -> Course:
    """Notes each job and each step after one."""
    for index in range(jobs):
        noted.append((yield partial(told, f"job {index}", number)))
        noted.append(told(f"step {index}", number))


def test_jobs_are_done_in_another_process_and_steps_in_this_one() -> None:
    noted: Noted = []
    with Desk() as desk:
        for number in (1, 2):
            desk.follow(course(noted, number, 2))
        assert desk.busy == 2
        desk.wait()
        assert desk.busy == 0
    assert all((process == os.getpid()) == name.startswith("step") for name, _number, process in noted)
    assert len({process for _name, _number, process in noted}) == 2
    assert [(name, number) for name, number, _process in noted] == [
        (f"{kind} {index}", number) for index in (0, 1) for number in (1, 2) for kind in ("job", "step")
    ]


def test_the_descriptor_tells_when_to_proceed() -> None:
    noted: Noted = []
    with Desk() as desk:
        assert select.select([desk.fileno()], [], [], 0)[0] == []
        desk.follow(course(noted, 1, 1))
        assert select.select([desk.fileno()], [], [], 5)[0] == [desk.fileno()]
        desk.proceed()
        assert select.select([desk.fileno()], [], [], 0)[0] == []
    assert [name for name, _number, _process in noted] == ["job 0", "step 0"]


def test_much_more_than_a_pipe_holds_comes_and_goes_while_the_other_is_busy() -> None:
    taken: list[bytes] = []

    def exchanging(size: int) -> Course:
        taken.append((yield partial(bytes.upper, b"x" * size)))

    with Desk() as desk:
        desk.follow(waiting(0.5))
        began = time.monotonic()
        for _ in range(3):
            desk.follow(exchanging(5_000_000))
        assert time.monotonic() - began < 0.4
        desk.wait()
    assert taken == [b"X" * 5_000_000] * 3


@pytest.mark.parametrize(("lines", "order"), [(2, ["other", "slow", "next"]), (1, ["slow", "next", "other"])])
def test_what_is_given_to_one_line_waits_for_no_other(lines: int, order: list[str]) -> None:
    told: list[str] = []
    with Desk(lines) as desk:
        desk.follow(one(partial(time.sleep, 0.5), told, "slow"), Line.WRITE)
        desk.follow(one(os.getpid, told, "next"), Line.WRITE)
        desk.follow(one(os.getpid, told, "other"))
        desk.wait()
        assert desk.busy == 0
    assert told == order


def test_answers_of_two_lines_do_not_get_into_each_other() -> None:
    taken: list[bytes] = []

    def exchanging(what: bytes, times: int) -> Course:
        for _ in range(times):
            made = yield partial(bytes.upper, what * 300_000)
            taken.append(made)

    with Desk(2) as desk:
        for line, what in ((Line.LOOK, b"x"), (Line.WRITE, b"y")):
            for _ in range(3):
                desk.follow(exchanging(what, 10), line)
        desk.wait()
    assert sorted(set(taken)) == [b"X" * 300_000, b"Y" * 300_000]
    assert len(taken) == 60


def waiting(seconds: float) -> Course:
    """A course whose job takes so long."""
    yield partial(time.sleep, seconds)


def failing() -> Course:
    """A course whose job cannot be done."""
    yield partial(int, "x")


def test_what_a_job_raises_is_raised_when_it_is_heard_of_and_tells_where_it_came_from() -> None:
    with Desk() as desk:
        desk.follow(failing())
        with pytest.raises(ValueError, match="invalid literal") as raised:
            desk.wait()
        assert desk.busy == 0
    assert "in _done" in raised.value.__notes__[0]


class Unpicklable(Exception):
    """Has what no pickle takes."""

    def __init__(self) -> None:
        super().__init__("of this kind")
        self.lock = threading.Lock()


class Unmakeable(Exception):
    """Is pickled, but not made again."""

    def __init__(self, one: str, _two: str) -> None:
        super().__init__(one)


def refuse() -> None:
    """Raise what cannot leave the process."""
    raise Unpicklable


def refuse_otherwise() -> None:
    """Raise what cannot arrive."""
    raise Unmakeable("of that kind", "")


@pytest.mark.parametrize(
    ("job", "told"),
    [(refuse, "of this kind"), (refuse_otherwise, "of that kind"), (threading.Lock, "cannot pickle")],
)
def test_what_cannot_travel_is_told_in_words_and_the_next_job_is_done(job: Job, told: str) -> None:
    def asking() -> Course:
        yield job

    noted: Noted = []
    with Desk() as desk:
        desk.follow(asking())
        with pytest.raises((RuntimeError, TypeError), match=told):
            desk.wait()
        desk.follow(course(noted, 1, 1))
        desk.wait()
    assert len(noted) == 2


def test_without_a_process_it_is_raised_at_once() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Inline().follow(failing())


def dying() -> Course:
    """A course whose job kills who does it."""
    yield killed


def killed() -> None:
    """End this process as the kernel does when memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def writes(path: Path, seconds: float = 0.0) -> None:
    """A job that leaves a trace."""
    time.sleep(seconds)
    path.touch()


def fails() -> None:
    raise ValueError("no")


def one(job: Job, noted: list[str], name: str = "followed") -> Course:
    yield job
    noted.append(name)


@pytest.mark.parametrize("lines", [1, 2])
def test_what_was_asked_is_done_though_something_failed_before_it(tmp_path: Path, lines: int) -> None:
    noted: list[str] = []
    first, second = partial(writes, tmp_path / "first", 0.1), partial(writes, tmp_path / "second")
    jobs = [(fails, Line.LOOK), (first, Line.WRITE), (fails, Line.LOOK), (second, Line.WRITE)]
    with Desk(lines) as desk:
        for job, line in jobs:
            desk.follow(one(job, noted), line)
        with pytest.raises(ValueError, match="no"):
            desk.wait()
        assert desk.abandon(10.0)
        assert desk.busy == 0
        assert (tmp_path / "first").exists()
        assert (tmp_path / "second").exists()
    assert noted == []


def test_what_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    with Desk() as desk:
        desk.follow(one(partial(writes, tmp_path / "slow", 1.0), []))
        began = time.monotonic()
        assert not desk.abandon(0.1)
        assert time.monotonic() - began < 0.9
    assert (tmp_path / "slow").exists()


def test_a_process_that_died_does_nothing_more(tmp_path: Path) -> None:
    with Desk() as desk:
        desk.follow(one(partial(writes, tmp_path / "never", 60.0), []))
        os.kill(desk.process, signal.SIGKILL)
        assert desk.abandon(10.0)
    assert not (tmp_path / "never").exists()
    assert Inline().abandon(1.0)


def test_that_the_process_died_is_heard_of_though_nothing_is_asked() -> None:
    with Desk() as desk:
        desk.follow(dying())
        with pytest.raises((EOFError, OSError)):
            desk.wait()
    with Desk() as desk:
        os.kill(desk.process, signal.SIGKILL)
        assert select.select([desk.fileno()], [], [], 5)[0] == [desk.fileno()]
        with pytest.raises((EOFError, OSError)):
            desk.proceed()


def test_the_process_ends_with_the_one_that_made_it() -> None:
    """Killed in the middle of a job: that is done, and nobody waits for another."""
    code = (
        "import os, signal, time, django; django.setup()\n"
        "from functools import partial; from webhooks.engine.desk import Desk\n"
        "def course(): yield partial(time.sleep, 0.5)\n"
        "desk = Desk().__enter__(); desk.follow(course())\n"
        "print(time.time(), flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=settings.BASE_DIR, stdout=subprocess.PIPE, timeout=30)
    # Both had its output, and it ends when the last of them does.
    assert done.returncode == -signal.SIGKILL
    assert time.time() - float(done.stdout) >= 0.5


def in_own_database(environment: dict[str, str], function: Callable[[], None]) -> None:
    """Run a function of this file in a process of its own: on SQLite tests' database is in one process's memory."""
    script = f"import django; django.setup(); from {__name__} import {function.__name__} as do; do()"
    python(environment, "-c", script)


def connections_of_this_process() -> set[str]:
    """What the database knows this process by: its backend's number, or the files of SQLite that it has open."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return {str(cursor.fetchone()[0])}
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    name = str(connection.settings_dict["NAME"])
    return {f"{os.getpid()} {link.readlink()}" for link in links if link.exists() and name in str(link.readlink())}


def ask() -> None:
    """Have this process ask the database."""
    Delivery.objects.count()


def ask_from_both() -> None:
    """The helper inherits no connection, and makes one when it asks."""
    seen: list[set[str]] = []

    def asking() -> Course:
        if connection.vendor == "sqlite":
            assert (yield connections_of_this_process) == set()
        yield ask
        seen.append((yield connections_of_this_process))

    ask()
    before = connections_of_this_process()
    assert before
    with Desk() as desk:
        desk.follow(asking())
        desk.wait()
        ask()
        assert seen[0]
        assert not seen[0] & (before | connections_of_this_process())
    if connection.vendor == "postgresql":
        until = time.monotonic() + 5
        with connection.cursor() as cursor:
            left = 1
            while left and time.monotonic() < until:
                cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [int(*seen[0])])
                left = cursor.fetchone()[0]
        assert not left


def test_its_connection_is_its_own_and_ends_with_it(environment: dict[str, str]) -> None:
    in_own_database(environment, ask_from_both)


def send_while_it_stands_still() -> None:
    """Another transaction keeps outcomes from being written: what has been read is sent all the same."""
    acme = make_cast("acme")
    begin, lock = "BEGIN", "SELECT 1 FROM webhooks_webhook FOR NO KEY UPDATE"
    if connection.vendor == "sqlite":
        begin, lock = "BEGIN IMMEDIATE", "SELECT 1"
    with running_endpoint() as endpoint, Desk() as desk:
        make_webhook(acme, callback_url=endpoint.url)
        for number in range(3):
            receive_message(channel=acme.channel, address=acme.contact.address, body=str(number))
        drain = Drain(desk=desk)
        drain.look()
        desk.wait()
        other = connection.copy("other")
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
        other.close()
        drain.finish()
        assert [b'"%d"' % number in body for number, body in enumerate(bodies(endpoint))] == [True] * 3
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_requests_go_on_while_the_database_stands_still(environment: dict[str, str]) -> None:
    in_own_database(environment, send_while_it_stands_still)
