"""Deliveries per second end to end, and the time from a commit to the receiver when nothing else happens.

`python -m benchmarks.delivery sqlite|postgresql` runs the real engine in a real django-q cluster. Events are recorded
through the same table the verbs write to; a delivery counts when its attempt and outcome are in the database.
The comparison is one django-q task per delivery which posts with `requests`, with django-q's defaults.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.common import (
    ROOT,
    environment,
    free_port,
    fresh_database,
    get_json,
    percentile,
    running,
    wait_until_answers,
)

ENDPOINTS = 20
EVENTS = 10_000
NAIVE_TASKS = 400
IDLE_EVENTS = 150


def inside(url: str, job: str, *arguments: str) -> dict[str, float]:
    """Run a job of `benchmarks.jobs` in a process that has the platform's settings; its JSON answer."""
    command = [sys.executable, "-m", "benchmarks.jobs", job, *arguments]
    done = subprocess.run(command, env=environment(url), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(kind: str) -> dict[str, float]:
    """`{"rate", "idle_p50", "idle_p99", "naive", "ratio"}`: deliveries/s, milliseconds, deliveries/s, rate / naive."""
    port = free_port()
    receiver = f"http://127.0.0.1:{port}"
    with running("-m", "benchmarks.receiver", str(port), env=environment("")), fresh_database(kind) as url:
        wait_until_answers(f"{receiver}/arrivals")
        inside(url, "record", receiver, str(ENDPOINTS), str(EVENTS))
        cluster = environment(url, Q_CLUSTER_NAME="deliveries")
        inside(url, "ensure")
        with running("manage.py", "qcluster", env=cluster):
            drained = inside(url, "drained", str(EVENTS))
            arrived: dict[str, float] = {}
            recorded = inside(url, "idle", str(IDLE_EVENTS))
            time.sleep(0.5)
            for identifier, at in get_json(f"{receiver}/arrivals")["arrivals"]:  # type: ignore[attr-defined]
                arrived.setdefault(identifier, at)
        waits = [
            (arrived[identifier] - at) * 1000
            for identifier, at in recorded["committed"].items()  # type: ignore[attr-defined]
            if identifier in arrived
        ]
        inside(url, "naive", receiver, str(NAIVE_TASKS))
        naive_cluster = environment(url, Q_CLUSTER_NAME="naive", BENCH_NAIVE="1")
        with running("manage.py", "qcluster", "--settings", "benchmarks.naive_settings", env=naive_cluster):
            naive = inside(url, "naive_done", str(NAIVE_TASKS))
    return {
        "rate": drained["rate"],
        "idle_p50": percentile(waits, 0.5),
        "idle_p99": percentile(waits, 0.99),
        "idle_count": len(waits),
        "naive": naive["rate"],
        "ratio": drained["rate"] / naive["rate"],
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or ["sqlite"]:
        print(name, measure(name))
