"""Processes that all want to write to one SQLite file: everybody's turn comes, also outside of transactions."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, ProgrammingError, connections, transaction

from core.sqlite import turns
from core.sqlite.base import DatabaseWrapper
from core.statements import execute

ALIAS = "turns"
SETTINGS = {
    "ENGINE": "core.sqlite",
    "USER": "",
    "PASSWORD": "",
    "HOST": "",
    "PORT": "",
    "ATOMIC_REQUESTS": False,
    "AUTOCOMMIT": True,
    "CONN_MAX_AGE": None,
    "CONN_HEALTH_CHECKS": False,
    "TIME_ZONE": None,
    "TEST": {},
}

#: Adds to the first counter without a pause, some 10 ms each time, until told to end: in transactions or "outside".
FLAT_OUT = """
import os, sys, time
from django.conf import settings
settings.configure(USE_TZ=True)
from django.db import connections, transaction
from core.sqlite.base import DatabaseWrapper
connections["turns"] = connection = DatabaseWrapper(eval(sys.argv[1]), "turns")
add = "UPDATE counter SET value = value + 1 WHERE id = 1"
counted = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT count(*) FROM n"
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    if sys.argv[3] == "outside":
        with connection.cursor() as cursor:
            cursor.execute(f"{add} AND ({counted}) > 0")
    else:
        with transaction.atomic(using="turns"), connection.cursor() as cursor:
            cursor.execute(add)
            time.sleep(0.01)
