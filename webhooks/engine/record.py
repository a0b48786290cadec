"""Write down what came of attempts, many at a time, each only while its lease still stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F

from core.clock import now
from core.outbound import Outcome
from webhooks.engine import sql
from webhooks.engine.claim import Claimed
from webhooks.engine.schedule import GONE, next_delay
from webhooks.models import Attempt, Delivery, Webhook

_WRITE = """
WITH result(id, state, next_attempt_at, attempt_count, blocks, status_code, error, finished_at) AS (VALUES {rows})
UPDATE {delivery} SET
    state = result.state,
    next_attempt_at = {next_attempt_at},
    lease_token = NULL,
    attempt_count = result.attempt_count,
    blocks = {blocks},
    last_status_code = {status_code},
    last_error = result.error,
    finished_at = {finished_at}
FROM result
WHERE {delivery}.id = {id} AND {delivery}.lease_token = %s AND {delivery}.state = 'pending'
RETURNING {delivery}.id
"""


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
    parameters: list[Any] = []
    for result in results:
        delivery = result.delivery
        parameters += [
            delivery.id,
            str(result.state),
            sql.moment(result.next_attempt_at),
            delivery.attempt_count + 1,
            result.blocks,
            result.outcome.status,
            result.outcome.error,
            sql.moment(finished) if result.state in (Delivery.State.DELIVERED, Delivery.State.FAILED) else None,
        ]
    rows = ", ".join(["(%s, %s, %s, %s, %s, %s, %s, %s)"] * len(results))
    statement = _WRITE
    for name, expression, kind in (
        ("rows", rows, ""),
        ("next_attempt_at", "result.next_attempt_at", "timestamptz"),
        ("finished_at", "result.finished_at", "timestamptz"),
        ("blocks", "result.blocks", "boolean"),
        ("status_code", "result.status_code", "smallint"),
        ("id", "result.id", "bigint"),
    ):
        statement = statement.replace("{" + name + "}", sql.cast(expression, kind) if kind else expression)
    with transaction.atomic():
        counted = {row[0] for row in sql.run(statement, [*parameters, token])}
        Attempt.objects.bulk_create([_attempt(result, result.delivery.id not in counted) for result in results])
        _note_health([result for result in results if result.delivery.id in counted], finished)
    return len(counted)


def _attempt(result: Result, superseded: bool) -> Attempt:
    outcome = result.outcome
    return Attempt(
        organisation_id=result.delivery.organisation_id,
        delivery_id=result.delivery.id,
        number=result.delivery.attempt_count + 1,
        attempted_at=result.attempted_at,
        status_code=outcome.status,
        error=outcome.error,
        error_detail=outcome.detail,
        duration_ms=outcome.duration_ms,
        timings=outcome.timings,
        response_headers=[list(header) for header in outcome.headers],
        response_body=outcome.body.decode("utf-8", "replace").replace("\0", "\ufffd"),
        response_truncated=outcome.truncated,
        superseded=superseded,
    )


def _note_health(results: Sequence[Result], moment: datetime) -> None:
    """Keep each webhook's own record of how it does, and switch off those that are gone."""
    by_webhook: dict[int, list[Result]] = {}
    for result in results:
        by_webhook.setdefault(result.delivery.webhook_id, []).append(result)
    for webhook_id in sorted(by_webhook):
        own = by_webhook[webhook_id]
        rows = Webhook.objects.filter(pk=webhook_id)
        failures = [result for result in own if not result.outcome.ok]
        if own[-1].outcome.ok:
            values: dict[str, Any] = {"last_success_at": moment, "consecutive_failures": 0, "failing_since": None}
            if failures:
                values["last_failure_at"] = moment
            rows.update(**values)
        else:
            since = next((result for result in reversed(own) if result.outcome.ok), None)
            trailing = len(own) if since is None else len(own) - 1 - own.index(since)
            rows.filter(failing_since=None).update(failing_since=moment)
            rows.update(
                last_failure_at=moment,
                consecutive_failures=F("consecutive_failures") + trailing if since is None else trailing,
                **({"last_success_at": moment} if since is not None else {}),
            )
        if any(result.outcome.status == GONE for result in own):
            _disable(webhook_id, moment)


def _disable(webhook_id: int, moment: datetime) -> None:
    """The endpoint said 410 Gone: nothing more is sent; what is due is kept as held."""
    active = Webhook.objects.filter(pk=webhook_id, state=Webhook.State.ACTIVE)
    if active.update(state=Webhook.State.DISABLED, state_reason="gone", state_changed_at=moment):
        waiting = Delivery.objects.filter(webhook_id=webhook_id, state=Delivery.State.PENDING, lease_token=None)
        waiting.update(state=Delivery.State.HELD, next_attempt_at=None)
