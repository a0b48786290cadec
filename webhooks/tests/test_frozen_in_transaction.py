"""Somebody freezes, or loses power, in the middle of a transaction: the others go on without a human (PostgreSQL)."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from webhooks.tests.endpoint import running_endpoint
from webhooks.tests.running import KEEP_ALIVE, MAKE, Cluster, python, wait_for

HOLD = """
import time
import django
django.setup()
from django.db import transaction
from core.models import Sequence
from webhooks.outstanding import POSITIONS
Sequence.objects.get_or_create(name=POSITIONS)
with transaction.atomic():
    Sequence.objects.select_for_update().get(name=POSITIONS)
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.long
@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one machine")
def test_an_engine_frozen_in_a_transaction_does_not_stop_all_others(environment: dict[str, str]) -> None:
    with running_endpoint() as endpoint:
        python(environment, "-c", MAKE, endpoint.url, "5")
        options = {"env": environment, "cwd": settings.BASE_DIR}
        frozen = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, **options)
        assert frozen.stdout is not None
        assert frozen.stdout.readline().strip() == "held"
        frozen.send_signal(signal.SIGSTOP)
        keep_alive = subprocess.Popen([sys.executable, "-c", KEEP_ALIVE, "deliveries"], **options)
        cluster = Cluster(environment)
        cluster.start()
        try:
            wait_for(endpoint, 10, 60)
        finally:
            cluster.kill()
            for process in (keep_alive, frozen):
                process.kill()
                process.wait()
