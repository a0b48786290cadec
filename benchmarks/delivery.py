"""Deliveries per second end to end, beside the ways everybody begins with, and how soon one is sent when all is idle.

`python -m benchmarks.delivery [--kind sqlite|postgresql] [--runs N]` prints the median (least-most) of each figure,
beside what it should be. It runs the real engine in a real django-q cluster. Events are recorded through the same table
the verbs write to; a delivery counts when its attempt and outcome are in the database. CPU is what all processes of the
engine's cluster, of the database server and of the receiver use while a backlog is delivered.

What an endpoint that hangs costs the others is compared with the mean of a backlog without it right before and one
right after, in the same database: a minute later the speed of a shared machine is another.

Times when idle are from the end of a commit to the arrival at the receiver: with the database's wake-ups, with those of
Redis as broker, and, with Redis, when each wake-up is lost, so that only polls find the event.

The rate is compared with one django-q task per delivery which posts with `requests`, on django-q's defaults and without
its saving of results (`save_limit`); with django-webhook's Celery tasks, Redis as broker, database connections used
again; and with libcurl alone, which posts the same bytes to the same receiver right after the engine has done so, while
that stands still. Of 1,500 tasks the first 300 are not counted: only after 250 does django-q also delete old results,
as it does ever after. Tasks run in two processes.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import Popen

from benchmarks.common import (
    POSTGRESQL,
    Figure,
    delays,
    environment,
    free_port,
    fresh_database,
    inside,
    percentile,
    report,
    running,
    wait_until_answers,
)
from benchmarks.processes import cpu_seconds, postgresql_leader, redis_server, wait_until_quiet

JOBS = "benchmarks.jobs"
ENDPOINTS = 20
#: Enough for eight seconds and more: the first and the last half second are no steady rate.
EVENTS = 160_000
#: What libcurl alone posts: so many requests, so often, as to make them takes longer than to post them.
REQUESTS, TIMES = 20_000, 5
TASKS = 1_500
IDLE_EVENTS = 150
#: Seconds between two events when idle, least and most: after its latest work the engine still looks around for 0.05 s.
IDLE_GAP = (0.06, 0.12)
#: The same where only polls find them: these come every half second.
LOST_EVENTS = 25
LOST_GAP = (0.55, 1.05)
IDLE_SECONDS = 5.0


NO_SERVER = "inside the engine, or on another machine"
NO_REDIS = "not measured: redis-server is not installed"
NO_CELERY = "not measured: needs redis-server, and celery and django-webhook of requirements-dev.txt"
FIGURES = (
    Figure("rate", "deliveries/s, commit to outcome written", ">= 14000", ">= 12000"),
    Figure("cpu_engine", "µs of CPU per delivery, engine"),
    Figure("cpu_database", "µs of CPU per delivery, database server", absent=NO_SERVER),
    Figure("cpu_receiver", "µs of CPU per delivery, receiver"),
    Figure("hanging", "of the rate while one endpoint of 21 hangs", ">= 0.85", ">= 0.85"),
    Figure("idle_p50", "ms, commit to receiver when idle, p50", "<= 5", "<= 3"),
    Figure("idle_p99", "ms, commit to receiver when idle, p99", "<= 15", "<= 10"),
    Figure("redis_p50", "ms, the same with Redis as broker, p50", "<= 3", "<= 3", NO_REDIS),
    Figure("redis_p99", "ms, the same with Redis as broker, p99", "<= 10", "<= 10", NO_REDIS),
    Figure("lost_p50", "ms, the same when wake-ups are lost, p50", "<= 60", "<= 60", NO_REDIS),
    Figure("lost_p99", "ms, the same when wake-ups are lost, p99", "<= 60", "<= 60", NO_REDIS),
    Figure("idle_cpu", "% of a core while nothing happens", "< 3", "< 3"),
    Figure("naive", "deliveries/s, a django-q task each with requests"),
    Figure("naive_ratio", "times that", ">= 90", ">= 90"),
    Figure("unsaved", "deliveries/s, the same with save_limit=-1"),
    Figure("unsaved_ratio", "times that", ">= 28", ">= 28"),
    Figure("celery", "deliveries/s, django-webhook's Celery tasks", absent=NO_CELERY),
    Figure("celery_ratio", "times that", ">= 28", ">= 28", NO_CELERY),
    Figure("bare", "requests/s, libcurl alone"),
    Figure("bare_percent", "% of that", ">= 22", ">= 22"),
)


@contextmanager
def cluster(url: str, **extra: str) -> Iterator[Popen[bytes]]:
    """A django-q cluster for engines that has started and waits. `extra` is more of its environment."""
    env = environment(url, Q_CLUSTER_NAME="deliveries", **extra)
    with running("manage.py", "qcluster", env=env, stop_signal=signal.SIGINT) as process:
        wait_until_quiet(process.pid)
        yield process


@contextmanager
def standing_still(process: Popen[bytes]) -> Iterator[None]:
    """A cluster does nothing for some seconds."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def idle(url: str, receiver: str, name: str, *arguments: object, **extra: str) -> dict[str, float]:
    """Record events while the engine is idle: the times until they arrive, as p50 and p99 in ms."""
    waits = delays(receiver, inside(url, JOBS, "idle", *arguments, **extra))
    return {f"{name}_p50": percentile(waits, 0.5), f"{name}_p99": percentile(waits, 0.99)}


