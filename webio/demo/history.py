"""The past deliveries of a sample webhook: its events of the last days, each attempt at them, and their tallies.

Nothing of it was sent. It is what the engine would have written, by its own schedule, for endpoints such as these.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import transaction

from conversations.models import Event
from core.clock import now
from webhooks import outstanding
from webhooks.actions import events_of
from webhooks.engine.schedule import DELAYS
from webhooks.engine.tally import PERIOD_SECONDS
from webhooks.models import DURATION_BOUNDS, DURATION_CLASSES, Attempt, Delivery, Outstanding, Tally, Webhook

#: The same history on every machine.
SEED = 21
#: A sample endpoint that is down has been so for this long: long enough for the first deliveries to have failed.
DOWN_SINCE = timedelta(days=3, hours=12)
#: One that is up was not for a while: (hours ago, hours ago).
OUTAGE = (31, 30)
#: How often one that is up refuses an event for good, and how often it does not answer.
REFUSES, STUMBLES = 0.004, 0.012


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered after so many milliseconds."""

    status: int | None
    milliseconds: int
    error: str = ""
    detail: str = ""
    body: str = ""

    @property
    def accepted(self) -> bool:
        return self.status == 200


def make(webhook: Webhook, *, down: bool) -> int:
    """Write the past of a new webhook whose endpoint is up or `down`. Returns how many deliveries."""
    events = Event.objects.filter(organisation=webhook.organisation, type__in=events_of(webhook)).order_by("pk")
    endpoint = _Endpoint(random.Random(f"{SEED} {webhook.name}"), now(), down)
    with transaction.atomic():
        told = [endpoint.tell(webhook, event) for event in events]
        Delivery.objects.bulk_create([delivery for delivery, _attempts, _due in told], batch_size=500)
        Outstanding.objects.bulk_create([outstanding.of(delivery, due) for delivery, _attempts, due in told if due])
        attempts = []
        for delivery, made, _due in told:
            for attempt in made:
                attempt.delivery = delivery
            attempts += made
        Attempt.objects.bulk_create(attempts, batch_size=500)
        Tally.objects.bulk_create(_tallies(webhook, attempts), batch_size=500)
        _summarise(webhook, attempts, down)
    return len(told)


@dataclass
class _Endpoint:
    """Plays the endpoint: what it answers when, and what the engine does about it."""

    chance: random.Random
    moment: datetime
    down: bool

    def tell(self, webhook: Webhook, event: Event) -> tuple[Delivery, list[Attempt], datetime | None]:
        """A delivery of the event as it stands now, with its attempts and when the next is due."""
        delivery = Delivery(
            organisation_id=event.organisation_id,
            webhook=webhook,
            event=event,
            event_type=event.type,
            conversation_id=event.conversation_id,
            seq=event.seq,
            format=webhook.format,
            created_at=event.created_at,
        )
        ask = self._refuse if not self.down and self.chance.random() < REFUSES else self._ask
        attempts: list[Attempt] = []
        at = event.created_at + timedelta(milliseconds=self.chance.randrange(2, 9))
        while at <= self.moment:
            answer = ask(at)
            attempts.append(self._attempt(delivery, len(attempts) + 1, at, answer))
            delivery.attempt_count += 1
            delivery.last_status_code, delivery.last_error = answer.status, answer.error
            if answer.accepted or len(attempts) > len(DELAYS):
                delivery.state = Delivery.State.DELIVERED if answer.accepted else Delivery.State.FAILED
                delivery.finished_at = at + timedelta(milliseconds=answer.milliseconds)
                return delivery, attempts, None
            at += timedelta(seconds=DELAYS[len(attempts) - 1] * self.chance.uniform(0.9, 1.1))
        return delivery, attempts, at

    def _ask(self, at: datetime) -> Answer:
        ago = self.moment - at
        if self.down and ago < DOWN_SINCE:
            return Answer(503, self._milliseconds(), body='{"error": "warehouse is down"}')
        if not self.down and timedelta(hours=OUTAGE[1]) < ago < timedelta(hours=OUTAGE[0]):
            return Answer(502, self._milliseconds(), body="Bad gateway")
        if self.chance.random() < STUMBLES:
            return Answer(None, 15_000, "timeout", "There was no complete answer in time.")
        return Answer(200, self._milliseconds(), body='{"received": true}')

    def _refuse(self, at: datetime) -> Answer:
        return Answer(422, self._milliseconds(), body='{"error": "unknown customer"}')

    def _milliseconds(self) -> int:
        return min(9_000, int(self.chance.lognormvariate(3.6, 0.6)) + 4)

    def _attempt(self, delivery: Delivery, number: int, at: datetime, answer: Answer) -> Attempt:
        whole = answer.milliseconds
        connect = self.chance.choice((0, 0, 0, 1, 2))
        return Attempt(
            organisation_id=delivery.organisation_id,
            number=number,
            attempted_at=at,
            status_code=answer.status,
            error=answer.error,
            error_detail=answer.detail,
            duration_ms=whole,
            timings={
                "dns": 0,
                "connect": connect,
                "tls": 0,
                "firstByte": whole - 1 if answer.status else 0,
                "total": whole,
            },
            response_headers=[["content-type", "application/json"]] if answer.status else [],
            response_body=answer.body,
        )


def _tallies(webhook: Webhook, attempts: list[Attempt]) -> list[Tally]:
    """What the attempts come to, by the quarter of an hour."""
    counts: dict[int, Counter[str]] = {}
    for attempt in attempts:
        second = int(attempt.attempted_at.timestamp())
        count = counts.setdefault(second - second % PERIOD_SECONDS, Counter())
        count["delivered" if attempt.accepted else "failed"] += 1
        count["duration_ms"] += attempt.duration_ms
        count[DURATION_CLASSES[bisect_left(DURATION_BOUNDS, attempt.duration_ms)]] += 1
    return [
        Tally(
            organisation_id=webhook.organisation_id,
            webhook=webhook,
            period=datetime.fromtimestamp(second, UTC),
            **count,
        )
        for second, count in counts.items()
    ]


def _summarise(webhook: Webhook, attempts: list[Attempt], down: bool) -> None:
    """How the webhook does after all that."""
    webhook.created_at = min((attempt.attempted_at for attempt in attempts), default=now())
    webhook.last_success_at = max((one.attempted_at for one in attempts if one.accepted), default=None)
    webhook.last_failure_at = max((one.attempted_at for one in attempts if not one.accepted), default=None)
    if down:
        since = now() - DOWN_SINCE
        webhook.failing_since, webhook.failing_told = since, 50
        webhook.consecutive_failures = sum(attempt.attempted_at >= since for attempt in attempts)
        webhook.breaker_level, webhook.breaker_until = 8, now() + timedelta(minutes=10)
    webhook.save()
