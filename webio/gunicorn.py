"""gunicorn's configuration file: what the main process does for its workers. Used by `manage.py up`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from core import worker_metrics

#: Workers share what the main process has loaded: two take half the memory, and one that died is replaced at once.
preload_app = True


def when_ready(server: Any) -> None:
    """The port is ours and no worker runs yet: begin to count."""
    if worker_metrics.VARIABLE in os.environ:
        worker_metrics.prepare(Path(os.environ[worker_metrics.VARIABLE]))


def child_exit(server: Any, worker: Any) -> None:
    """A worker ended: keep its counts, not its files. A full disk must not end the others."""
    if worker_metrics.VARIABLE in os.environ:
        try:
            worker_metrics.retire(Path(os.environ[worker_metrics.VARIABLE]), worker.pid)
        except OSError:
            server.log.exception("counts of worker %s are lost", worker.pid)
