"""`manage.py up` with everything it runs, and ways to kill its parts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import ROOT, environment, free_port, wait_until_answers
from soak.servers import children, kill_all

#: Part of `manage.py up` → what its main process has on its command line or in its environment.
PARTS = {"web": b"gunicorn", "engine": b"Q_CLUSTER_NAME=deliveries\0"}


class Platform:
    """A running platform on a database."""

    def __init__(self, database_url: str, counts: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        values = {"LOG_LEVEL": "CRITICAL", "PROMETHEUS_MULTIPROC_DIR": str(counts)}
        command = [sys.executable, "manage.py", "up", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, env=environment(database_url, **values), cwd=ROOT, stderr=subprocess.DEVNULL
        )

    def pids(self, part: str) -> list[int]:
        """Processes of a part, its main process first; none while it is being started."""
        mark = PARTS[part]
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                about = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
                if mark in about and os.getpgid(pid) == pid:
                    return [pid, *(child for child in family(pid) if os.getpgid(child) == pid)]
        return []

    def kill(self, part: str, chance: random.Random) -> int:
        """SIGKILL to all processes of a part at once, or to one of them; how many were killed."""
        pids = self.pids(part)
        if not pids:
            return 0
        return kill_all(pids if chance.random() < 0.6 else [chance.choice(pids)])


def family(pid: int) -> list[int]:
    """All descendants of a process."""
    found = []
    for child in children(pid):
        found += [child, *family(child)]
    return found


@contextmanager
def running_platform(database_url: str, counts: Path) -> Iterator[Platform]:
    """A platform that answers, until the block ends."""
    platform = Platform(database_url, counts)
    try:
        wait_until_answers(f"{platform.url}/readyz")
        yield platform
    finally:
        platform.process.send_signal(signal.SIGTERM)
        try:
            platform.process.wait(30)
        except subprocess.TimeoutExpired:
            platform.process.kill()
            platform.process.wait()