def delivered(kind: str, url: str, receiver: str, receiver_group: int) -> dict[str, float]:
    """The engine's rate and CPU on a backlog, what libcurl alone reaches, the engine's times and CPU when idle."""
    after = inside(url, JOBS, "prepare", receiver, ENDPOINTS, EVENTS)["after"]
    database = postgresql_leader(POSTGRESQL) if kind == "postgresql" else 0
    with cluster(url) as engine:
        found = inside(url, JOBS, "drained", EVENTS, after, engine.pid, receiver_group, database)
        with standing_still(engine):
            bare = inside(url, JOBS, "bare", receiver, REQUESTS, TIMES)["rate"]
        times = idle(url, receiver, "idle", IDLE_EVENTS, *IDLE_GAP)
        time.sleep(0.5)
        began = cpu_seconds(engine.pid)
        time.sleep(IDLE_SECONDS)
        idle_cpu = (cpu_seconds(engine.pid) - began) / IDLE_SECONDS * 100
    cpu = {f"cpu_{name}": found[name] for name in ("engine", "receiver")}
    if database:
        cpu["cpu_database"] = found["database"]
    rates = {"rate": found["rate"], "bare": bare, "bare_percent": found["rate"] / bare * 100}
    return {**rates, "idle_cpu": idle_cpu, **cpu, **times}


def with_redis(url: str, receiver: str, broker: str) -> dict[str, float]:
    """Times when idle with Redis as broker, and when its wake-ups are lost."""
    after = inside(url, JOBS, "prepare", receiver, 1, 1)["after"]
    with cluster(url, BROKER_URL=broker) as engine:
        inside(url, JOBS, "drained", 1, after, engine.pid, BROKER_URL=broker)
        woken = idle(url, receiver, "redis", IDLE_EVENTS, *IDLE_GAP, BROKER_URL=broker)
        lost = idle(url, receiver, "lost", LOST_EVENTS, *LOST_GAP, "silent", BROKER_URL=broker)
    return {**woken, **lost}


def backlog(url: str, receiver: str, hanging: str = "") -> float:
    """The rate of as many deliveries as ever, while an endpoint more at `hanging` gets its part and never answers."""
    # Without clearing away in the background what was before.
    inside(url, "benchmarks.common", "vacuum")
    events = EVENTS // ENDPOINTS * (ENDPOINTS + 1) if hanging else EVENTS
    after = inside(url, JOBS, "prepare", receiver, ENDPOINTS, events, hanging)["after"]
    with cluster(url) as engine:
        found: dict[str, float] = inside(url, JOBS, "drained", EVENTS, after, engine.pid)
    return found["rate"]


def beside_hanging(url: str, receiver: str, before: float) -> float:
    """What is left of the rate beside an endpoint that hangs: of the mean of `before` and of a backlog after it."""
    hanging = backlog(url, receiver, f"{receiver}/hang")
    # What is measured next would not be undisturbed.
    inside(url, JOBS, "forget", f"{receiver}/hang")
    return hanging / statistics.fmean((before, backlog(url, receiver)))


def naive(url: str, receiver: str, save_limit: int) -> float:
    """The rate of one django-q task per delivery."""
    extra = {"DJANGO_SETTINGS_MODULE": "benchmarks.naive_settings", "BENCH_SAVE_LIMIT": str(save_limit)}
    inside(url, JOBS, "naive", receiver, TASKS, **extra)
    env = environment(url, Q_CLUSTER_NAME="naive", **extra)
    with running("manage.py", "qcluster", env=env, stop_signal=signal.SIGINT):
        found: dict[str, float] = inside(url, JOBS, "naive_done", TASKS)
    return found["rate"]


def celery(url: str, receiver: str, broker: str) -> float:
    """The rate of django-webhook's Celery tasks."""
    extra = {"DJANGO_SETTINGS_MODULE": "benchmarks.celery_settings", "BROKER_URL": broker, "PYTHONWARNINGS": "ignore"}
    inside(url, JOBS, "celery", receiver, TASKS, **extra)
    worker = ("-m", "celery", "--app", "benchmarks.celery_app", "--quiet", "worker", "--concurrency", "2")
    env = environment(url, **extra)
    with running(*worker, "--loglevel", "ERROR", env=env, stop_signal=signal.SIGINT):
        found: dict[str, float] = inside(url, JOBS, "celery_done", TASKS, **extra)
    return found["rate"]


def measure(kind: str) -> dict[str, float]:
    """What `FIGURES` names, as far as this machine has what it needs."""
    port = free_port()
    receiver = f"http://127.0.0.1:{port}"
    with (
        running("-m", "benchmarks.receiver", str(port), env=environment("")) as process,
        fresh_database(kind) as url,
        redis_server() as broker,
    ):
        wait_until_answers(f"{receiver}/arrivals")
        found = delivered(kind, url, receiver, process.pid)
        rate = found["rate"]
        found["hanging"] = beside_hanging(url, receiver, rate)
        if broker:
            found |= with_redis(url, receiver, broker)
        found["naive"] = naive(url, receiver, 250)
        found["unsaved"] = naive(url, receiver, -1)
        if broker and importlib.util.find_spec("celery") and importlib.util.find_spec("django_webhook"):
            found["celery"] = celery(url, receiver, broker)
    ratios = {f"{name}_ratio": rate / found[name] for name in ("naive", "unsaved", "celery") if name in found}
    return found | ratios


if __name__ == "__main__":
    report("delivery", FIGURES, measure)
