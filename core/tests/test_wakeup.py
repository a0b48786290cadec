"""Wake-ups over every way there is: SQLite's data version, PostgreSQL's NOTIFY, Redis."""

from __future__ import annotations

import itertools
import logging
import os
import select
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from django_q.models import OrmQ

from core import loops, wakeup
from core.loops import Loop
from core.models import Sequence, Slot
from core.wakeup import Waiter, wake
from testing import services

pytestmark = pytest.mark.django_db(transaction=True)

#: Channels of Redis and PostgreSQL are everybody's on that server.
NAME = f"test{os.getpid()}"
OTHER = f"other{os.getpid()}"
keys = itertools.count()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """Two loops with nobody at work, and no memory of having looked."""
    settings.BROKER_URL = ""
    monkeypatch.setattr(loops, "LOOPS", {})
    monkeypatch.setattr(loops, "keepalives", [])
    for name in (NAME, OTHER):
        loops.register(Loop(name, "core.tests.test_wakeup.turn", name, lambda: 1))
    monkeypatch.setattr(wakeup, "_looked", {NAME: time.monotonic(), OTHER: time.monotonic()})
    monkeypatch.setattr(wakeup, "_redis", None)
    yield
    if wakeup._redis is not None:
        wakeup._redis.close()


@pytest.fixture(params=["database", "redis"])
def way(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """How wake-ups travel: as the database does it, and over Redis (on PostgreSQL behind PgBouncer)."""
    if request.param == "redis":
        services.need(services.redis(), "Redis")
        settings.BROKER_URL = services.REDIS_URL
        monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
        return "redis"
    return str(connection.vendor)


@pytest.fixture
def listen() -> Iterator[Callable[..., Waiter]]:
    """Makes waiters that are closed in the end."""
    made: list[Waiter] = []

    def make(name: str = NAME) -> Waiter:
        made.append(Waiter(name))
        return made[-1]

    yield make
    for waiter in made:
        waiter.close()


def write() -> None:
    Sequence.objects.create(name=f"wakeup-{next(keys)}")


def write_and_roll_back() -> None:
    with transaction.atomic():
        write()
        wake(NAME)
        transaction.set_rollback(True)


def heard(waiter: Waiter, seconds: float = 2.0) -> bool:
    """Whether it is woken in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if waiter.woken():
            return True
        time.sleep(0.002)
    return False


def test_a_commit_wakes_and_once(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    assert not waiter.woken()
    with transaction.atomic():
        write()
        wake(NAME)
        assert not heard(waiter, 0.1)
    assert heard(waiter)
    assert not heard(waiter, 0.1)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="NOTIFY is PostgreSQL's")
def test_postgresql_tells_itself_also_where_redis_is_the_broker(listen: Callable[..., Waiter], settings: Any) -> None:
    settings.BROKER_URL = "redis://127.0.0.1:9/0"
    waiter = listen()
    write()
    wake(NAME, "a topic")
    assert heard(waiter)
    assert waiter.topics == {"a topic"}


def test_waiting_ends_with_a_wake_up_or_when_the_time_is_over(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    began = time.monotonic()
    assert not waiter.wait(0.05)
    assert 0.05 <= time.monotonic() - began < 1.0
    write()
    wake(NAME)
    assert waiter.wait(2.0)
    assert time.monotonic() - began < 2.0


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite alone has a log that the kernel can watch")
@pytest.mark.parametrize(("journal", "most"), [("wal", 12), ("delete", 200)])
def test_on_sqlite_the_kernel_tells_when_it_is_worth_asking(
    journal: str, most: int, listen: Callable[..., Waiter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test.sqlite3"
    asked: list[float] = []
    ask = Waiter._data_version

    def counted(waiter: Waiter) -> int:
        asked.append(time.monotonic())
        return ask(waiter)

    monkeypatch.setattr(Waiter, "_data_version", counted)
    monkeypatch.setitem(connection.settings_dict, "NAME", str(path))
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute(f"PRAGMA journal_mode={journal}")
        other.execute("CREATE TABLE written (number INTEGER)")
        waiter = listen()
        asked.clear()
        assert not waiter.wait(0.4)
        assert len(asked) <= most
        for number in range(5):
            later = threading.Timer(0.05, lambda: other.execute("INSERT INTO written VALUES (1)"))
            later.start()
            assert waiter.wait(5.0), number
            later.join()


def test_outside_of_a_transaction_it_wakes_at_once(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    write()
    wake(NAME)
    assert heard(waiter)


def test_what_is_rolled_back_wakes_nobody(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    write_and_roll_back()
    assert not heard(waiter, 0.2)


def test_a_savepoint_that_is_rolled_back_does_not_silence_the_rest(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    with transaction.atomic():
        write_and_roll_back()
        write()
        wake(NAME)
    assert heard(waiter)


def test_after_a_rollback_the_next_transaction_wakes(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    write_and_roll_back()
    with transaction.atomic():
        write()
        wake(NAME)
    assert heard(waiter)


def test_many_events_of_one_transaction_send_one_wake_up(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    sent: list[str] = []
    with transaction.atomic():
        for _ in range(20):
            wake(NAME)
        callbacks = [function for _sids, function, _robust in connection.run_on_commit]
    assert len(callbacks) == 20
    if way == "sqlite":
        # The commit is the message, and this one wrote nothing.
        assert not heard(waiter, 0.1)
        return
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        sent += messages(waiter)
        time.sleep(0.01)
    assert len(sent) == 1


def messages(waiter: Waiter) -> list[str]:
    """What has arrived, one by one."""
    if waiter._pubsub is not None:
        return ["redis" for message in iter(lambda: waiter._pubsub.get_message(timeout=0), None) if message]
    return [note.channel for note in waiter._connection.notifies(timeout=0)]


def test_everybody_who_waits_for_a_loop_hears_it_and_nobody_else(way: str, listen: Callable[..., Waiter]) -> None:
    waiters, stranger = [listen(), listen()], listen(OTHER)
    write()
    wake(NAME)
    assert [heard(waiter) for waiter in waiters] == [True, True]
    # On SQLite any commit is a hint for all.
    assert heard(stranger, 0.2) == (way == "sqlite")


def test_the_descriptor_becomes_readable(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    descriptor = waiter.fileno()
    if way == "sqlite":
        assert descriptor is None
        assert waiter.poll_seconds <= 0.01
        return
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0.05)[0] == []
    wake(NAME)
    assert select.select([descriptor], [], [], 2)[0] == [descriptor]
    assert waiter.woken()


def test_closing_twice_is_fine(way: str, listen: Callable[..., Waiter]) -> None:
    waiter = listen()
    waiter.close()
    waiter.close()


def test_a_listener_that_postgresql_dropped_says_so(listen: Callable[..., Waiter]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("PostgreSQL only")
    waiter = listen()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [waiter._connection.info.backend_pid])
    with pytest.raises(Exception, match=r"terminat|closed|lost"):
        heard(waiter, 2)


def test_a_wake_up_that_finds_nobody_at_work_queues_a_start_now_and_then(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup, "_looked", {})
    wake(NAME)
    assert OrmQ.objects.filter(key=NAME).count() == 1
    Slot.objects.all().delete()
    wake(NAME)
    assert OrmQ.objects.filter(key=NAME).count() == 1
    monkeypatch.setattr(wakeup, "LOOK_SECONDS", 0.0)
    wake(NAME)
    assert OrmQ.objects.filter(key=NAME).count() == 2


def test_a_redis_that_is_gone_does_not_hurt_the_transaction(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    settings.BROKER_URL = "redis://127.0.0.1:1/0"
    with caplog.at_level(logging.ERROR), transaction.atomic():
        write()
        wake(NAME)
    assert Sequence.objects.filter(name__startswith="wakeup-").count() == 1
    assert f"wake-up of {NAME} failed" in caplog.text
