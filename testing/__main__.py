"""`make test`: the tests on SQLite, and on PostgreSQL when it is there; Redis and browser suites likewise.

With REQUIRE_SERVICES=1 a missing service fails instead of being skipped. The last line adds the runs up.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from testing.services import chromium, postgresql, redis

ROOT = Path(__file__).resolve().parent.parent
COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


def run(name: str, database_url: str, *extra: str) -> tuple[int, dict[str, int]]:
    """One pytest run; its exit code and what it counted."""
    print(f"\ntest      ---- {name} ----", flush=True)
    # One more than this machine has processors: many tests wait for others to die, freeze or answer.
    processes = os.environ.get("TEST_PROCESSES", str((os.cpu_count() or 1) + 1))
    command = [sys.executable, "-m", "pytest", "-n", processes, "--dist", "worksteal", "-q", *extra]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "DATABASE_URL": database_url}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for line in process.stdout:
        print(line, end="", flush=True)
        if " in " in line and ("passed" in line or "failed" in line or "error" in line):
            for number, what in COUNTS.findall(line):
                counts["failed" if what.startswith(("fail", "error")) else what] += int(number)
    return process.wait(), counts


def main() -> int:
    """Run what can be run; 0 when nothing failed and nothing required was missing."""
    with postgresql() as postgresql_url:
        return run_all(postgresql_url)


def run_all(postgresql_url: str) -> int:
    """The same, with a PostgreSQL server at this URL, "" for none."""
    required = os.environ.get("REQUIRE_SERVICES") == "1"
    there = {"PostgreSQL": postgresql_url, "Redis": redis(), "Chromium": chromium()}
    for name, found in there.items():
        print(f"test      {name:<12} {'found' if found else 'not found: its tests are skipped'}", flush=True)
    missing = [name for name, found in there.items() if not found]
    if required and missing:
        print(f"test      REQUIRE_SERVICES=1, but these are missing: {', '.join(missing)}", flush=True)
        return 1
    runs = [run("SQLite", "sqlite:///:memory:", *sys.argv[1:])]
    if postgresql_url:
        runs.append(run("PostgreSQL", postgresql_url, "-m", "not once", *sys.argv[1:]))
    total = {what: sum(counts[what] for _code, counts in runs) for what in ("passed", "failed", "skipped")}
    print(f"\n{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped", flush=True)
    return max(code for code, _counts in runs)


if __name__ == "__main__":
    sys.exit(main())
