"""Three rounds of what `make soak` does: web, engine and database killed at random points while events are recorded."""

from __future__ import annotations

import random

import pytest
from django.db import connection

from soak.rounds import play, running_stage
from soak.servers import programs
from testing import services

ROUNDS = 3
EVENTS = 2_000
KILLS = 3


@pytest.mark.long
def test_nothing_is_lost_changed_or_out_of_order_though_everything_is_killed() -> None:
    if connection.vendor == "postgresql":
        services.need(programs(), "PostgreSQL's server programs")
    seed = random.SystemRandom().randrange(10**9)
    with running_stage(connection.vendor) as stage:
        for number in range(ROUNDS):
            report = play(stage, EVENTS, KILLS, random.Random(f"{seed}/{number}"), hurry=True)
            print(f"round {number + 1} of seed {seed}: {report}")
            assert report.events >= EVENTS
            assert not report.faults, (seed, report.faults[:20])
            assert report.lost == 0
            assert sum(report.kills.values()) == KILLS
            assert report.duplicates <= report.arrivals / 4
