"""`make bench`: every figure, for SQLite and, when it is there, PostgreSQL.

`python -m benchmarks [--runs N] [--rows N]`; the exit code is 1 when a benchmark failed.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import api
from benchmarks.common import ROOT, clean_up_when_ended, figure, kinds, machine, options

#: From what everybody asks first to what takes longest.
BENCHMARKS = ("delivery", "endpoints", "recording", "neighbours", "sqlite_writer", "memory", "growth")


def accepted(runs: int) -> None:
    """What the API takes in."""
    for kind in kinds():
        found = [api.measure(kind) for _ in range(runs)]
        for name, label in (
            ("rate", "messages/s accepted through the API"),
            ("p50", "ms that one call takes, p50"),
            ("p99", "ms that one call takes, p99"),
        ):
            print(figure([one[name] for one in found], f"{label}, {kind}"), flush=True)


def run(name: str, *arguments: str) -> bool:
    """Run a benchmark in a process of its own, which is ended with us. Returns whether it was good."""
    print(f"\n{name}", flush=True)
    process = subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT)
    try:
        return process.wait() == 0
    except KeyboardInterrupt:
        # It has heard the same, and cleans up.
        process.wait()
        raise
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def main() -> None:
    """Print everything."""
    parser = options("__main__")
    parser.prog = "python -m benchmarks"
    parser.add_argument("--rows", type=int, default=1_000_000, help="finished deliveries in the tables, for growth")
    chosen = parser.parse_args()
    clean_up_when_ended()
    print(f"machine   {machine()}")
    if len(kinds()) == 1:
        print("PostgreSQL does not answer at BENCH_POSTGRESQL_URL: only SQLite is measured.")
    print("\napi", flush=True)
    accepted(chosen.runs)
    runs = ("--runs", str(chosen.runs))
    failed = [
        name for name in BENCHMARKS if not run(name, *runs, *(("--rows", str(chosen.rows)) if name == "growth" else ()))
    ]
    if failed:
        print(f"Failed: {', '.join(failed)}.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
