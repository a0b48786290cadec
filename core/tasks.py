"""What django-q calls for the platform itself, and the schedules that make it do so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.apps import AppConfig
from django.db.models import QuerySet
from django_q.models import Schedule, Task

from core import loops, retention

RETENTION = "core.tasks.retain"
#: How long results of tasks (failures, mostly) are kept.
RESULTS_KEPT = timedelta(days=7)


def retain() -> dict[str, int]:
    """Delete what has expired; queue another run when there was more than one run's work. Returns counts."""
    deleted, done = retention.run()
    if not done:
        loops.enqueue(RETENTION, "webio")
    return deleted


def task_results(moment: datetime) -> Iterator[QuerySet[Any]]:
    """Results of django-q's tasks."""
    yield Task.objects.filter(stopped__lt=moment - RESULTS_KEPT)


def install_schedules(sender: AppConfig, using: str, **_: Any) -> None:
    """`post_migrate` receiver: the schedule of retention, once, however often it is called."""
    if sender.name != "django_q":
        return
    schedules = Schedule.objects.using(using).filter(func=RETENTION)
    if not schedules.exists():
        Schedule.objects.using(using).create(name="retention", func=RETENTION, schedule_type=Schedule.HOURLY)


retention.register(retention.Policy("taskResults", task_results))
