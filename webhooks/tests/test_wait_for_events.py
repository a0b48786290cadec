"""Pulls that wait, with a real web server: answered by the next event, without a thread or connection for each."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from testing import services
from webhooks.tests.serving import Platform, ready, served, two_organisations, until

#: More than there are threads.
WAITING = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A database with two organisations, and their keys."""
    with two_organisations(tmp_path_factory.mktemp("own")) as found:
        yield found


@pytest.fixture(scope="module")
def platform(made: tuple[dict[str, str], dict[str, str]]) -> Iterator[Platform]:
    """One that all tests share, but those that end it."""
    with served(*made) as platform:
        yield platform


@pytest.fixture
def start(platform: Platform) -> str:
    """The cursor from which nothing has happened yet."""
    return platform.end_of_events()


def test_events_that_are_there_are_given_at_once(platform: Platform, start: str) -> None:
    platform.do("say", text="there")
    found = platform.ask(f"wait=30{start}")
    assert (found.texts, found.status) == (["there"], 200)
    assert found.seconds < 1


def test_the_next_event_ends_the_wait(platform: Platform, start: str) -> None:
    future = platform.waiting(30, start)
    assert not future.done()
    began = time.monotonic()
    platform.do("say", text="now")
    found = future.result(10)
    assert time.monotonic() - began < 1
    assert (found.status, found.texts, found.headers["content-type"]) == (200, ["now"], "application/json")
    assert found.headers["ratelimit-limit"] == "10000"
    nothing = platform.ask(f"after={found.body['next']}")
    assert nothing.texts == []


def test_without_events_the_answer_is_empty_when_the_time_is_over(platform: Platform, start: str) -> None:
    found = platform.ask(f"wait=1{start}")
    assert found.body == {"next": start.removeprefix("&after="), "more": False, "results": []}
    assert 0.9 < found.seconds < 1.6
    assert "retry-after" not in found.headers


def test_the_events_of_others_end_nobodys_wait(platform: Platform, start: str) -> None:
    theirs = platform.end_of_events("globex")
    mine, other = platform.waiting(3, start), platform.waiting(30, theirs, "globex")
    platform.do("say", "globex", "theirs")
    assert other.result(5).texts == ["theirs"]
    found = mine.result(10)
    assert (found.texts, found.seconds > 2.8) == ([], True)


def test_what_no_engine_has_numbered_ends_no_wait(platform: Platform, start: str) -> None:
    future = platform.waiting(2, start)
    platform.do("record", text="waits for an engine")
    assert future.result(10).texts == []
    platform.do("dispatch")
    assert platform.ask(f"wait=1{start}").texts == ["waits for an engine"]


def test_internal_events_end_no_wait(platform: Platform) -> None:
    platform.do("say", "globex", "hello")
    platform.do("close", "globex")
    start = platform.end_of_events("globex")
    future = platform.waiting(2, start, "globex")
    platform.do("reopen", "globex")
    platform.do("dispatch")
    found = future.result(5)
    assert (found.body["results"], found.seconds > 1.8) == ([], True)


def test_many_wait_without_a_thread_or_connection_for_each(platform: Platform, start: str) -> None:
    futures = [platform.pool.submit(platform.ask, f"wait=30{start}") for _ in range(WAITING)]
    time.sleep(1)
    assert not any(future.done() for future in futures)
    # All threads would be taken.
    assert platform.ask("limit=1").seconds < 1
    if connection.vendor == "postgresql":
        assert connections_of(platform) < WAITING
    began = time.monotonic()
    platform.do("say", text="for all")
    answers = [future.result(10) for future in futures]
    assert time.monotonic() - began < 2
    assert [found.texts for found in answers] == [["for all"]] * WAITING


def connections_of(platform: Platform) -> int:
    """How many connections to its database there are, ours excepted."""
    import psycopg

    with psycopg.connect(platform.environment["DATABASE_URL"], autocommit=True) as admin:
        row = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_an_organisation_has_so_many_places_and_who_leaves_makes_room(platform: Platform, start: str) -> None:
    lines = []
    for _ in range(20):
        line = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=40)
        line.request(
            "GET", f"/api/v1/events?wait=30{start}", headers={"Authorization": f"Bearer {platform.keys['acme']}"}
        )
        lines.append(line)
    time.sleep(1)
    refused = platform.ask(f"wait=30{start}")
    assert (refused.status, refused.texts, refused.headers["retry-after"]) == (200, [], "5")
    assert refused.seconds < 1
    # Others have places.
    theirs = platform.end_of_events("globex")
    assert platform.ask(f"wait=1{theirs}", "globex").seconds > 0.9
    for line in lines:
        line.close()
    until(lambda: "retry-after" not in platform.ask(f"wait=1{start}").headers, 5)


