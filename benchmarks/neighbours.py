"""What an organisation with a large backlog does to the deliveries of another.

`python -m benchmarks.neighbours [--kind sqlite|postgresql] [--runs N]` lets one organisation record a message every 60
ms and takes the time from each commit to its arrival, first alone, then while the same engine works off 500,000 due
deliveries of another one, whose endpoints answer at once. The two have receivers of their own, on the same machine.
"""

from __future__ import annotations

from benchmarks.common import (
    Figure,
    delays,
    engine,
    fresh_database,
    inside,
    percentile,
    receiving,
    report,
)

#: Due deliveries of the large one, and its webhooks.
DUE = 500_000
WEBHOOKS = 5
#: Messages of the small one, and seconds between two.
MESSAGES = 200
EVERY = 0.06

FIGURES = (
    Figure("alone_p50", "ms from commit to arrival, alone, p50"),
    Figure("alone_p99", "ms from commit to arrival, alone, p99"),
    Figure("beside_p50", "ms beside the backlog, p50"),
    Figure("beside_p99", "ms beside the backlog, p99"),
    Figure("added_p50", "ms added, p50"),
    Figure("added_p99", "ms added, p99", "<= 100", "<= 100"),
    Figure("rate", "deliveries/s of the backlog meanwhile"),
)


def due() -> int:
    """How many deliveries are due."""
    from webhooks.models import Delivery

    return Delivery.objects.filter(state="pending").count()


def measure(kind: str) -> dict[str, float]:
    """What `FIGURES` names. Raises `RuntimeError` when the backlog was over too early."""
    found: dict[str, float] = {}
    with receiving() as crowd, receiving() as receiver, fresh_database(kind) as url:
        [large] = inside(url, "benchmarks.common", "endpoints", crowd, 1, WEBHOOKS)
        inside(url, "benchmarks.common", "endpoints", receiver, 1)
        with engine(url):
            waits = {"alone": delays(receiver, inside(url, "benchmarks.jobs", "idle", MESSAGES, EVERY, EVERY))}
        inside(url, "benchmarks.common", "events", DUE // WEBHOOKS, large)
        inside(url, "benchmarks.common", "fan_out")
        inside(url, "benchmarks.common", "vacuum")
        with engine(url):
            inside(url, "benchmarks.jobs", "idle", 20, EVERY, EVERY)
            before = inside(url, "benchmarks.neighbours", "due")
            waits["beside"] = delays(receiver, inside(url, "benchmarks.jobs", "idle", MESSAGES, EVERY, EVERY))
            left = inside(url, "benchmarks.neighbours", "due")
    if before == DUE or not left:
        raise RuntimeError(f"There was no backlog all the time: {before} due at first, {left} in the end.")
    for name in ("p50", "p99"):
        for when, values in waits.items():
            found[f"{when}_{name}"] = percentile(values, float(f"0.{name[1:]}"))
        found[f"added_{name}"] = found[f"beside_{name}"] - found[f"alone_{name}"]
    return found | {"rate": (before - left) / (MESSAGES * EVERY)}


if __name__ == "__main__":
    report("neighbours", FIGURES, measure, about=f"{DUE:,} due deliveries, ")
