"""The Celery application for django-webhook's tasks, with Redis as its broker.

`celery --app benchmarks.celery_app worker` works them off. Connections to the database are used again.
"""

from __future__ import annotations

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True
# How many tasks a connection is used for: all.
app.conf.CELERY_DB_REUSE_MAX = 1_000_000
app.set_default()
app.autodiscover_tasks(["django_webhook"])
