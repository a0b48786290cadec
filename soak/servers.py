"""Databases of our own that may be killed: a file, or a PostgreSQL server on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import free_port

#: A server that was killed is up again after so many seconds at most, its old processes gone.
START_SECONDS = 30.0
_OTHERS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def programs() -> Path | None:
    """The newest folder with PostgreSQL's server programs, None when there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: [int(part) for part in path.parent.name.split(".")]
    )
    with_server = [folder for folder in folders if (folder / "initdb").exists() and (folder / "pg_ctl").exists()]
    return with_server[-1] if with_server else None


class Sqlite:
    """A database in a file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "soak.sqlite3"
        self.url = f"sqlite:///{self.path}"

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute one statement outside the platform."""
        connection = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


class Postgresql:
    """A PostgreSQL server with its data in `folder` and `settings` of its own, such as "fsync = off".

    `segment` is the size of its log's files, MiB.
    """

    def __init__(self, folder: Path, binaries: Path, *settings: str, segment: int = 16) -> None:
        self.binaries = binaries
        self.data = folder / "data"
        self.log = folder / "log"
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        if os.geteuid() == 0:
            # The server refuses to run as root.
            server = pwd.getpwnam("postgres")
            os.chown(folder, server.pw_uid, server.pw_gid)
        account = ["-U", "postgres", "-A", "trust"]
        how = ["-E", "UTF8", f"--wal-segsize={segment}", "--no-sync", "--no-instructions"]
        self._do("initdb", "-D", str(self.data), *account, *how)
        where = [f"port = {self.port}", "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''"]
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in (*where, *settings))
        self.start()

    def _do(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        user = "postgres" if os.geteuid() == 0 else None
        done = subprocess.run(
            command,
            user=user,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.decode()[-500:]}")

    def _start(self) -> None:
        self._do("pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.log))

    def start(self) -> None:
        """Start it, again and again until what a killed one left in memory is gone."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._start()
                return
            except RuntimeError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)

    def look_after(self) -> None:
        """Until it answers, start it whenever it has ended, as a service manager does."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                self.rows("SELECT 1")
                return
            with contextlib.suppress(RuntimeError):
                self._start()
            time.sleep(0.2)
        raise RuntimeError("The server does not answer.")

    def stop(self) -> None:
        """Stop it at once, as an administrator in a hurry would."""
        self._do("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.data))

    def restart(self) -> None:
        """`pg_ctl restart -m immediate`: no connection is asked."""
        self._do("pg_ctl", "restart", "-w", "-m", "immediate", "-D", str(self.data), "-l", str(self.log))

    def kill(self) -> int:
        """SIGKILL to the server and all its processes; how many they were. It stays down."""
        leader = int((self.data / "postmaster.pid").read_text().split()[0])
        return kill_all([leader, *children(leader)])

    def kill_one(self) -> int:
        """SIGKILL to one process that serves a connection. The server ends all others and recovers by itself.

        Returns whether there was one.
        """
        # It may just be recovering.
        with contextlib.suppress(Exception):
            return kill_all([row[0] for row in self.rows(f"SELECT pid {_OTHERS} LIMIT 1")])
        return 0

    def terminate_all(self) -> int:
        """End every connection but our own; how many there were."""
        with contextlib.suppress(Exception):
            return len(self.rows(f"SELECT pg_terminate_backend(pid) {_OTHERS}"))
        return 0

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute one statement outside the platform."""
        import psycopg

        with psycopg.connect(self.url.replace("postgres:", "postgresql:", 1), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []


def kill_all(pids: list[int]) -> int:
    """SIGKILL to processes; how many of them there were."""
    killed = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(") ")[2].split()
            if int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@contextmanager
def own_postgresql(*settings: str, where: Path | None = None, segment: int = 16) -> Iterator[Postgresql]:
    """A PostgreSQL server of our own, which ends with the block, with its data on the disk of `where`. Raises
    `RuntimeError` where its programs are not installed."""
    binaries = programs()
    if binaries is None:
        raise RuntimeError("PostgreSQL's server programs are not installed.")
    with tempfile.TemporaryDirectory(prefix="webio-pg-", dir=where, ignore_cleanup_errors=True) as folder:
        server = Postgresql(Path(folder), binaries, *settings, segment=segment)
        try:
            yield server
        finally:
            with contextlib.suppress(RuntimeError):
                server.stop()


@contextmanager
def own_server(kind: str) -> Iterator[Sqlite | Postgresql]:
    """An empty database, "sqlite" or "postgresql", that nobody else uses."""
    if kind == "postgresql":
        with own_postgresql() as server:
            yield server
        return
    with tempfile.TemporaryDirectory(prefix="webio-soak-") as folder:
        yield Sqlite(Path(folder))
