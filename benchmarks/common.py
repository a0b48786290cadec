"""What the benchmarks share: the machine they ran on, databases and rows of their own, processes, printed figures.

`python -m benchmarks.common MODULE FUNCTION [ARGUMENT …]` is how `inside` runs a function in a process that has the
platform's settings.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
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


def postgresql_server() -> str:
    """The version and the settings of that server which figures hang on, where they are not PostgreSQL's own."""
    import psycopg

    server = POSTGRESQL.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(server, autocommit=True) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), string_agg(name || ' = ' || setting, ', ' ORDER BY name)"
            " FROM pg_settings WHERE name IN ("
            "'autovacuum', 'fsync', 'full_page_writes', 'max_wal_size', 'shared_buffers', 'synchronous_commit'"
            ") AND setting <> boot_val"
        ).fetchone()
    assert row is not None
    return " with ".join(filter(None, row))


def kinds() -> list[str]:
    """The databases that can be measured here: "sqlite" and, when it is there, "postgresql"."""
    return ["sqlite"] + (["postgresql"] if postgresql_there() else [])


def _end(number: int, _frame: FrameType | None) -> None:
    """SIGTERM leaves every `with` in order; a second one changes nothing."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def clean_up_when_ended() -> None:
    """See that whoever ends this process by SIGTERM ends what it started and drops what it made, as Ctrl-C does."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


@contextmanager
def fresh_database(kind: str) -> Iterator[str]:
    """The URL of an empty, migrated database, "sqlite" or "postgresql", dropped afterwards."""
    clean_up_when_ended()
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
def running(*command: str, env: dict[str, str], stop_signal: int = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, ended with its whole group, also when SIGTERM ends us.

    A cluster of workers ends at once by SIGINT, and late by SIGTERM.
    """
    clean_up_when_ended()
    process = subprocess.Popen(
        [sys.executable, *command], env=env, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, stop_signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        # Whoever of the group is left: its first process may have ended before its workers.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def engine(database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """The delivery engine in its django-q cluster, as `manage.py up` runs it."""
    env = environment(database_url, Q_CLUSTER_NAME="deliveries")
    with running("manage.py", "qcluster", env=env, stop_signal=signal.SIGINT) as process:
        inside(database_url, "benchmarks.jobs", "ensure")
        yield process


@contextmanager
def receiving() -> Iterator[str]:
    """The address of a `benchmarks.receiver`."""
    port = free_port()
    with running("-m", "benchmarks.receiver", str(port), env=environment("")):
        wait_until_answers(f"http://127.0.0.1:{port}/arrivals")
        yield f"http://127.0.0.1:{port}"


def inside(database_url: str, module: str, function: str, *arguments: object, **extra: str) -> Any:
    """What a function returns when it is called, with strings, in a process that has the platform's settings.

    `extra` is more of its environment.
    """
    with calling(database_url, module, function, *arguments, **extra) as process:
        return answer_of(process)


@contextmanager
def calling(
    database_url: str, module: str, function: str, *arguments: object, **extra: str
) -> Iterator[subprocess.Popen[str]]:
    """The same as a process that goes on meanwhile; `answer_of` waits for what it returns."""
    clean_up_when_ended()
    command = [sys.executable, "-m", "benchmarks.common", module, function, *map(str, arguments)]
    env = environment(database_url, **extra)
    process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def answer_of(process: subprocess.Popen[str]) -> Any:
    """What the function in a process of `calling` returned. Raises `RuntimeError` when it failed."""
    output, _nothing = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} failed with {process.returncode}.")
    return json.loads(output.splitlines()[-1])


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


def delays(receiver: str, committed: dict[str, float]) -> list[float]:
    """Milliseconds from each commit (`webhook-id` → `time.time()`) to its first arrival at a receiver.

    A receiver remembers its last 10,000 requests. Raises `RuntimeError` when one is not among them.
    """
    arrived: dict[str, float] = {}
    for identifier, at in get_json(f"{receiver}/arrivals")["arrivals"]:  # type: ignore[attr-defined]
        arrived.setdefault(identifier, at)
    if missing := committed.keys() - arrived.keys():
        raise RuntimeError(f"{len(missing)} of {len(committed)} requests have not arrived.")
    return [(arrived[identifier] - at) * 1000 for identifier, at in committed.items()]


def figure(values: Sequence[float], label: str, target: str = "") -> str:
    """One line: the median, (least-most), what it is and what it should be."""
    digits = 0 if max(values) >= 1000 else 1 if max(values) >= 20 else 2
    spread = f"({min(values):,.{digits}f}-{max(values):,.{digits}f})"
    return f"  {statistics.median(values):10,.{digits}f} {spread:20} {label:60} {target}".rstrip()


@dataclass(frozen=True)
class Figure:
    """A key of what a benchmark measures, what it is, what it should be, and why it may be absent."""

    key: str
    label: str
    sqlite: str = ""
    postgresql: str = ""
    absent: str = ""


def report(
    name: str,
    figures: Sequence[Figure],
    measure: Callable[[str], Mapping[str, float]],
    *,
    databases: Sequence[str] = ("sqlite", "postgresql"),
    about: str = "",
) -> None:
    """A benchmark's command line: measure on each database that is there, or on `--kind`, and print the figures.

    `measure` takes "sqlite" or "postgresql"; `about` says what all figures of a database are about.
    """
    parser = options(name)
    parser.add_argument("--kind", choices=databases, help="only on this database")
    chosen = parser.parse_args()
    print(f"machine   {machine()}")
    for kind in [chosen.kind] if chosen.kind else [kind for kind in kinds() if kind in databases]:
        server = f" {postgresql_server()}" if kind == "postgresql" else ""
        print(f"{kind}{server}, {about}median of {chosen.runs} (least-most)", flush=True)
        runs = [measure(kind) for _ in range(chosen.runs)]
        for one in figures:
            values = [run[one.key] for run in runs if one.key in run]
            target = one.sqlite if kind == "sqlite" else one.postgresql
            if values:
                print(figure(values, one.label, target), flush=True)
            else:
                print(f"  {'-':>10} {'':20} {one.label:60} {one.absent}", flush=True)


def options(name: str) -> argparse.ArgumentParser:
    """The command line of a benchmark: `--runs`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--runs", type=int, default=5, help="how often each figure is measured")
    return parser


# --- inside the platform --------------------------------------------------------------------------------------------

#: Numbers from 1 in SQL that both databases know.
_NUMBERS = "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < %s)"
#: An organisation's latest event of a message stands for all, in 50 conversations that do not exist; organisations take
#: turns.
_EVENTS = """
INSERT INTO {event} (
    organisation_id, conversation_id, contact_id, type, seq, schema_version, data, actor_kind, actor_id, actor_label,
    created_at
)
{numbers}
SELECT organisation_id, conversation_id * 1000000 + %s + i %% 50, contact_id, type, i, 1, data, 'contact', '', '', %s
FROM numbers CROSS JOIN {event} AS sample WHERE sample.id IN (
    SELECT MAX(event.id) FROM conversations_conversation AS conversation
    JOIN {event} AS event ON event.conversation_id = conversation.id AND event.type = 'inboundMessage'
    WHERE {chosen} GROUP BY conversation.organisation_id
) ORDER BY i
"""

_UNDISPATCHED = """
INSERT INTO {undispatched} (event_id, organisation_id) SELECT id, organisation_id FROM {event} WHERE id > %s ORDER BY id
"""


def endpoints(receiver: str, count: str, webhooks: str = "1") -> list[int]:
    """Organisations, each with a channel, `webhooks` webhooks that want what it receives, and one message; their ids.

    All receive at addresses of their own under `receiver`.
    """
    from conversations.actions import create_channel, receive_message
    from core.actors import SYSTEM
    from organisations.models import Organisation
    from webhooks.actions import create_webhook

    made = []
    for number in range(int(count)):
        organisation = Organisation.objects.create(name=f"Bench {number}", slug=f"bench-{time.time_ns()}")
        made.append(organisation.pk)
        channel = create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="Bench")
        for path in range(int(webhooks)):
            create_webhook(
                organisation=organisation,
                actor=SYSTEM,
                name="Bench",
                callback_url=f"{receiver}/{organisation.pk}/{path}",
                events=["inboundMessage"],
            )
        receive_message(channel=channel, address="447700900123", body="A message of the usual length, no more.")
    return made


