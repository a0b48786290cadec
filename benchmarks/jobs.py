"""What the delivery benchmark does inside the platform. Each job prints one line of JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import django


def record(receiver: str, endpoints: str, events: str, hanging: str = "") -> dict[str, Any]:
    """Organisations with one webhook each, and events that nobody has dispatched, spread over 50 conversations.

    With `hanging`, a path of the receiver, one webhook more points there. "after" is the newest delivery there was.
    """
    from conversations.actions import create_channel, receive_message
    from conversations.models import Event
    from core.actors import SYSTEM
    from core.clock import now
    from organisations.models import Organisation
    from webhooks.actions import create_webhook
    from webhooks.models import Delivery

    samples = []
    newest = Delivery.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    for number in [*range(int(endpoints)), *([hanging] if hanging else [])]:
        organisation = Organisation.objects.create(name=f"Bench {number}", slug=f"bench-{newest}-{number}")
        channel = create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="Bench")
        create_webhook(
            organisation=organisation,
            actor=SYSTEM,
            name="Bench",
            callback_url=f"{receiver}/{number}",
            events=["inboundMessage"],
        )
        message = receive_message(
            channel=channel, address="447700900123", body="A message of the usual length, no more."
        )
        samples.append(Event.objects.get(conversation=message.conversation, type="inboundMessage"))
    rows = [
        Event(
            organisation_id=sample.organisation_id,
            conversation_id=(sample.conversation_id or 0) * 1_000_000 + number % 50,
            contact_id=sample.contact_id,
            type=sample.type,
            seq=number + 10,
            data=sample.data,
            actor_kind="contact",
            created_at=now(),
        )
        for number in range(int(events) // int(endpoints))
        for sample in samples
    ]
    Event.objects.bulk_create(rows, batch_size=500)
    return {"recorded": len(rows), "after": newest}


def ensure() -> dict[str, Any]:
    """Queue the engine's start."""
    from core import loops

    return {"queued": loops.ensure("deliveries")}


def drained(events: str, after: str = "0") -> dict[str, Any]:
    """Wait until so many deliveries made after one are done; their rate from fan-out to the last outcome written."""
    from django.db.models import Max, Min

    from webhooks.models import Delivery

    done = Delivery.objects.filter(pk__gt=int(after), state="delivered")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and done.count() < int(events):
        time.sleep(0.25)
    found = done.aggregate(first=Min("created_at"), last=Max("finished_at"))
    count = done.count()
    return {"rate": count / (found["last"] - found["first"]).total_seconds(), "count": count}


def idle(count: str) -> dict[str, Any]:
    """Record events one at a time; `webhook-id` → when its commit was done."""
    from conversations.actions import receive_message
    from conversations.models import Channel, Event
    from webhooks.models import Webhook
    from webhooks.payloads import message_id

    channel = Channel.objects.order_by("id")[0]
    webhook = Webhook.objects.get(organisation=channel.organisation)
    committed = {}
    for _ in range(int(count)):
        time.sleep(0.06)
        message = receive_message(channel=channel, address="447700900123", body="Are you there?")
        at = time.time()
        newest = Event.objects.filter(conversation=message.conversation).latest("seq")
        committed[message_id(newest.pk, webhook.pk)] = at
    return {"committed": committed}


def naive(receiver: str, count: str) -> dict[str, Any]:
    """Queue one django-q task for each of `count` deliveries, made pending again."""
    from django_q.brokers import get_broker
    from django_q.tasks import async_task

    from webhooks.models import Attempt, Delivery

    chosen = list(Delivery.objects.order_by("-id").values_list("id", flat=True)[: int(count)])
    Attempt.objects.filter(delivery_id__in=chosen).delete()
    Delivery.objects.filter(pk__in=chosen).update(state="cancelled", finished_at=None)
    broker = get_broker(list_key="naive")
    for pk in chosen:
        async_task("benchmarks.naive.deliver", pk, f"{receiver}/naive", broker=broker)
    return {"queued": len(chosen)}


def naive_done(count: str) -> dict[str, Any]:
    """Wait for the naive tasks; their rate from the first attempt to the last outcome."""
    from django.db.models import Max, Min

    from webhooks.models import Attempt, Delivery

    newest = Delivery.objects.order_by("-id").values("id")[: int(count)]
    chosen = [row["id"] for row in newest]
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        done = Delivery.objects.filter(pk__in=chosen, state="delivered").count()
        if done >= int(count):
            break
        time.sleep(0.25)
    first = Attempt.objects.filter(delivery_id__in=chosen).aggregate(first=Min("attempted_at"))["first"]
    last = Delivery.objects.filter(pk__in=chosen, state="delivered").aggregate(last=Max("finished_at"))["last"]
    return {"rate": done / (last - first).total_seconds(), "count": done}


if __name__ == "__main__":
    os.environ.setdefault(
        "DJANGO_SETTINGS_MODULE", "benchmarks.naive_settings" if sys.argv[1] == "naive" else "webio.settings"
    )
    django.setup()
    jobs = {job.__name__: job for job in (record, ensure, drained, idle, naive, naive_done)}
    print(json.dumps(jobs[sys.argv[1]](*sys.argv[2:])))
