"""A replay whose cluster is killed with SIGKILL at random moments makes every delivery once, in order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import pytest
from django.conf import settings

from webhooks.tests.running import KEEP_ALIVE, MAKE, Cluster, python
from webhooks.tests.test_survive_kills import EXPIRE

EVENTS = 600
KILLS = 3

BEGIN = """
import django
django.setup()
from core.actors import SYSTEM
from core.clock import now
from webhooks.engine.dispatch import dispatch
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.replay import start_replay
dispatch()
Delivery.objects.update(state="failed", finished_at=now())
Outstanding.objects.all().delete()
start_replay(webhook=Webhook.objects.get(name="0"), actor=SYSTEM, rate=200)
"""

#: Ends when the replay has made so many.
REACHED = """
import sys, time
import django
django.setup()
from webhooks.models import Replay
deadline = time.monotonic() + 40
while (replay := Replay.objects.get()).made < int(sys.argv[1]):
    assert time.monotonic() < deadline, f"{replay.made} made"
    time.sleep(0.01)
"""

FOUND = """
import json
import time
import django
django.setup()
from webhooks.models import Delivery, Replay
deadline = time.monotonic() + 20
while (replay := Replay.objects.get()).state != "done" and time.monotonic() < deadline:
    time.sleep(0.1)
wanted = Delivery.objects.filter(webhook=replay.webhook, kind="event").order_by("event_id")
made = Delivery.objects.filter(kind="replay").order_by("created_at", "id")
print(json.dumps({
    "state": replay.state, "total": replay.total, "made": replay.made,
    "wanted": list(wanted.values_list("event_id", flat=True)),
    "events": list(made.values_list("event_id", flat=True)),
    "webhooks": list(made.order_by().values_list("webhook__name", flat=True).distinct()),
}))
"""


@pytest.mark.long
def test_a_replay_makes_everything_once_though_its_cluster_is_killed_again_and_again(
    environment: dict[str, str],
) -> None:
    environment = {**environment, "Q_CLUSTER_NAME": "webio"}
    python(environment, "-c", MAKE, "http://127.0.0.1:9", str(EVENTS))
    python(environment, "-c", BEGIN)
    command = [sys.executable, "-c", KEEP_ALIVE, "replays"]
    keep_alive = subprocess.Popen(command, env=environment, cwd=settings.BASE_DIR)
    cluster = Cluster(environment)
    chance = random.Random()
    try:
        for number in range(1, KILLS + 1):
            cluster.start()
            python(environment, "-c", REACHED, str(number * EVENTS // 6))
            time.sleep(chance.random() / 5)
            cluster.kill()
            python(environment, "-c", EXPIRE)
        cluster.start()
        python(environment, "-c", REACHED, str(EVENTS))
        found = json.loads(python(environment, "-c", FOUND))
    finally:
        cluster.kill()
        keep_alive.kill()
        keep_alive.wait()
    assert (found["state"], found["total"], found["made"]) == ("done", EVENTS, EVENTS)
    assert found["events"] == found["wanted"]
    assert found["webhooks"] == ["0"]
