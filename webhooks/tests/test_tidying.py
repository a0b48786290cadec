"""PostgreSQL clears away what engines have dispatched, as soon as there is time for it."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import psycopg
import pytest
from django.db import connection

from conftest import Cast
from conversations.actions import receive_message
from core.loops import Run
from core.wakeup import Waiter
from webhooks.engine import drain as drain_module
from webhooks.engine import sql, tidying
from webhooks.engine.desk import Desk
from webhooks.engine.drain import Drain
from webhooks.signals import LOOP
from webhooks.tests.running import Cluster, own_database, python

pytestmark = [
    pytest.mark.skipif("sqlite" in str(connection.settings_dict["ENGINE"]), reason="SQLite reuses rows at once"),
    pytest.mark.django_db(transaction=True),
]

VACUUMED = """
SELECT count(*) FROM pg_stat_user_tables
WHERE vacuum_count > %s AND relname IN ('conversations_undispatched', 'webhooks_outstanding')
"""
ENSURE = """
import django
django.setup()
from core import loops
from webhooks.signals import LOOP
loops.ensure(LOOP)
"""


def test_what_was_dispatched_is_cleared_away_once_it_is_quiet(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "EVENTS", 2)
    # One in an earlier slice.
    monkeypatch.setattr(tidying, "left", tidying.Left(1))
    monkeypatch.setattr(drain_module, "TIDY_SECONDS", 0.2)
    before = int(sql.run("SELECT max(vacuum_count) FROM pg_stat_user_tables", [])[0][0])

    def cleared() -> bool:
        return sql.run(VACUUMED, [before]) == [(2,)]

    receive_message(channel=acme.channel, address=acme.contact.address, body="Hello")
    run = Run(name=LOOP, slot_id=0, holder="", ends_at=time.monotonic() + 10.0)
    monkeypatch.setattr(run, "place", lambda: (0, 1))
    monkeypatch.setattr(run, "go_on", lambda: time.monotonic() < run.ends_at and not cleared())
    with Desk() as desk, contextlib.closing(Waiter(LOOP)) as waiter:
        Drain(0, desk).run(run, waiter)
    assert cleared()
    assert tidying.left.events < 2


def test_a_new_engine_clears_away_what_those_before_it_left(tmp_path: Path) -> None:
    with own_database(tmp_path) as environment, psycopg.connect(environment["DATABASE_URL"], autocommit=True) as asking:
        cluster = Cluster(environment)
        cluster.start()
        try:
            python(environment, "-c", ENSURE)
            deadline = time.monotonic() + 60.0
            while (vacuumed := asking.execute(VACUUMED, [0]).fetchone()) != (2,):
                assert time.monotonic() < deadline, vacuumed
                time.sleep(0.1)
        finally:
            cluster.kill()


def test_that_it_cannot_be_cleared_away_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tidying, "_VACUUM", "VACUUM nothing_of_this_name")
    tidying.begin()
    for thread in threading.enumerate():
        if thread.name == "tidying":
            thread.join(10)
    assert "tidying up" in caplog.text
