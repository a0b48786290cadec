"""How much memory the delivery engine takes while it works off a large backlog.

`python -m benchmarks.memory [--kind sqlite|postgresql] [--runs N]` drains 100,000 due deliveries and watches every
process of the engine's cluster. RSS counts pages that forked processes share in each of them, and its peak is the
kernel's own; PSS counts them in equal parts. RSS and PSS also count what is mapped of files, such as a database that
SQLite maps; anonymous memory is the rest. The peaks of these two are the highest of samples.
"""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.common import (
    Figure,
    answer_of,
    calling,
    engine,
    fresh_database,
    inside,
    receiving,
    report,
)
from benchmarks.processes import members

ENDPOINTS = 20
DUE = 100_000
SAMPLE_SECONDS = 0.05

FIGURES = (
    Figure("rss", "MB, peak RSS of an engine's process", "<= 150", "<= 150"),
    Figure("pss", "MB, peak PSS of an engine's process"),
    Figure("anonymous", "MB, peak anonymous memory of an engine's process"),
    Figure("cluster", "MB, peak PSS of all processes of its cluster"),
)


def megabytes(pid: int, file: str, name: str) -> float:
    """A figure of a process's `status` or `smaps_rollup` under /proc."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(leader: int, work: subprocess.Popen[str]) -> dict[str, float]:
    """What `FIGURES` names, of the largest process of a group, until `work` is over."""
    rss: dict[int, float] = {}
    pss = anonymous = cluster = 0.0
    while work.poll() is None:
        now: dict[int, float] = {}
        for pid in members(leader):
            with suppress(OSError):
                now[pid] = megabytes(pid, "smaps_rollup", "Pss")
                rss[pid] = megabytes(pid, "status", "VmHWM")
                anonymous = max(anonymous, megabytes(pid, "status", "RssAnon"))
        pss = max(pss, *now.values(), 0.0)
        cluster = max(cluster, sum(now.values()))
        time.sleep(SAMPLE_SECONDS)
    return {"rss": max(rss.values()), "pss": pss, "anonymous": anonymous, "cluster": cluster}


def measure(kind: str) -> dict[str, float]:
    """What `FIGURES` names."""
    with receiving() as receiver, fresh_database(kind) as url:
        inside(url, "benchmarks.common", "endpoints", receiver, ENDPOINTS)
        after = inside(url, "benchmarks.common", "events", DUE)["after"]
        inside(url, "benchmarks.common", "fan_out")
        inside(url, "benchmarks.common", "vacuum")
        with engine(url) as process, calling(url, "benchmarks.jobs", "drained", DUE, after, process.pid) as work:
            found = watch(process.pid, work)
            answer_of(work)
    return found


if __name__ == "__main__":
    report("memory", FIGURES, measure, about=f"{DUE:,} due deliveries, ")
