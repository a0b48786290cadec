"""Rate limits: headers, refusal, several processes, Redis."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from conftest import Cast
from organisations.api import ratelimit
from organisations.api.ratelimit import Limit, parse, spend
from organisations.models import RateWindow

URL = "/api/v1/conversations"
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def fresh_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what earlier tests spent, and stand in the middle of a window, so that none ends during a test."""
    ratelimit._windows.clear()
    monkeypatch.setattr("organisations.api.ratelimit.time.time", lambda: 1_800_000_030.0)
    yield
    ratelimit._windows.clear()


def test_every_answer_tells_the_limit(client: Client, acme: Cast, settings: Any) -> None:
    settings.API_RATE_LIMIT = "5/minute"
    answer = client.get(URL, headers=acme.auth)
    assert answer["RateLimit-Limit"] == "5"
    assert answer["RateLimit-Remaining"] == "4"
    assert answer["RateLimit-Reset"] == "30"
    assert answer["RateLimit-Policy"] == "5;w=60"
    assert "Retry-After" not in answer


def test_a_small_limit_is_exact(client: Client, acme: Cast, settings: Any) -> None:
    settings.API_RATE_LIMIT = "3/minute"
    statuses = [client.get(URL, headers=acme.auth).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    refused = client.get(URL, headers=acme.auth)
    assert refused["Retry-After"] == "30"
    assert refused["RateLimit-Remaining"] == "0"
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "rate_limited"


def test_one_organisation_does_not_use_up_anothers_calls(
    client: Client, acme: Cast, globex: Cast, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "1/minute"
    assert [client.get(URL, headers=acme.auth).status_code for _ in range(2)] == [200, 429]
    assert client.get(URL, headers=globex.auth).status_code == 200


def test_an_organisation_may_have_a_limit_of_its_own(client: Client, acme: Cast, settings: Any) -> None:
    settings.API_RATE_LIMIT = "1/minute"
    acme.organisation.api_rate_limit = "2/minute"
    acme.organisation.save(update_fields=["api_rate_limit"])
    assert [client.get(URL, headers=acme.auth).status_code for _ in range(3)] == [200, 200, 429]


def test_zero_turns_it_off(client: Client, acme: Cast, settings: Any) -> None:
    settings.API_RATE_LIMIT = "0"
    answer = client.get(URL, headers=acme.auth)
    assert answer.status_code == 200
    assert "RateLimit-Limit" not in answer


def test_a_large_limit_is_never_passed_and_writes_seldom(db: None, django_assert_max_num_queries: Any) -> None:
    limit = Limit(1000, 60)
    with django_assert_max_num_queries(120):
        allowed = sum(spend("organisation:large", limit).allowed for _ in range(1100))
    assert allowed == 1000


def test_the_next_window_begins_anew(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = Limit(1, 60)
    assert [spend("organisation:next", limit).allowed for _ in range(2)] == [True, False]
    monkeypatch.setattr("organisations.api.ratelimit.time.time", lambda: 1_800_000_090.0)
    assert spend("organisation:next", limit).allowed
    assert RateWindow.objects.get(key="organisation:next").used == 1


@pytest.mark.parametrize("text", ["", "10", "0/minute", "-1/minute", "10/day", "x/minute"])
def test_a_malformed_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        parse(text)


CHILD = """
import sys, time
time_of_test = float(sys.argv[1])
import django
django.setup()
from organisations.api import ratelimit
ratelimit.time.time = lambda: time_of_test
print(sum(ratelimit.spend(sys.argv[2], ratelimit.Limit(int(sys.argv[3]), 60)).allowed for _ in range(200)))
"""


def spend_in_processes(count: int, calls: int, **environment: str) -> int:
    """How many of 200 calls of each of `count` processes are allowed when `calls` are."""
    command = [sys.executable, "-c", CHILD, "1800000030", f"organisation:{uuid.uuid4().hex}", str(calls)]
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "webio.settings", "DEBUG": "1", **environment}
    children = [subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(int(child.communicate(timeout=60)[0]) for child in children)


@pytest.mark.parametrize(("calls", "least"), [(20, 20), (300, 290)])
def test_several_processes_share_one_limit(tmp_path: Path, calls: int, least: int) -> None:
    file = tmp_path / "rate.sqlite3"
    with sqlite3.connect(file) as database:
        # As whoever migrates has done: of several that change it at once, SQLite refuses all but one without waiting.
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE organisations_ratewindow (key varchar PRIMARY KEY, start bigint, used integer)")
    url = f"sqlite:///{file}"
    assert least <= spend_in_processes(3, calls, DATABASE_URL=url, BROKER_URL="") <= calls


def test_with_redis_the_limit_is_exact_across_processes(settings: Any) -> None:
    url = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379")
    host = re.sub(r"^redis://([^:/]+).*$", r"\1", url)
    try:
        socket.create_connection((host, 6379), timeout=1).close()
    except OSError:
        pytest.skip("no Redis here")
    assert spend_in_processes(2, 150, BROKER_URL=url, DATABASE_URL="sqlite://:memory:") == 150


@pytest.mark.django_db(transaction=True)
def test_several_processes_share_one_limit_on_postgresql() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite is tested above")
    values = connection.settings_dict
    url = f"postgres://{values['USER']}:{values['PASSWORD']}@{values['HOST']}:{values['PORT']}/{values['NAME']}"
    assert 290 <= spend_in_processes(3, 300, DATABASE_URL=url, BROKER_URL="") <= 300
