"""CPU time of processes, as /proc tells it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cpu_seconds(group: int) -> float:
    """CPU time that a process group has used so far, its ended and awaited children included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name, in parentheses, may itself hold spaces and parentheses (proc(5)).
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                ticks += sum(int(value) for value in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
