"""`make bench`: every figure, for SQLite and, when it is there, PostgreSQL."""

from __future__ import annotations

from benchmarks import api, delivery
from benchmarks.common import machine, postgresql_there


def main() -> None:
    """Print a table."""
    print(f"machine   {machine()}")
    kinds = ["sqlite"] + (["postgresql"] if postgresql_there() else [])
    if len(kinds) == 1:
        print("PostgreSQL does not answer at BENCH_POSTGRESQL_URL: only SQLite is measured.")
    for kind in kinds:
        print(f"\n{kind}", flush=True)
        accepted = api.measure(kind)
        print(
            f"  messages accepted through the API      {accepted['rate']:9.0f} /s"
            f"   one call p50 {accepted['p50']:.1f} ms, p99 {accepted['p99']:.1f} ms",
            flush=True,
        )
        delivery.show(kind, [delivery.measure(kind)])


if __name__ == "__main__":
    main()
