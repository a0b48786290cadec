"""`manage.py qcluster` refuses bad settings and leaves alone what only web servers need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from webhooks.tests.running import own_database

pytestmark = pytest.mark.once


def ran(folder: Path, *flags: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """A cluster that works on what is queued and ends."""
    command = [sys.executable, *flags, "manage.py", "qcluster", "--run-once"]
    with own_database(folder) as environment:
        return subprocess.run(
            command,
            env={**environment, **changes},
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def test_unsafe_settings_do_not_start(tmp_path: Path) -> None:
    done = ran(tmp_path, API_RATE_LIMIT="many")
    assert done.returncode != 0
    assert "webio.E007" in done.stderr


def test_it_loads_neither_pages_nor_api(tmp_path: Path) -> None:
    done = ran(tmp_path, "-X", "importtime")
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"webhooks.tasks", "django_q.cluster"} <= imported
    assert not {"webio.urls", "organisations.api", "organisations.panel", "drf_spectacular.views", "fpdf"} & imported