"""

#: Waits for a turn that does not come.
WAITING = """
import sys
from core.sqlite.turns import Turns
print("ready", flush=True)
Turns(sys.argv[1]).begin(lambda: False, 60)
"""

#: Has a turn for a moment.
TAKING = """
import fcntl, sys
print("ready", flush=True)
sys.stdin.readline()
with open(f"{sys.argv[1]}-turn", "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
print("had it")
"""


def settings_of(path: Path, timeout: float = 20) -> dict[str, Any]:
    options = {"transaction_mode": "IMMEDIATE", "timeout": timeout, "init_command": "PRAGMA journal_mode=WAL"}
    return {**SETTINGS, "NAME": str(path), "OPTIONS": options}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "turns.sqlite3"
    with closing(sqlite3.connect(found)) as raw:
        raw.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE counter (id INTEGER PRIMARY KEY, value INTEGER NOT NULL);"
            "INSERT INTO counter VALUES (1, 0), (2, 0)"
        )
    return found


@pytest.fixture
def connection(path: Path, django_db_blocker: Any) -> Iterator[DatabaseWrapper]:
    """One to the file, with a time-out of half a second."""
    connections[ALIAS] = found = DatabaseWrapper(settings_of(path, 0.5), ALIAS)
    with django_db_blocker.unblock():
        yield found
        found.close()
    del connections[ALIAS]


@pytest.fixture(params=["in transactions", "outside"])
def flat_out(request: pytest.FixtureRequest, path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    end = tmp_path / "end"
    with started(FLAT_OUT, repr(settings_of(path)), end, request.param) as process:
        yield process
        end.touch()
        assert process.wait(30) == 0


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def turns_of(connection: DatabaseWrapper) -> turns.Turns:
    return connection._turns()


def value(connection: DatabaseWrapper, pk: int) -> int:
    return int(execute(connection, "SELECT value FROM counter WHERE id = %s", [pk])[0][0])


def add(connection: DatabaseWrapper) -> None:
    """By Django's cursor."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE counter SET value = value + %s WHERE id = 2", [1])


def add_past_cursors(connection: DatabaseWrapper) -> None:
    execute(connection, "UPDATE counter SET value = value + %s WHERE id = 2", [1])


def add_in_transaction(connection: DatabaseWrapper) -> None:
    with transaction.atomic(using=ALIAS):
        add(connection)


def add_many(connection: DatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE counter SET value = value + %s WHERE id = 2", [[0], [1]])


WAYS = [add, add_past_cursors, add_in_transaction, add_many]


@pytest.mark.parametrize("adds", WAYS)
@pytest.mark.usefixtures("flat_out")
def test_who_writes_flat_out_leaves_others_their_turn(connection: DatabaseWrapper, adds: Any) -> None:
    connection.settings_dict["OPTIONS"]["timeout"] = 20
    before = value(connection, 1)
    while value(connection, 1) < before + 10:
        time.sleep(0.01)
    before = value(connection, 1)
    for _ in range(20):
        adds(connection)
    assert value(connection, 2) == 20
    # With SQLite's own way of waiting it makes some hundreds meanwhile.
    assert value(connection, 1) - before < 100


def test_threads_and_processes_lose_nothing(
    connection: DatabaseWrapper, flat_out: subprocess.Popen[str], path: Path
) -> None:
    def work() -> None:
        own = DatabaseWrapper(settings_of(path), ALIAS)
        connections[ALIAS] = own
        try:
            for number in range(40):
                WAYS[number % 4](own)
        finally:
            own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(connection, 2) == 160
    assert flat_out.poll() is None


@pytest.mark.parametrize("adds", WAYS)
def test_a_lock_that_stays_ends_the_wait_and_nothing_is_done(
    connection: DatabaseWrapper, path: Path, adds: Any
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(OperationalError, match="database is locked"):
            adds(connection)
        assert time.monotonic() - began >= 0.5
        # Readers do not wait.
        assert value(connection, 2) == 0
        other.execute("ROLLBACK")
    adds(connection)
    assert value(connection, 2) == 1


def test_another_thread_that_stays_ends_the_wait(connection: DatabaseWrapper, path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    def stay() -> None:
        connections[ALIAS] = own = DatabaseWrapper(settings_of(path), ALIAS)
        with transaction.atomic(using=ALIAS):
            add(own)
            begun.set()
            end.wait(30)
        own.close()

    thread = threading.Thread(target=stay)
    thread.start()
    assert begun.wait(30)
    with pytest.raises(OperationalError, match="another thread's transaction does not end"):
        add_in_transaction(connection)
    end.set()
    thread.join()
    add_in_transaction(connection)
    assert value(connection, 2) == 2


def test_who_is_frozen_while_waiting_keeps_nobody_out(connection: DatabaseWrapper, path: Path) -> None:
    with ExitStack() as stack:
        frozen = stack.enter_context(started(WAITING, path))
        stack.callback(frozen.kill)
        time.sleep(0.05)
        frozen.send_signal(signal.SIGSTOP)
        for adds in WAYS:
            adds(connection)
    assert value(connection, 2) == 4


@pytest.mark.parametrize("adds", [add, add_many])
def test_without_autocommit_statements_wait_too_and_are_taken_back(
    connection: DatabaseWrapper, path: Path, adds: Any
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.1, other.execute, ["ROLLBACK"])
        timer.start()
        connection.set_autocommit(False)
        adds(connection)
        connection.rollback()
        adds(connection)
        connection.commit()
        connection.set_autocommit(True)
        timer.join()
    assert value(connection, 2) == 1
    add_in_transaction(connection)


def test_a_transaction_that_sqlite_has_ended_waits_for_nobody(connection: DatabaseWrapper) -> None:
    """As it does by itself on a full disk."""
    with transaction.atomic(using=ALIAS):
        with pytest.raises(IntegrityError):
            execute(connection, "INSERT OR ROLLBACK INTO counter VALUES (1, 0)", [])
        began = time.monotonic()
        add_past_cursors(connection)
        assert time.monotonic() - began < 0.5
    add_in_transaction(connection)
    assert value(connection, 2) == 2


def test_what_waiting_does_not_mend_fails_at_once(connection: DatabaseWrapper, path: Path) -> None:
    """A statement still reads what was there before another wrote."""
    connection.settings_dict["OPTIONS"]["timeout"] = 20
    with closing(sqlite3.connect(path, isolation_level=None)) as other, connection.cursor() as reading:
        reading.execute("SELECT id FROM counter")
        other.execute("UPDATE counter SET value = 7 WHERE id = 1")
        began = time.monotonic()
        with pytest.raises(OperationalError, match="locked"):
            add(connection)
        assert time.monotonic() - began < 10
    add(connection)
    assert value(connection, 2) == 1


def test_a_connection_closed_in_a_transaction_ends_its_turn(connection: DatabaseWrapper) -> None:
    with transaction.atomic(using=ALIAS):
        add(connection)
        connection.close()
    add_in_transaction(connection)
    assert value(connection, 2) == 1


class EndedAfter:
    """An SQLite connection: what comes from outside, such as the end of a task's time, comes after this statement."""

    def __init__(self, raw: sqlite3.Connection, statement: str) -> None:
        self.raw = raw
        self.statement = statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def execute(self, statement: str) -> sqlite3.Cursor:
        done = self.raw.execute(statement)
        self.end(statement)
        return done

    def commit(self) -> None:
        self.raw.commit()
        self.end("COMMIT")

    def end(self, statement: str) -> None:
        if statement == self.statement:
            raise SystemExit


@pytest.mark.parametrize(("statement", "written"), [("BEGIN IMMEDIATE", 0), ("COMMIT", 1)])
def test_a_task_that_is_ended_in_between_keeps_nobody_out(
    connection: DatabaseWrapper, path: Path, statement: str, written: int
) -> None:
    connection.ensure_connection()
    raw = connection.connection
    connection.connection = EndedAfter(raw, statement)
    with pytest.raises(SystemExit):
        add_in_transaction(connection)
    connection.connection = raw
    with closing(sqlite3.connect(path, timeout=0)) as other:
        other.execute("UPDATE counter SET value = value + 1 WHERE id = 1")
        other.rollback()
    assert value(connection, 2) == written
    add_in_transaction(connection)
    add(connection)
    assert value(connection, 2) == written + 2


def test_what_python_cannot_read_is_told_as_it_is(connection: DatabaseWrapper) -> None:
    with pytest.raises(OperationalError, match="Could not decode to UTF-8"):
        execute(connection, "SELECT CAST(x'ff' AS TEXT)", [])


def test_databases_in_memory_have_nothing_to_do_with_each_other(django_db_blocker: Any) -> None:
    one, other = (DatabaseWrapper(settings_of(Path(":memory:"), 0.1), ALIAS) for _ in range(2))
    assert turns_of(one) is not turns_of(other)
    assert turns_of(one) is turns_of(one)


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_whoever_may_write_to_the_database_may_take_a_turn(connection: DatabaseWrapper, path: Path, mode: int) -> None:
    path.chmod(mode)
    owner = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    before = os.umask(0o077)
    try:
        add(connection)
    finally:
        os.umask(before)
    about = Path(turns.turn_file(str(path))).stat()
    assert about.st_mode & 0o777 == mode
    assert (about.st_uid, about.st_gid) == owner


def test_a_cursor_whose_connection_is_closed_says_so(connection: DatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        connection.close()
        with pytest.raises(ProgrammingError, match="closed database"):
            cursor.execute("UPDATE counter SET value = 0")


def test_many_are_written_by_a_connection_that_has_no_name(connection: DatabaseWrapper, path: Path) -> None:
    other = DatabaseWrapper(settings_of(path), "nobody")
    add_many(other)
    other.close()
    assert value(connection, 2) == 1


def broken() -> Iterator[list[int]]:
    yield [3]
    raise ZeroDivisionError


def test_many_are_written_or_none(connection: DatabaseWrapper) -> None:
    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO counter VALUES (%s, 0)", [[3], [1]])
    assert execute(connection, "SELECT count(*) FROM counter", []) == [(2,)]
    with pytest.raises(ZeroDivisionError), connection.cursor() as cursor:
        cursor.executemany("INSERT INTO counter VALUES (%s, 0)", broken())  # type: ignore[arg-type]
    assert execute(connection, "SELECT count(*) FROM counter", []) == [(2,)]
    add_many(connection)
    assert value(connection, 2) == 1


def test_a_forked_child_has_turns_of_its_own(connection: DatabaseWrapper) -> None:
    """Whatever a thread of the parent was about, which the child does not have."""
    turns_of(connection).begin(lambda: True, 1)
    child = os.fork()
    if not child:
        turns_of(connection).begin(lambda: True, 1)
        os._exit(3)
    _pid, status = os.waitpid(child, 0)
    turns_of(connection).end()
    assert os.waitstatus_to_exitcode(status) == 3


@pytest.mark.parametrize("long", [True, False])
def test_who_wrote_long_leaves_the_turn_to_others_as_long(
    connection: DatabaseWrapper, path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    monkeypatch.setattr(turns, "MOST_POLITE_SECONDS", 20.0)
    found = turns_of(connection)
    found.begin(lambda: True, 1)
    if long:
        found._began_at -= 20
    found.end()
    told: list[bool] = []

    def begins() -> bool:
        """Whether the other has had its turn, or has not had it for long."""
        assert other.stdin is not None
        assert other.stdout is not None
        if not told:
            print(file=other.stdin, flush=True)
        told.append(bool(select.select([other.stdout], [], [], 0)[0]))
        return told[-1] or (not long and len(told) > 200)

    with started(TAKING, path) as other:
        found.begin(begins, 20)
        found.end()
    assert told[-1] is long
