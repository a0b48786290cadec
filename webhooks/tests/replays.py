"""What tests of replays share: a past to send again, and working a replay off in this process."""

from __future__ import annotations

from typing import Any

from conftest import Cast
from conversations.actions import receive_message
from core.actors import SYSTEM
from webhooks.engine.dispatch import dispatch
from webhooks.models import Delivery, Replay, Webhook
from webhooks.replay import start_replay
from webhooks.replaying import Worker, workable
from webhooks.tests.conftest import finish


def past(cast: Cast, webhook: Webhook, count: int, **changes: Any) -> list[Delivery]:
    """Deliveries of so many inbound messages in three conversations, in the order of their events; all have failed."""
    dispatch()
    before = set(Delivery.objects.values_list("pk", flat=True))
    for number in range(count):
        receive_message(channel=cast.channel, address=f"44770090000{number % 3}", body=str(number))
    dispatch()
    made = Delivery.objects.filter(webhook=webhook).exclude(pk__in=before)
    finish(made, **{"state": "failed", "attempt_count": 10, **changes})
    return list(made.order_by("event_id"))


def begin(webhook: Webhook, **changes: Any) -> Replay:
    """A replay of everything, as fast as it may be."""
    return start_replay(webhook=webhook, actor=SYSTEM, **{"rate": 1000, **changes})


def work_off(replay: Replay, steps: int = 100) -> Replay:
    """Let time pass for a replay until it is over, cannot go on, or so many steps were made."""
    worker = Worker()
    for _ in range(steps):
        found = workable().filter(pk=replay.pk).first()
        if found is None:
            break
        worker.counted_at -= 1.0
        worker.step(found)
    replay.refresh_from_db()
    return replay


def replayed(webhook: Webhook) -> list[Delivery]:
    """What replays have made, in the order in which it is sent."""
    return list(Delivery.objects.filter(webhook=webhook, kind="replay").order_by("created_at", "id"))
