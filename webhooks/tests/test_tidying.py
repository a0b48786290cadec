"""PostgreSQL clears away what engines have dispatched, as soon as there is time for it."""

from __future__ import annotations

import contextlib
import threading
import time

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

pytestmark = [
    pytest.mark.skipif("sqlite" in str(connection.settings_dict["ENGINE"]), reason="SQLite reuses rows at once"),
    pytest.mark.django_db(transaction=True),
]


def test_what_was_dispatched_is_cleared_away_once_it_is_quiet(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "EVENTS", 2)
    # One in an earlier slice.
    monkeypatch.setattr(tidying, "left", tidying.Left(1))
    monkeypatch.setattr(drain_module, "TIDY_SECONDS", 0.2)
    vacuumed = """
        SELECT count(*) FROM pg_stat_user_tables
        WHERE vacuum_count > %s AND relname IN ('conversations_undispatched', 'webhooks_outstanding')
    """
    before = int(sql.run("SELECT max(vacuum_count) FROM pg_stat_user_tables", [])[0][0])

    def cleared() -> bool:
        return sql.run(vacuumed, [before]) == [(2,)]

    receive_message(channel=acme.channel, address=acme.contact.address, body="Hello")
    run = Run(name=LOOP, slot_id=0, holder="", ends_at=time.monotonic() + 10.0)
    monkeypatch.setattr(run, "place", lambda: (0, 1))
    monkeypatch.setattr(run, "go_on", lambda: time.monotonic() < run.ends_at and not cleared())
    with Desk() as desk, contextlib.closing(Waiter(LOOP)) as waiter:
        Drain(0, desk).run(run, waiter)
    assert cleared()
    assert tidying.left.events < 2


def test_that_it_cannot_be_cleared_away_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tidying, "_VACUUM", "VACUUM nothing_of_this_name")
    tidying.begin()
    for thread in threading.enumerate():
        if thread.name == "tidying":
            thread.join(10)
    assert "tidying up" in caplog.text
