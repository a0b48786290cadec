"""`make soak`: rounds of killing, then what came of them.

Exits with 1 when a promise was broken, and without PostgreSQL when that was asked for (`--kind`, `REQUIRE_SERVICES=1`).
"""

from __future__ import annotations

import argparse
import os
import random
import sys

from benchmarks.common import machine
from soak.rounds import play, running_stage
from soak.servers import programs


def main() -> int:
    """Play the rounds that were asked for; 0 when all promises were kept."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="on each database (10)")
    parser.add_argument("--events", type=int, default=20_000, help="in each round (20,000)")
    parser.add_argument("--kills", type=int, default=9, help="in each round, at random points (9)")
    parser.add_argument("--kind", choices=["sqlite", "postgresql"], action="append", help="both, unless given")
    parser.add_argument("--seed", type=int, help="chooses the points; printed when not given")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**9)
    print(f"machine   {machine()}\nseed      {seed}", flush=True)
    broken = 0
    kinds = options.kind or ["sqlite", "postgresql"]
    if "postgresql" in kinds and programs() is None:
        print("postgresql NOT RUN: its server programs are not installed.", flush=True)
        if options.kind or os.environ.get("REQUIRE_SERVICES") == "1":
            return 1
        kinds.remove("postgresql")
    for kind in kinds:
        with running_stage(kind) as stage:
            for number in range(options.rounds):
                report = play(stage, options.events, options.kills, random.Random(f"{seed}/{kind}/{number}"))
                print(f"{kind:<10} round {number + 1}: {report}", flush=True)
                for fault in report.faults[:20]:
                    print(f"           BROKEN: {fault}", flush=True)
                broken += bool(report.faults)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
