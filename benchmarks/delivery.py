"""Deliveries per second end to end, and the time from a commit to the receiver when nothing else happens.

`python -m benchmarks.delivery [--kind sqlite|postgresql] [--runs N]` prints the median (least-most) of each figure,
beside what it should be. It runs the real engine in a real django-q cluster. Events are recorded through the same table
the verbs write to; a delivery counts when its attempt and outcome are in the database. The comparison is one django-q
task per delivery which posts with `requests`, with django-q's defaults. Then once more the same with one endpoint more
that never answers and gets every twentieth event.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.common import (
    ROOT,
    environment,
    free_port,
    fresh_database,
    get_json,
    machine,
    percentile,
    postgresql_there,
    running,
    wait_until_answers,
)
from benchmarks.processes import cpu_seconds

ENDPOINTS = 20
EVENTS = 10_000
NAIVE_TASKS = 400
IDLE_EVENTS = 150
IDLE_SECONDS = 5.0

#: Each figure's key in what `measure` returns, its label, and what it should be on SQLite and on PostgreSQL.
FIGURES = (
    ("rate", "deliveries/s, commit to outcome written", ">= 14000", ">= 12000"),
    ("naive", "deliveries/s, one task each with requests", "", ""),
    ("ratio", "times that", ">= 90", ">= 90"),
    ("hanging", "of the rate while one endpoint of 21 hangs", ">= 0.85", ">= 0.85"),
    ("idle_p50", "ms, commit to receiver when idle, p50", "<= 5", "<= 3"),
    ("idle_p99", "ms, commit to receiver when idle, p99", "<= 15", "<= 10"),
    ("idle_cpu", "% of a core while nothing happens", "< 3", "< 3"),
)


def inside(url: str, job: str, *arguments: str) -> dict[str, float]:
    """Run a job of `benchmarks.jobs` in a process that has the platform's settings; its JSON answer."""
    command = [sys.executable, "-m", "benchmarks.jobs", job, *arguments]
    done = subprocess.run(command, env=environment(url), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(kind: str) -> dict[str, float]:
    """What `FIGURES` names, and "idle_count", how many events the times are of."""
    port = free_port()
    receiver = f"http://127.0.0.1:{port}"
    with running("-m", "benchmarks.receiver", str(port), env=environment("")), fresh_database(kind) as url:
        wait_until_answers(f"{receiver}/arrivals")
        inside(url, "record", receiver, str(ENDPOINTS), str(EVENTS))
        cluster = environment(url, Q_CLUSTER_NAME="deliveries")
        inside(url, "ensure")
        with running("manage.py", "qcluster", env=cluster) as engine:
            drained = inside(url, "drained", str(EVENTS))
            arrived: dict[str, float] = {}
            recorded = inside(url, "idle", str(IDLE_EVENTS))
            time.sleep(0.5)
            began = cpu_seconds(engine.pid)
            time.sleep(IDLE_SECONDS)
            idle_cpu = (cpu_seconds(engine.pid) - began) / IDLE_SECONDS * 100
            for identifier, at in get_json(f"{receiver}/arrivals")["arrivals"]:  # type: ignore[attr-defined]
                arrived.setdefault(identifier, at)
        waits = [
            (arrived[identifier] - at) * 1000
            for identifier, at in recorded["committed"].items()  # type: ignore[attr-defined]
            if identifier in arrived
        ]
        disturbed = inside(url, "record", receiver, str(ENDPOINTS), str(EVENTS), "hang")
        with running("manage.py", "qcluster", env=cluster):
            inside(url, "ensure")
            beside = inside(url, "drained", str(EVENTS), str(disturbed["after"]))
        inside(url, "naive", receiver, str(NAIVE_TASKS))
        naive_cluster = environment(url, Q_CLUSTER_NAME="naive", BENCH_NAIVE="1")
        with running("manage.py", "qcluster", "--settings", "benchmarks.naive_settings", env=naive_cluster):
            naive = inside(url, "naive_done", str(NAIVE_TASKS))
    return {
        "rate": drained["rate"],
        "idle_p50": percentile(waits, 0.5),
        "idle_p99": percentile(waits, 0.99),
        "idle_count": len(waits),
        "idle_cpu": idle_cpu,
        "naive": naive["rate"],
        "ratio": drained["rate"] / naive["rate"],
        "hanging": beside["rate"] / drained["rate"],
    }


def line(values: list[float], label: str, target: str) -> str:
    """One figure: the median, (least-most), what it is and what it should be."""
    spread = f"({min(values):.1f}-{max(values):.1f})"
    return f"  {statistics.median(values):10.1f} {spread:22} {label:44} {target}".rstrip()


def show(kind: str, runs: list[dict[str, float]]) -> None:
    """Print a database's figures."""
    for key, label, sqlite, postgresql in FIGURES:
        print(line([run[key] for run in runs], label, sqlite if kind == "sqlite" else postgresql), flush=True)


def main() -> None:
    """Measure what the command line asks for and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.delivery")
    parser.add_argument("--kind", choices=["sqlite", "postgresql"])
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    print(f"machine   {machine()}")
    every = ["sqlite"] + (["postgresql"] if postgresql_there() else [])
    for kind in [chosen.kind] if chosen.kind else every:
        print(f"{kind}, median of {chosen.runs} (least-most)", flush=True)
        show(kind, [measure(kind) for _ in range(chosen.runs)])


if __name__ == "__main__":
    main()
