"""NOTIFY over a connection of its own: not waited for, and had again after a fork and after the server ended it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection

from core.notifier import Notifier, connect

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="NOTIFY is PostgreSQL's"),
]

CHANNEL = f"notifier{os.getpid()}"


@pytest.fixture
def notifier() -> Iterator[Notifier]:
    made = Notifier()
    yield made
    made.close()


@pytest.fixture
def listening() -> Iterator[Any]:
    with connect() as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        yield listener


def heard(listener: Any, count: int) -> list[str]:
    """The payloads of so many notifications, fewer when they do not come."""
    found: list[str] = []
    deadline = time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        found += [one.payload for one in listener.notifies(timeout=0.05)]
    return found


def test_each_is_heard_in_order_and_its_answer_taken_in(notifier: Notifier, listening: Any) -> None:
    told = [f"{number} with \" ' \\ and é" for number in range(300)]
    for one in told:
        notifier.send(CHANNEL, one)
    assert heard(listening, 300) == told
    notifier.send(CHANNEL, "last")
    # All but the latest have been answered by now, and that was looked at.
    assert notifier._unanswered == 1
    assert heard(listening, 1) == ["last"]


def test_nobody_waits_for_an_answer(notifier: Notifier, listening: Any) -> None:
    notifier.send(CHANNEL, "first")
    assert notifier._unanswered == 1


def test_a_connection_that_was_ended_is_opened_again(notifier: Notifier, listening: Any) -> None:
    notifier.send(CHANNEL, "before")
    assert heard(listening, 1) == ["before"]
    pid = notifier._connection.pgconn.backend_pid
    listening.execute("SELECT pg_terminate_backend(%s)", [pid])
    deadline = time.monotonic() + 5
    while listening.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall():
        assert time.monotonic() < deadline
    # It is told of before its end is on the wire.
    time.sleep(0.3)
    notifier.send(CHANNEL, "after")
    assert heard(listening, 1) == ["after"]


def test_what_the_server_refuses_is_told_and_harms_no_other(
    notifier: Notifier, listening: Any, caplog: pytest.LogCaptureFixture
) -> None:
    notifier.send(CHANNEL, "before")
    notifier.send(CHANNEL, "x" * 9000)
    assert heard(listening, 1) == ["before"]
    time.sleep(0.1)
    notifier.send(CHANNEL, "after")
    assert heard(listening, 1) == ["after"]
    assert "payload string too long" in caplog.text


class Silent:
    """A connection whose answers never come."""

    def __init__(self, real: Any) -> None:
        self.pgconn = self
        self.real = real
        self.close = real.close

    def is_busy(self) -> int:
        return 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real.pgconn, name)


def test_a_server_that_answers_no_more_is_left(notifier: Notifier, listening: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("core.notifier.UNANSWERED_MOST", 5)
    notifier.send(CHANNEL, "first")
    silent = notifier._connection = Silent(notifier._connection)
    for number in range(5):
        notifier.send(CHANNEL, str(number))
    assert notifier._connection is not silent
    assert heard(listening, 6)[-1] == "4"


def test_without_a_server_it_says_so(notifier: Notifier, monkeypatch: pytest.MonkeyPatch) -> None:
    port = connection.settings_dict["PORT"]
    monkeypatch.setitem(connection.settings_dict, "PORT", "9")
    with pytest.raises(psycopg.OperationalError):
        notifier.send(CHANNEL, "nobody")
    # Not each event tries anew.
    notifier.send(CHANNEL, "nobody either")
    monkeypatch.setitem(connection.settings_dict, "PORT", port)
    monkeypatch.setattr(notifier, "_not_before", 0.0)
    notifier.send(CHANNEL, "somebody")


def test_after_a_fork_each_process_has_its_own(notifier: Notifier, listening: Any) -> None:
    notifier.send(CHANNEL, "parent")
    child = os.fork()
    if not child:
        try:
            for number in range(50):
                notifier.send(CHANNEL, f"child {number}")
            # What is under way when a process ends at once may be lost with it.
            notifier.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    notifier.send(CHANNEL, "parent again")
    told = heard(listening, 52)
    assert sorted(told) == sorted(["parent", "parent again", *(f"child {number}" for number in range(50))])
