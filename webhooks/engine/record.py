"""Write down what came of attempts, many at a time, each only while its lease still stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q

from core.clock import now
from core.outbound import Outcome
from webhooks.engine import sql
from webhooks.engine.claim import Claimed
from webhooks.engine.schedule import GONE, next_delay
from webhooks.models import Delivery, Webhook

#: A lease stands on pending deliveries only, so the state need not be asked: asking for 'pending' makes PostgreSQL go
#: through all that is due instead of looking up the rows by their ids.
_WRITE = """
UPDATE {delivery} SET
    state = result.state,
    next_attempt_at = result.next_attempt_at,
    lease_token = NULL,
    attempt_count = result.attempt_count,
    blocks = result.blocks,
    last_status_code = result.status_code,
    last_error = result.error,
    finished_at = result.finished_at
FROM result
WHERE {delivery}.id = result.id AND {delivery}.lease_token = %s
RETURNING {delivery}.id
"""
_RESULT = {
    "id": "bigint",
    "state": "text",
    "next_attempt_at": "timestamptz",
    "attempt_count": "integer",
    "blocks": "boolean",
    "status_code": "smallint",
    "error": "text",
    "finished_at": "timestamptz",
}

_ATTEMPT = {
    "organisation_id": "bigint",
    "delivery_id": "bigint",
    "number": "integer",
    "attempted_at": "timestamptz",
    "status_code": "smallint",
    "error": "text",
    "error_detail": "text",
    "duration_ms": "integer",
    "timings": "jsonb",
    "response_headers": "jsonb",
    "response_body": "text",
    "response_truncated": "boolean",
    "superseded": "boolean",
}
_WRITE_ATTEMPTS = f"INSERT INTO {{attempt}} ({', '.join(_ATTEMPT)}) SELECT {', '.join(_ATTEMPT)} FROM one"

#: A webhook that does well is noted at most this often, so that its row is not rewritten with every flush.
NOTE_EVERY = timedelta(seconds=1)


@dataclass(slots=True)
class Result:
    """One finished attempt and what follows from it."""

    delivery: Claimed
    outcome: Outcome
    attempted_at: datetime
    state: str
    next_attempt_at: datetime | None
    blocks: bool

    @property
    def ended(self) -> bool:
        """No further attempt follows."""
        return self.state != Delivery.State.PENDING


def judge(delivery: Claimed, outcome: Outcome, attempted_at: datetime, strict: bool) -> Result:
    """What follows from an attempt: delivered, tried again later, failed, or held because the endpoint is gone.

    The lane is free after the first attempt, in strict order only after the last.
    """
    if outcome.ok:
        return Result(delivery, outcome, attempted_at, Delivery.State.DELIVERED, None, False)
    if outcome.status == GONE:
        return Result(delivery, outcome, attempted_at, Delivery.State.HELD, None, delivery.blocks)
    at = now()
    delay = next_delay(delivery.attempt_count + 1, outcome, at)
    if delay is None:
        return Result(delivery, outcome, attempted_at, Delivery.State.FAILED, None, False)
    later = at + timedelta(seconds=delay)
    return Result(delivery, outcome, attempted_at, Delivery.State.PENDING, later, delivery.blocks and strict)


def write(results: Sequence[Result], token: int) -> int:
    """Write attempts and outcomes in one transaction. Returns how many outcomes counted.

    An outcome whose lease went to another engine changes nothing; its attempt is kept, marked superseded.
    """
    if not results:
        return 0
    finished = now()
    rows = [
        (
            result.delivery.id,
            str(result.state),
            result.next_attempt_at,
            result.delivery.attempt_count + 1,
            result.blocks,
            result.outcome.status,
            result.outcome.error,
            finished if result.state in (Delivery.State.DELIVERED, Delivery.State.FAILED) else None,
        )
        for result in results
    ]
    given, parameters = sql.rows_of("result", _RESULT, rows)
    with transaction.atomic():
        counted = {row[0] for row in sql.run(given + _WRITE, [*parameters, token])}
        _write_attempts(results, counted)
        _note_health([result for result in results if result.delivery.id in counted], finished)
    return len(counted)


def _write_attempts(results: Sequence[Result], counted: set[int]) -> None:
    """One statement for all: model instances and the ORM's bulk insert took longer than the requests themselves."""
    rows = []
    for result in results:
        delivery, outcome = result.delivery, result.outcome
        rows.append(
            (
                delivery.organisation_id,
                delivery.id,
                delivery.attempt_count + 1,
                result.attempted_at,
                outcome.status,
                outcome.error,
                outcome.detail,
                outcome.duration_ms,
                outcome.timings,
                outcome.headers,
                outcome.body.decode("utf-8", "replace").replace("\0", "\ufffd"),
                outcome.truncated,
                delivery.id not in counted,
            )
        )
    given, parameters = sql.rows_of("one", _ATTEMPT, rows)
    sql.run(given + _WRITE_ATTEMPTS, parameters)


def _note_health(results: Sequence[Result], moment: datetime) -> None:
    """Keep each webhook's own record of how it does, and switch off those that are gone."""
    by_webhook: dict[int, list[Result]] = {}
    for result in results:
        by_webhook.setdefault(result.delivery.webhook_id, []).append(result)
    failing = {pk for pk, own in by_webhook.items() if not all(result.outcome.ok for result in own)}
    unnoted = Q(last_success_at=None) | Q(last_success_at__lt=moment - NOTE_EVERY) | Q(consecutive_failures__gt=0)
    # Locked in one order first: two drains that update the same webhooks must not wait for each other in a ring.
    wanted = Webhook.objects.filter(Q(pk__in=failing) | (Q(pk__in=by_webhook) & unnoted))
    locked = list(wanted.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    well = {"last_success_at": moment, "consecutive_failures": 0, "failing_since": None}
    healthy = [pk for pk in locked if pk not in failing]
    if healthy:
        Webhook.objects.filter(pk__in=healthy).update(**well)
    for webhook_id in locked:
        if webhook_id not in failing:
            continue
        own = by_webhook[webhook_id]
        rows = Webhook.objects.filter(pk=webhook_id)
        trailing = next((index for index, result in enumerate(reversed(own)) if result.outcome.ok), len(own))
        if trailing < len(own):
            rows.update(**well)
        if trailing:
            rows.filter(failing_since=None).update(failing_since=moment)
        rows.update(last_failure_at=moment, consecutive_failures=F("consecutive_failures") + trailing)
        if any(result.outcome.status == GONE for result in own):
            _disable(webhook_id, moment)


def _disable(webhook_id: int, moment: datetime) -> None:
    """The endpoint said 410 Gone: nothing more is sent; what is due is kept as held."""
    active = Webhook.objects.filter(pk=webhook_id, state=Webhook.State.ACTIVE)
    if active.update(state=Webhook.State.DISABLED, state_reason="gone", state_changed_at=moment):
        waiting = Delivery.objects.filter(webhook_id=webhook_id, state=Delivery.State.PENDING, lease_token=None)
        waiting.update(state=Delivery.State.HELD, next_attempt_at=None)
