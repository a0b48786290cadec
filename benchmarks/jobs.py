"""What the benchmarks of the engine do inside the platform, called by `benchmarks.common.inside` with strings."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

#: Outcomes of a baseline that are not counted. After 250 results django-q also begins to drop old ones.
WARM_UP = 300
#: How long a job waits for what it waits for, seconds.
PATIENCE = 300.0


def prepare(address: str, count: str, number: str, also: str = "", apart: str = "") -> dict[str, Any]:
    """`count` endpoints at `address` (and one at `also`) with `number` events in equal parts, while no engine runs.

    With `apart`, each event has a conversation of its own, so that order keeps none back. "after" is the newest
    delivery there was, "organisations" are the endpoints' owners.
    """
    from django.db.models import F
    from django_q.models import OrmQ

    from benchmarks import common
    from conversations.models import Event
    from core.models import Slot
    from webhooks.signals import LOOP

    chosen = common.endpoints(address, count) + (common.endpoints(also, "1") if also else [])
    found = common.events(number, *map(str, chosen))
    if apart:
        Event.objects.filter(undispatched__isnull=False).update(conversation_id=-F("pk"))
    # The engine starts when `drained` says, whatever an earlier one or these events have queued.
    OrmQ.objects.filter(key=LOOP).delete()
    Slot.objects.filter(name=LOOP).delete()
    return {**found, "organisations": chosen}


def forget(address: str) -> dict[str, int]:
    """Send no longer to the endpoints at `address`, whatever is due to them. Returns how many "paused" there are."""
    from webhooks.models import Webhook

    found = Webhook.objects.filter(callback_url__startswith=address)
    return {"paused": found.update(state=Webhook.State.PAUSED)}


def ensure() -> dict[str, int]:
    """Queue the engine's start."""
    from core import loops
    from webhooks.signals import LOOP

    return {"queued": loops.ensure(LOOP)}


def drained(number: str, after: str, engine: str, receiver: str = "0", database: str = "0") -> dict[str, float]:
    """Start the engine and wait until so many deliveries made after one are done.

    Returns their "rate" from fan-out to the last outcome written, and the CPU time in µs that each took of the process
    groups `engine` and `receiver` and of the server that the process `database` leads.
    """
    from django.db import connection
    from django.db.models import Count, Max, Min, Sum

    from benchmarks.processes import cpu_seconds, server_cpu_seconds
    from webhooks.models import Delivery, EngineTotal

    def used() -> dict[str, float]:
        server = server_cpu_seconds(int(database)) if int(database) else 0.0
        return {"engine": cpu_seconds(int(engine)), "receiver": cpu_seconds(int(receiver)), "database": server}

    def told() -> int:
        # The engine's own count: looking for the rows would take the database a share of what is measured.
        return EngineTotal.objects.aggregate(sum=Sum("delivered"))["sum"] or 0

    done = Delivery.objects.filter(pk__gt=int(after), state="delivered")
    before = used()
    with connection.cursor() as cursor:
        # The engine may be at work already. In one statement, as both are written in one transaction.
        cursor.execute(
            "SELECT COALESCE(SUM(delivered), 0) - ("
            "SELECT COUNT(*) FROM webhooks_delivery WHERE id > %s AND state = 'delivered'"
            ") FROM webhooks_enginetotal",
            [int(after)],
        )
        delivered_before = cursor.fetchone()[0]
    ensure()
    _wait_until(lambda: told() - delivered_before >= int(number))
    cpu = {name: (value - before[name]) / int(number) * 1_000_000 for name, value in used().items()}
    _wait_until(lambda: done.count() >= int(number))
    found = done.aggregate(first=Min("created_at"), last=Max("finished_at"), count=Count("pk"))
    return {"rate": found["count"] / (found["last"] - found["first"]).total_seconds(), **cpu}


def idle(count: str, least: str, most: str, silent: str = "") -> dict[str, float]:
    """Record events one at a time, `least` to `most` seconds apart; `webhook-id` → when its commit was done.

    The first does not count: who records it has yet to connect to whatever tells of it. With `silent`, the wake-ups
    that follow the commits are lost.
    """
    from django.db import transaction

    from conversations.actions import receive_message
    from conversations.models import Channel, Event
    from core import wakeup
    from webhooks.models import Webhook
    from webhooks.payloads import message_id

    if silent:
        wakeup.send = lambda name, topic="": None
    channel = Channel.objects.latest("id")
    webhook = Webhook.objects.get(organisation=channel.organisation)
    committed = {}
    moments: list[float] = []
    for number in range(int(count) + 1):
        time.sleep(random.uniform(float(least), float(most)))
        with transaction.atomic():
            # Before the wake-up, which follows the commit as well.
            transaction.on_commit(lambda: moments.append(time.time()))
            message = receive_message(channel=channel, address="447700900123", body="Are you there?")
        newest = Event.objects.filter(conversation=message.conversation).latest("seq")
        if number:
            committed[message_id(newest.pk, webhook.pk)] = moments[-1]
    _wait_until_delivered([channel.organisation_id])
    return committed


