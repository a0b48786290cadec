"""Processes on this machine: their CPU time as /proc tells it, and a Redis server of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.common import clean_up_when_ended, free_port


def cpu_seconds(group: int) -> float:
    """CPU time that a process group has used so far, its ended and awaited children included."""
    return sum(used for _pid, _parent, of_group, used in _processes() if of_group == group)


def server_cpu_seconds(leader: int) -> float:
    """CPU time that a server of one process and its direct children, such as PostgreSQL, has used so far."""
    return sum(used for pid, parent, _group, used in _processes() if leader in (pid, parent))


def members(group: int) -> list[int]:
    """The processes of a process group."""
    return [pid for pid, _parent, of_group, _used in _processes() if of_group == group]


def _processes() -> Iterator[tuple[int, int, int, float]]:
    """(process, its parent, its group, seconds that it and its ended and awaited children have used) of all."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may itself hold spaces and parentheses (proc(5)).
            fields = stat.read_text().rpartition(")")[2].split()
            ticks = sum(int(value) for value in fields[11:15])
            yield int(stat.parent.name), int(fields[1]), int(fields[2]), ticks / os.sysconf("SC_CLK_TCK")


def postgresql_leader(url: str) -> int:
    """The first process of the PostgreSQL server at `url`, 0 when it runs on another machine."""
    import psycopg

    with psycopg.connect(url) as connection:
        backend = connection.info.backend_pid
        found = [
            parent
            for pid, parent, _group, _used in _processes()
            if pid == backend and "postgres" in Path(f"/proc/{pid}/comm").read_text()
        ]
    return found[0] if found else 0


def wait_until_quiet(group: int, share: float = 0.1, seconds: float = 60.0) -> None:
    """Wait until a process group has started: it uses less than a share of one core. At most so many seconds."""
    deadline = time.monotonic() + seconds
    before = cpu_seconds(group)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        used = cpu_seconds(group)
        if before and used - before < share * 0.5:
            return
        before = used


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of an empty Redis server of our own, "" when `redis-server` is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        yield ""
        return
    clean_up_when_ended()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="webio-bench-redis-") as folder:
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait()