def events(count: str, *organisations: str) -> dict[str, Any]:
    """Record `count` events that nobody has dispatched, in equal parts for organisations (of `endpoints`; all).

    "after": the newest delivery there was before; "at": their `created_at`; "committed": when that was done.
    """
    from django.db import transaction

    from conversations.models import Event
    from core.clock import now
    from organisations.models import Organisation
    from webhooks.engine import sql
    from webhooks.models import Delivery

    chosen = [int(pk) for pk in organisations] or list(Organisation.objects.values_list("pk", flat=True))
    newest = Delivery.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    statement = _EVENTS.replace("{numbers}", _NUMBERS).replace("{chosen}", sql.among("conversation.organisation_id"))
    # Conversations of their own each millisecond, further apart than organisations': sequence numbers begin anew.
    batch = time.time_ns() // 1_000_000 % 9_000_000 * 1_000_000_000_000
    latest = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    at = now()
    with transaction.atomic():
        sql.run(statement, [int(count) // len(chosen), batch, sql.moment(at), sql.numbers(chosen)])
        # Nobody else records events of benchmarks.
        sql.run(_UNDISPATCHED, [latest])
    return {"after": newest, "at": at.timestamp(), "committed": time.time()}


def fan_out() -> dict[str, int]:
    """Make the deliveries of all events that wait, as the engine does, while no engine runs."""
    from webhooks.engine import dispatch

    made = 0
    while taken := dispatch.dispatch(wait=True).events:
        made += taken
    return {"events": made}


def vacuum() -> dict[str, bool]:
    """What a database does for itself from time to time: dead rows go, the planner learns what there is, and what was
    written before what is measured gets to the disk."""
    from django.db import ProgrammingError, connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM ANALYZE")
            # Not every role may.
            with suppress(ProgrammingError):
                cursor.execute("CHECKPOINT")
        else:
            cursor.execute("ANALYZE")
    return {"done": True}


def _called() -> None:
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webio.settings")
    django.setup()
    module, function, *arguments = sys.argv[1:]
    print(json.dumps(getattr(importlib.import_module(module), function)(*arguments)))


if __name__ == "__main__":
    _called()
