"""SQLite has one writer at a time: the engine's rate and a writer's waits while both want to be it.

`python -m benchmarks.sqlite_writer [--runs N]` drains the same backlog twice, the second time while one process takes
in messages through the verb `receive_message` as fast as it can.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import (
    Figure,
    answer_of,
    calling,
    engine,
    fresh_database,
    inside,
    percentile,
    receiving,
    report,
)

ENDPOINTS = 20
EVENTS = 40_000

FIGURES = (
    Figure("alone", "deliveries/s, nobody else writes"),
    Figure("beside", "deliveries/s beside the writer"),
    Figure("share", "of the rate when nobody else writes", ">= 0.25", ">= 0.25"),
    Figure("written", "messages/s that the writer takes in"),
    Figure("p50", "ms that one takes, waiting included, p50"),
    Figure("p99", "ms that one takes, waiting included, p99", "< 1000", "< 1000"),
    Figure("most", "ms that one takes, waiting included, most"),
)


def write(stop: str, after: str) -> dict[str, float]:
    """Take in messages until there is a file `stop`.

    The figures are of the time since the engine made the first delivery after `after`.
    """
    from django.db.models import Min

    from conversations.actions import receive_message
    from conversations.models import Channel
    from webhooks.models import Delivery

    channel = Channel.objects.select_related("organisation").latest("id")
    end = Path(stop)
    taken: list[tuple[float, float]] = []
    while not end.exists():
        began = time.time()
        address = f"4477009{len(taken) % 100:05d}"
        receive_message(channel=channel, address=address, body="A message of the usual length, no more.")
        taken.append((began, time.time() - began))
    first = Delivery.objects.filter(pk__gt=int(after)).aggregate(first=Min("created_at"))["first"].timestamp()
    waits = [seconds for began, seconds in taken if began >= first]
    return {
        "written": len(waits) / sum(waits),
        "p50": percentile(waits, 0.5) * 1000,
        "p99": percentile(waits, 0.99) * 1000,
        "most": max(waits) * 1000,
    }


def drain(url: str, after: int) -> float:
    """Deliveries per second."""
    with engine(url) as process:
        return float(inside(url, "benchmarks.jobs", "drained", EVENTS, after, process.pid)["rate"])


def measure(_kind: str) -> dict[str, float]:
    """What `FIGURES` names."""
    with receiving() as receiver, fresh_database("sqlite") as url, tempfile.TemporaryDirectory() as folder:
        inside(url, "benchmarks.common", "endpoints", receiver, ENDPOINTS)
        alone = drain(url, inside(url, "benchmarks.common", "events", EVENTS)["after"])
        after = inside(url, "benchmarks.common", "events", EVENTS)["after"]
        stop = Path(folder, "stop")
        with calling(url, "benchmarks.sqlite_writer", "write", stop, after) as writer:
            beside = drain(url, after)
            stop.touch()
            found: dict[str, float] = answer_of(writer)
    return {"alone": alone, "beside": beside, "share": beside / alone, **found}


if __name__ == "__main__":
    report("sqlite_writer", FIGURES, measure, databases=["sqlite"])