def steady(seconds: str, a_second: str, hanging: str, *organisations: str) -> dict[str, float]:
    """Record an event for each organisation, all in one commit, so many times a second; `webhook-id` → when.

    The organisation `hanging`, "" for none, also gets its events, but nothing is told of them. Waits until all others
    are delivered. "When" is when its commit was done.
    """
    from benchmarks import common
    from conversations.models import Event
    from core import wakeup
    from webhooks.models import Webhook
    from webhooks.payloads import message_id
    from webhooks.signals import LOOP

    everybody = [*organisations, hanging] if hanging else organisations
    others = [int(pk) for pk in organisations]
    newest = Event.objects.latest("id").pk
    committed: dict[float, float] = {}
    following = time.monotonic()
    deadline = following + float(seconds)
    while following < deadline:
        time.sleep(max(0.0, following - time.monotonic()))
        following += 1 / float(a_second)
        recorded = common.events(str(len(everybody)), *everybody)
        committed[recorded["at"]] = recorded["committed"]
        wakeup.send(LOOP)
    _wait_until_delivered(others)
    webhooks = dict(Webhook.objects.values_list("organisation_id", "pk"))
    made = Event.objects.filter(pk__gt=newest, organisation__in=others).values_list(
        "pk", "organisation_id", "created_at"
    )
    return {message_id(pk, webhooks[owner]): committed[at.timestamp()] for pk, owner, at in made}


def _wait_until(done: Callable[[], bool]) -> None:
    """Look every quarter of a second. Raises `TimeoutError` when patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"It was not done within {PATIENCE} s.")
        time.sleep(0.25)


def _wait_until_delivered(organisations: Sequence[int]) -> None:
    """Until all events have their deliveries and none of these organisations' waits."""
    from conversations.models import Undispatched
    from webhooks.models import Delivery

    _wait_until(lambda: not Undispatched.objects.exists())
    _wait_until(lambda: not Delivery.objects.filter(organisation__in=organisations, state="pending").exists())


def _chosen(count: str) -> list[int]:
    """The newest deliveries, which the baselines make once more."""
    from webhooks.models import Delivery

    return list(Delivery.objects.order_by("-id").values_list("id", flat=True)[: int(count)])


def _rate(times: Sequence[datetime]) -> dict[str, float]:
    """The rate of what happened at `times`, once warm."""
    ordered = sorted(times)[WARM_UP:]
    return {"rate": (len(ordered) - 1) / (ordered[-1] - ordered[0]).total_seconds()}


def naive(receiver: str, count: str) -> dict[str, int]:
    """Queue one django-q task for each of `count` deliveries, made pending again."""
    from django_q.brokers import get_broker
    from django_q.tasks import async_task

    from webhooks.models import Attempt, Delivery

    chosen = _chosen(count)
    Attempt.objects.filter(delivery_id__in=chosen).delete()
    Delivery.objects.filter(pk__in=chosen).update(state="cancelled", finished_at=None)
    broker = get_broker(list_key="naive")
    for pk in chosen:
        async_task("benchmarks.naive.deliver", pk, f"{receiver}/naive", broker=broker)
    return {"queued": len(chosen)}


def naive_done(count: str) -> dict[str, float]:
    """Wait for the naive tasks, and until django-q has saved their results; the rate of the outcomes they wrote."""
    from django_q.models import OrmQ

    from webhooks.models import Delivery

    done = Delivery.objects.filter(pk__in=_chosen(count), state="delivered")
    _wait_until(lambda: done.count() >= int(count))
    _wait_until(lambda: not OrmQ.objects.filter(key="naive").exists())
    return _rate([at for at in done.values_list("finished_at", flat=True) if at is not None])


def celery(receiver: str, count: str) -> dict[str, int]:
    """Queue django-webhook's task for the same deliveries: each posts and stores its event with what came of it."""
    from django.core.management import call_command
    from django_webhook.models import Webhook, WebhookSecret
    from django_webhook.tasks import fire_webhook

    from webhooks.models import Delivery
    from webhooks.payloads import render

    call_command("migrate", "django_webhook", verbosity=0)
    webhook = Webhook.objects.create(url=f"{receiver}/celery")
    WebhookSecret.objects.create(webhook=webhook, token="a-secret-of-the-usual-length-0123")
    for delivery in Delivery.objects.select_related("event").filter(pk__in=_chosen(count)):
        fire_webhook.delay(webhook.pk, render(delivery.event, delivery.format).decode(), "bench", "bench")
    return {"queued": int(count)}


def celery_done(count: str) -> dict[str, float]:
    """Wait for the Celery tasks; the rate at which they began, which is at which they ended."""
    from django_webhook.models import WebhookEvent

    done = WebhookEvent.objects.filter(status="SUCCESS")
    _wait_until(lambda: done.count() >= int(count))
    return _rate(list(done.values_list("created", flat=True)))


def bare(receiver: str, count: str, times: str) -> dict[str, float]:
    """Post the bytes of the newest deliveries so many times, made and signed beforehand, with nothing but libcurl."""
    from benchmarks.client import post_all
    from benchmarks.naive import prepared
    from webhooks.models import Delivery

    chosen = Delivery.objects.select_related("event", "webhook").filter(pk__in=_chosen(count))
    return {"rate": post_all(f"{receiver}/bare", [prepared(delivery) for delivery in chosen] * int(times))}
