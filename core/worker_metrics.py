"""What several web processes count, as one: each has files of its own in a folder, which are read together.

The counts of a process that ended are kept in files of those that are gone, so that totals never go down; its own
files go away, so that the folder stays small however often a worker is replaced.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

#: Where prometheus_client, which reads it when it is imported, keeps the files.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
KINDS = ("counter", "histogram")


@contextmanager
def _locked(folder: Path, mode: int) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, mode)
        yield


def prepare(folder: Path) -> None:
    """Make the folder, without what earlier processes left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder, fcntl.LOCK_EX):
        for left in folder.glob("*.db"):
            left.unlink()


def retire(folder: Path, pid: int) -> None:
    """Add what a process that ended had counted to what the gone ones counted, and remove its files."""
    with _locked(folder, fcntl.LOCK_EX):
        for kind in KINDS:
            ended = folder / f"{kind}_{pid}.db"
            if ended.exists():
                gone = MmapedDict(str(folder / f"{kind}_gone.db"))
                for key, value, timestamp, _position in MmapedDict.read_all_values_from_file(str(ended)):
                    gone.write_value(key, gone.read_value(key)[0] + value, timestamp)
                gone.close()
                ended.unlink()


def told(folder: Path) -> bytes:
    """The counts of all processes together, in Prometheus' text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    with _locked(folder, fcntl.LOCK_SH):
        return generate_latest(registry)
