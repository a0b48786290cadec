"""A web server that is started without `manage.py up` refuses unsafe settings too."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from django.conf import settings

from webio.tests.test_checks import GOOD_KEY

pytestmark = pytest.mark.once

GOOD = {
    "SECRET_KEY": "x1y2" * 15,
    "FIELD_ENCRYPTION_KEYS": GOOD_KEY,
    "ALLOWED_HOSTS": "webio.example.com",
    "PUBLIC_URL": "https://webio.example.com",
    "DATABASE_URL": "sqlite://:memory:",
}
STRICT = {"DEBUG": "0", "DEMO": "0"}


def started(changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What gunicorn says to the application with these settings."""
    environment = {**os.environ, **STRICT, **GOOD, **changes}
    command = [sys.executable, "-m", "gunicorn", "webio.wsgi:application", "--check-config"]
    return subprocess.run(
        command, env=environment, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=60, check=False
    )


def test_safe_settings_start() -> None:
    done = started({})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        (
            {
                "SECRET_KEY": settings.INSECURE_SECRET_KEY,
                "FIELD_ENCRYPTION_KEYS": "",
                "ALLOWED_HOSTS": "*",
                "API_RATE_LIMIT": "many",
            },
            {"webio.E001", "webio.E002", "webio.E004", "webio.E007"},
        ),
        ({"FIELD_ENCRYPTION_KEYS": "short"}, {"webio.E003"}),
    ],
)
def test_unsafe_settings_do_not_start(changes: dict[str, str], codes: set[str]) -> None:
    done = started(changes)
    assert done.returncode != 0
    assert set(re.findall(r"webio\.E\d+", done.stderr)) == codes
    assert "x1y2" not in done.stderr


def test_the_demo_starts_with_unsafe_ones() -> None:
    unsafe = {"SECRET_KEY": settings.INSECURE_SECRET_KEY, "FIELD_ENCRYPTION_KEYS": "", "ALLOWED_HOSTS": "*"}
    done = started({**unsafe, "DEMO": "1"})
    assert done.returncode == 0, done.stderr
