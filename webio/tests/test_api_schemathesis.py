"""The running API against its own description: no undocumented answer, no fault of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_django.live_server_helper import LiveServer

from conftest import make_cast
from core.actors import SYSTEM
from webhooks.actions import create_webhook

pytestmark = pytest.mark.long

#: Seconds for all calls together.
TIME = 45
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
)


@pytest.mark.django_db(transaction=True)
def test_every_call_answers_as_documented(live_server: LiveServer, settings: Any, tmp_path: Path) -> None:
    settings.API_RATE_LIMIT = "0"
    settings.EVENTS_WAIT_SECONDS = 0
    cast = make_cast("acme")
    create_webhook(
        organisation=cast.organisation,
        actor=SYSTEM,
        name="orders",
        callback_url="https://hooks.example.invalid/in",
        events=["inboundMessage"],
    )
    command = [
        *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{live_server.url}/api/v1/openapi.json"),
        *("--header", f"Authorization: Bearer {cast.key}"),
        *("--checks", ",".join(CHECKS)),
        *("--max-examples", "20", "--max-time", str(TIME), "--request-timeout", "20"),
        *("--seed", "1", "--no-color", "--continue-on-failure"),
    ]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIME * 4,
    )
    print(run.stdout[-3_000:])
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-2_000:]
