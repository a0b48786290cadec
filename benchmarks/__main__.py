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
        found = delivery.measure(kind)
        print(f"  deliveries, commit to outcome written  {found['rate']:9.0f} /s")
        print(f"  one task per delivery with requests    {found['naive']:9.0f} /s   ratio {found['ratio']:.1f}")
        print(
            f"  idle, commit to receiver               p50 {found['idle_p50']:.1f} ms, p99 {found['idle_p99']:.1f} ms"
            f"   ({found['idle_count']:.0f} events)",
            flush=True,
        )


if __name__ == "__main__":
    main()
