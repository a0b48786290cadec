"""`manage.py qcluster` refuses bad settings and leaves alone what only web servers need."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.conf import settings

from webhooks.tests.running import migrated_sqlite

pytestmark = pytest.mark.once


def ran(*flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """A cluster that works on what is queued and ends."""
    environment = {**os.environ, "DEMO": "1", "DATABASE_URL": f"sqlite:///{migrated_sqlite()}", **changes}
    command = [sys.executable, *flags, "manage.py", "qcluster", "--run-once"]
    return subprocess.run(
        command, env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120, check=False
    )


def test_unsafe_settings_do_not_start() -> None:
    done = ran(API_RATE_LIMIT="many")
    assert done.returncode != 0
    assert "webio.E007" in done.stderr


def test_it_loads_neither_pages_nor_api() -> None:
    done = ran("-X", "importtime")
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"webhooks.tasks", "django_q.cluster"} <= imported
    assert not {"webio.urls", "organisations.api", "organisations.panel", "drf_spectacular.views", "fpdf"} & imported