def test_clients_that_leave_just_when_the_event_comes_do_no_harm(platform: Platform, start: str) -> None:
    before = workers(platform)
    for number in range(10):
        lines = []
        for _ in range(10):
            line = socket.create_connection(("127.0.0.1", platform.port), timeout=20)
            head = f"GET /api/v1/events?wait=30{start} HTTP/1.1\r\nHost: x\r\n"
            line.sendall(f"{head}Authorization: Bearer {platform.keys['acme']}\r\n\r\n".encode())
            lines.append(line)
        time.sleep(0.2)
        platform.do("record", text=f"round {number}")
        dispatching = platform.pool.submit(platform.do, "dispatch")
        for place, line in enumerate(lines):
            time.sleep(0.002 * (place % 3))
            line.close()
        dispatching.result(10)
        start = platform.end_of_events()
    future = platform.waiting(30, start)
    platform.do("say", text="still there")
    assert future.result(10).texts == ["still there"]
    assert workers(platform) == before


def workers(platform: Platform) -> list[str]:
    """The process ids of the web server's workers: one that crashed would have been replaced."""
    assert platform.web is not None
    found = Path(f"/proc/{platform.web.pid}/task/{platform.web.pid}/children").read_text().split()
    assert found
    return found


def test_a_wait_counts_once_and_its_connection_goes_on(platform: Platform, start: str) -> None:
    line = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=40)
    with contextlib.closing(line):
        before = platform.ask("limit=1", line=line)
        waited = platform.ask(f"wait=1{start}", line=line)
        after = platform.ask("limit=1", line=line)
    left = [int(found.headers["ratelimit-remaining"]) for found in (before, waited, after)]
    assert left == [left[0], left[0] - 1, left[0] - 2]


def test_a_request_sent_behind_a_wait_is_answered_after_it(platform: Platform, start: str) -> None:
    head = f"Host: x\r\nAuthorization: Bearer {platform.keys['acme']}\r\n"
    with socket.create_connection(("127.0.0.1", platform.port), timeout=20) as line:
        line.sendall(f"GET /api/v1/events?wait=2{start} HTTP/1.1\r\n{head}\r\n".encode())
        time.sleep(0.5)
        line.sendall(f"GET /api/v1/organisation HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
        answered = b"".join(iter(lambda: line.recv(65536), b""))
    first, second = answered.index(b'"results"'), answered.index(b'"scopes"')
    assert first < second


def test_a_head_does_not_wait(platform: Platform, start: str) -> None:
    line = http.client.HTTPConnection("127.0.0.1", platform.port, timeout=20)
    with contextlib.closing(line):
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {platform.keys['acme']}"}
        line.request("HEAD", f"/api/v1/events?wait=30{start}", headers=headers)
        assert line.getresponse().status == 200
    assert time.monotonic() - began < 1


def test_a_key_that_is_revoked_while_it_waits_reads_nothing(platform: Platform, start: str) -> None:
    future = platform.waiting(30, start)
    try:
        platform.do("revoke", text="on")
        platform.do("say", text="not for you")
        assert future.result(5).texts == []
    finally:
        platform.do("revoke", text="off")
    assert platform.ask(start.removeprefix("&")).texts == ["not for you"]


def test_a_listener_that_lost_its_connection_listens_again(platform: Platform, start: str) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("needs a database that can end a connection")
    import psycopg

    future = platform.waiting(30, start)
    with psycopg.connect(platform.environment["DATABASE_URL"], autocommit=True) as admin:
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        ).fetchall()
    assert ended
    time.sleep(0.1)
    platform.do("say", text="in between")
    assert future.result(5).texts == ["in between"]


def test_over_redis_it_is_woken_too(made: tuple[dict[str, str], dict[str, str]]) -> None:
    services.need(services.redis(), "Redis")
    environment, keys = made
    # On PostgreSQL they go over Redis only where PgBouncer passes no NOTIFY on.
    own = {**environment, "BROKER_URL": services.REDIS_URL, "DATABASE_PGBOUNCER": "1"}
    with served(own, keys) as platform:
        future = platform.waiting(30, platform.end_of_events())
        began = time.monotonic()
        platform.do("say", text="by redis")
        assert future.result(10).texts == ["by redis"]
        assert time.monotonic() - began < 1


def test_a_server_that_is_told_to_stop_answers_those_who_wait(made: tuple[dict[str, str], dict[str, str]]) -> None:
    with served(*made) as platform:
        assert platform.web is not None
        start = platform.end_of_events()
        futures = [platform.waiting(30, start) for _ in range(3)]
        began = time.monotonic()
        os.kill(platform.web.pid, signal.SIGTERM)
        assert [future.result(10).texts for future in futures] == [[], [], []]
        platform.web.wait(10)
        # Not only when the server gives up waiting for them, after ten seconds.
        assert time.monotonic() - began < 9


def test_where_waiting_costs_a_thread_few_may(made: tuple[dict[str, str], dict[str, str]]) -> None:
    environment, keys = made
    platform = Platform(environment, keys)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        platform.port = free.getsockname()[1]
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{platform.port}"]
    server = subprocess.Popen(command, env=environment, cwd=settings.BASE_DIR, stderr=subprocess.DEVNULL)
    try:
        until(lambda: ready(platform.port), 60)
        after = f"&after={platform.ask('limit=200').body['next']}"
        futures = [platform.waiting(3, after) for _ in range(4)]
        refused = platform.ask(f"wait=3{after}")
        assert (refused.headers["retry-after"], refused.seconds < 1) == ("5", True)
        assert all(future.result(10).seconds > 2.8 for future in futures)
    finally:
        server.terminate()
        server.wait(10)
        platform.pool.shutdown()
