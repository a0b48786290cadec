"""Three rounds of what `make soak` does: web, engine and database killed at random points while events are recorded."""

from __future__ import annotations

import random
import sys
from collections import Counter
from typing import Any

import pytest
from django.db import connection

from soak import __main__, rounds
from soak.rounds import MANNERS, play, running_stage
from soak.servers import Postgresql, Sqlite, programs
from testing import services

ROUNDS = 3
EVENTS = 2_000
KILLS = 3


@pytest.mark.long
def test_nothing_is_lost_changed_or_out_of_order_though_everything_is_killed() -> None:
    if connection.vendor == "postgresql":
        services.need(programs(), "PostgreSQL's server programs")
    seed = random.SystemRandom().randrange(10**9)
    killed: Counter[str] = Counter()
    with running_stage(connection.vendor) as stage:
        for number in range(ROUNDS):
            report = play(stage, EVENTS, KILLS, random.Random(f"{seed}/{number}"), hurry=True)
            print(f"round {number + 1} of seed {seed}: {report}")
            assert report.events >= EVENTS
            assert not report.faults, (seed, report.faults[:20])
            assert report.lost == 0
            assert sum(report.kills.values()) == KILLS
            assert report.duplicates <= report.arrivals / 4
            killed.update(report.kills)
    if connection.vendor == "postgresql":
        assert [killed[manner] for manner in MANNERS] == [1, 1, 1]


class Rising:
    """A part, or the connections of a database, that is there only when it is looked for the third time."""

    looked = 0

    def kill(self, *_: Any) -> int:
        self.looked += 1
        return int(self.looked >= 3)


@pytest.mark.once
def test_a_kill_waits_until_there_is_something_to_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    part, database = Rising(), Rising()
    server = Postgresql.__new__(Postgresql)
    monkeypatch.setattr(server, "terminate_all", database.kill)
    rounds.kill(part, server, "engine", random.Random())  # type: ignore[arg-type]
    rounds.kill(part, server, "connections", random.Random())  # type: ignore[arg-type]
    assert (part.looked, database.looked) == (3, 3)


@pytest.mark.once
def test_what_could_not_be_killed_is_no_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ABSENT_SECONDS", 0.0)
    with pytest.raises(TimeoutError):
        rounds.kill(Rising(), Sqlite.__new__(Sqlite), "engine", random.Random())  # type: ignore[arg-type]


@pytest.mark.once
@pytest.mark.parametrize(("required", "arguments"), [("", ["--kind", "postgresql"]), ("1", [])])
def test_a_soak_without_the_database_that_was_required_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], required: str, arguments: list[str]
) -> None:
    monkeypatch.setattr(__main__, "programs", lambda: None)
    monkeypatch.setenv("REQUIRE_SERVICES", required)
    monkeypatch.setattr(sys, "argv", ["soak", *arguments])
    assert __main__.main() == 1
    assert "postgresql NOT RUN" in capsys.readouterr().out
