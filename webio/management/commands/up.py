"""`manage.py up`: the web server and the workers as one supervised process tree."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections
from django.db.migrations.executor import MigrationExecutor

from core import loops
from core.supervisor import Part, Supervisor
from core.worker_metrics import VARIABLE
from webio import ports


class Command(BaseCommand):
    help = "Run web server and workers as one supervised process tree. Ctrl-C or SIGTERM ends it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--clusters", type=int, default=None, metavar="N", help="delivery drains (SQLite: 1)")
        parser.add_argument("--web-workers", type=int, default=None, help="web processes (default 2)")
        parser.add_argument("--threads", type=int, default=16, help="threads of each web process")

    def handle(self, *args: Any, **options: Any) -> None:
        # The guardian and the parts find our modules and the database of a relative path from here.
        os.chdir(settings.BASE_DIR)
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise CommandError("The database is not up to date. Run `manage.py migrate` (or `bootstrap`) first.")
        drains = options["clusters"] or settings.DELIVERY_DRAINS
        if drains < 1:
            raise CommandError("--clusters must be at least 1.")
        if settings.SQLITE and drains > 1:
            self.say("SQLite has one writer: running one delivery drain.")
            drains = 1
        # For the keep-alive, which asks for as many starts as there are drains.
        settings.DELIVERY_DRAINS = drains
        workers = options["web_workers"] or 2
        ports.claim(options["host"], options["port"])
        supervisor = Supervisor(self.parts(options, drains, workers), self.say, self.keep_alive)
        self.say(f"web on http://{options['host']}:{options['port']}, {drains} delivery drain(s)")
        supervisor.run()
        shutil.rmtree(self.counts_folder(options), ignore_errors=True)
        self.say("stopped")

    def parts(self, options: dict[str, Any], drains: int, workers: int) -> list[Part]:
        """Web server, default cluster, delivery cluster."""
        manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
        web = [
            *(sys.executable, "-m", "gunicorn", "webio.wsgi:application"),
            *("--config", "python:webio.gunicorn"),
            *("--bind", f"{options['host']}:{options['port']}"),
            *("--worker-class", "webio.web_worker.Worker"),
            *("--workers", str(workers), "--threads", str(options["threads"])),
            *("--keep-alive", "30", "--graceful-timeout", "5", "--log-level", "warning"),
        ]
        shared = {"DELIVERY_DRAINS": str(drains)}
        counts = {VARIABLE: os.environ.get(VARIABLE) or str(self.counts_folder(options))}
        # A cluster's main process stops on SIGINT and its others ignore it, except for a loop that is running
        # and leaves at once: so the whole group gets it.
        stop: dict[str, Any] = {"stop_signal": signal.SIGINT, "stop_group": True}
        return [
            Part("web", web, {**shared, **counts, "DATABASE_POOL": "1"}),
            Part("tasks", [*manage, "qcluster"], {**shared, "Q_CLUSTER_NAME": "webio"}, **stop),
            Part("deliveries", [*manage, "qcluster"], {**shared, "Q_CLUSTER_NAME": "deliveries"}, **stop),
        ]

    def counts_folder(self, options: dict[str, Any]) -> Path:
        """Where web workers count requests, unless told otherwise: by port, so that two of us do not mix."""
        return Path(settings.BASE_DIR / "var" / f"metrics-{options['port']}")

    def keep_alive(self) -> None:
        """See that every loop has somebody running it. In a thread: a database that hangs must not stop us."""
        if not any(thread.name == "keep-alive" for thread in threading.enumerate()):
            threading.Thread(target=self.ensure_loops, name="keep-alive", daemon=True).start()

    def ensure_loops(self) -> None:
        """Called every few seconds; a failure is said and tried again."""
        close_old_connections()
        for ensure in loops.keepalives:
            try:
                ensure()
            except Exception as error:
                self.say(f"keep-alive failed: {error}")
        close_old_connections()

    def say(self, text: str) -> None:
        """One line on stderr."""
        self.stderr.write(f"up        {text}")
        self.stderr.flush()
