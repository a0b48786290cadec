"""Real processes of a platform with a database of its own, for tests that kill, starve and flush."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

from webhooks.tests.endpoint import Endpoint

MAKE = """
import sys
import django
django.setup()
from django.db import transaction
from conversations import actions
from core.actors import SYSTEM
from organisations.models import Organisation
from webhooks.actions import create_webhook
url, count = sys.argv[1], int(sys.argv[2])
organisation = Organisation.objects.create(name="Acme", slug="acme")
channel = actions.create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="S")
for number in range(2):
    create_webhook(organisation=organisation, actor=SYSTEM, name=str(number), callback_url=f"{url}/{number}",
                   events=["inboundMessage"])
for number in range(count):
    actions.receive_message(channel=channel, address=f"44771700{number % 30:04}", body=str(number))
"""

LEFT = """
import django
django.setup()
from conversations.models import Undispatched
from webhooks.models import Attempt, Delivery
print(Undispatched.objects.count(), Delivery.objects.exclude(state="delivered").count(),
      Delivery.objects.count(), Attempt.objects.filter(superseded=False).count())
"""


#: As long as its parent lives.
KEEP_ALIVE = """
import os
import sys
import time
import django
parent = os.getppid()
django.setup()
from core import loops
while os.getppid() == parent:
    loops.ensure(sys.argv[1])
    time.sleep(0.5)
"""


@cache
def migrated_sqlite() -> Path:
    """A migrated database, made once for each process."""
    folder = tempfile.mkdtemp(prefix="webio-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    template = Path(folder) / "template.sqlite3"
    python(_environment(f"sqlite:///{template}"), "manage.py", "migrate", "--verbosity", "0")
    return template


@cache
def _postgresql_template(server: str) -> str:
    """The name of a migrated database, made once for each process."""
    import psycopg

    name = f"webio_template_{os.getpid()}"

    def administer(*statements: str) -> None:
        with psycopg.connect(f"postgres:{server}/postgres", autocommit=True) as admin:
            for statement in statements:
                admin.execute(statement)

    drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
    administer(drop, f'CREATE DATABASE "{name}"')
    atexit.register(administer, drop)
    python(_environment(f"postgres:{server}/{name}"), "manage.py", "migrate", "--verbosity", "0")
    return name


@contextmanager
def own_database(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a platform with a migrated database of its own, of the kind the tests run on."""
    if connection.vendor == "sqlite":
        shutil.copy(migrated_sqlite(), folder / "own.sqlite3")
        yield _environment(f"sqlite:///{folder}/own.sqlite3")
        return
    import psycopg

    own = f"webio_run_{os.getpid()}"
    values = connection.settings_dict
    server = f"//{values['USER']}:{values['PASSWORD']}@{values['HOST']}:{values['PORT'] or 5432}"
    template = _postgresql_template(server)
    with psycopg.connect(f"postgres:{server}/postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{own}" TEMPLATE "{template}"')
        try:
            yield _environment(urlunsplit(urlsplit(f"postgres:{server}/{own}")))
        finally:
            admin.execute(f'DROP DATABASE IF EXISTS "{own}" WITH (FORCE)')


def _environment(url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DEMO": "1",
        "DATABASE_URL": url,
        "BROKER_URL": "",
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8",
        "DJANGO_SETTINGS_MODULE": "webio.settings",
        "PYTHONPATH": str(settings.BASE_DIR),
        "Q_CLUSTER_NAME": "deliveries",
    }


def python(environment: dict[str, str], *arguments: str) -> str:
    """Run Python in that environment; what it printed."""
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, env=environment, cwd=settings.BASE_DIR, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


#: Restarts a cluster that ends, as `manage.py up` does. Writes what it says to a file.
SUPERVISED = """
import sys
from core.supervisor import Part, Supervisor
said = open(sys.argv[1], "a", buffering=1)
part = Part("deliveries", [sys.executable, "manage.py", "qcluster"])
Supervisor([part], lambda text: print(text, file=said)).run()
"""


class Cluster:
    """A cluster with its whole family in a process group of its own.

    With `supervisor`, the path of a file for what that says, one that ends is started again.
    """

    def __init__(self, environment: dict[str, str], supervisor: Path | None = None) -> None:
        self.environment = environment
        self.arguments = ["-c", SUPERVISED, str(supervisor)] if supervisor else ["manage.py", "qcluster"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and queue the drain as `manage.py up` would."""
        command = [sys.executable, *self.arguments]
        self.process = subprocess.Popen(command, env=self.environment, cwd=settings.BASE_DIR, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL to all of it at once, or to its supervisor, whose guardian then ends it within half a second."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def wait_for(endpoint: Endpoint, count: int, seconds: float) -> None:
    """Until so many requests have arrived; raises `AssertionError` when they do not."""
    deadline = time.monotonic() + seconds
    while len(endpoint.asked) < count:
        assert time.monotonic() < deadline, f"{len(endpoint.asked)} of {count} requests after {seconds} s"
        time.sleep(0.01)


def seen(endpoint: Endpoint) -> dict[tuple[str, str], list[bytes]]:
    """Bodies by path and `webhook-id`."""
    found: dict[tuple[str, str], list[bytes]] = defaultdict(list)
    for asked in list(endpoint.asked):
        found[asked.path, asked.headers["webhook-id"]].append(asked.body)
    return found
