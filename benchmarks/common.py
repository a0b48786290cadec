"""What the benchmarks share: the machine they ran on, databases of their own, processes and percentiles."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
POSTGRESQL = os.environ.get("BENCH_POSTGRESQL_URL", "postgres://postgres@127.0.0.1:5432/webio_bench")


def machine() -> str:
    """One line about where the figures come from."""
    model = "unknown CPU"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def environment(database_url: str, **extra: str) -> dict[str, str]:
    """The environment of a platform under test: demo defaults, this machine reachable, no rate limit."""
    return {
        **os.environ,
        "DEMO": "1",
        "DATABASE_URL": database_url,
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
        "API_RATE_LIMIT": "0",
        "LOG_LEVEL": "WARNING",
        **extra,
    }


def postgresql_there() -> bool:
    """Whether a PostgreSQL server answers where `BENCH_POSTGRESQL_URL` says."""
    parts = urlsplit(POSTGRESQL)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5432), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def fresh_database(kind: str) -> Iterator[str]:
    """The URL of an empty, migrated database, "sqlite" or "postgresql", dropped afterwards."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="webio-bench-") as folder:
            url = f"sqlite:///{folder}/bench.sqlite3"
            manage(url, "migrate", "--verbosity", "0")
            yield url
        return
    import psycopg

    name = urlsplit(POSTGRESQL).path.removeprefix("/")
    server = POSTGRESQL.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
        manage(POSTGRESQL, "migrate", "--verbosity", "0")
        try:
            yield POSTGRESQL
        finally:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def manage(database_url: str, *arguments: str) -> str:
    """Run a management command; returns what it printed."""
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    done = subprocess.run(
        command, env=environment(database_url), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def bootstrap(database_url: str, name: str = "Bench") -> dict[str, str]:
    """A ready organisation: what `manage.py bootstrap --json` prints."""
    arguments = ("--organisation", name, "--email", "owner@bench.example", "--password", "bench-password", "--json")
    made: dict[str, str] = json.loads(manage(database_url, "bootstrap", *arguments))
    return made


@contextmanager
def running(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, ended with its whole group."""
    process = subprocess.Popen(
        [sys.executable, *command], env=env, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get_json(url: str) -> dict[str, object]:
    """The JSON answer of one of our own benchmark processes."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: dict[str, object] = json.loads(answer.read())
    return found


def wait_until_answers(url: str, seconds: float = 60) -> None:
    """Raises `TimeoutError` when `url` does not answer 2xx in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer within {seconds} s.")


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
