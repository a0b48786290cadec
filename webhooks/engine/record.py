"""Write down what came of attempts, many at a time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import orjson
from django.db import transaction

from core.clock import now
from core.outbound import Outcome
from core.statements import instant
from webhooks.engine import sql, tally
from webhooks.engine.breaker import Health
from webhooks.engine.due import Due
from webhooks.engine.schedule import GONE, UNSENT, next_delay
from webhooks.failing import disable_gone
from webhooks.models import Delivery, Webhook

#: The columns of `_row`. An outcome counts when nobody wrote a later one and the delivery was not cancelled. A pause
#: while the request was under way has made the delivery held: a success ends it all the same, a failure leaves it held.
#: Event and webhook are looked at too: a crash of the server may have given the delivery's number to another.
_RESULT = {
    "id": "bigint",
    "organisation_id": "bigint",
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
    "state": "text",
    "next_attempt_at": "timestamptz",
    "blocks": "boolean",
    "finished_at": "timestamptz",
    "event_id": "bigint",
    "webhook_id": "bigint",
}
_OF_ATTEMPT = 12
_ATTEMPT = ", ".join(list(_RESULT)[1:_OF_ATTEMPT])

#: Outcomes and attempts in one statement, and so in one round trip. What is outstanding comes first: it is the lock.
_COUNTS = """
    outstanding.delivery_id = result.id AND outstanding.attempt_count = result.number - 1
    AND outstanding.event_id = result.event_id AND outstanding.webhook_id = result.webhook_id
"""
_OUTCOME = "result.id, result.number, result.state, result.status_code, result.error, result.finished_at"
_ENDED_POSTGRESQL = f"""
    DELETE FROM {{outstanding}} AS outstanding USING result
    WHERE {_COUNTS} AND result.finished_at IS NOT NULL RETURNING {_OUTCOME}
"""
_LATER_POSTGRESQL = f"""
    UPDATE {{outstanding}} AS outstanding SET
        next_attempt_at = CASE WHEN outstanding.next_attempt_at IS NOT NULL THEN result.next_attempt_at END,
        attempt_count = result.number,
        blocks = result.blocks
    FROM result WHERE {_COUNTS} AND result.finished_at IS NULL RETURNING {_OUTCOME}
"""
_WRITE_POSTGRESQL = f"""
, written AS (
    UPDATE {{delivery}} SET
        state = CASE WHEN counted.state = 'pending' THEN {{delivery}}.state ELSE counted.state END,
        attempt_count = counted.number,
        last_status_code = counted.status_code,
        last_error = counted.error,
        finished_at = counted.finished_at
    FROM counted WHERE {{delivery}}.id = counted.id
), attempted AS (
    INSERT INTO {{attempt}} (delivery_id, superseded, {_ATTEMPT})
    SELECT id, id NOT IN (SELECT id FROM counted), {_ATTEMPT} FROM result
)
SELECT id FROM counted
"""

#: SQLite has no statement that updates one table and inserts into another, and one writer at a time.
_COUNTED_SQLITE = """
WITH result AS (
    SELECT value ->> 0 AS id, value ->> 1 AS number, value ->> 2 AS event_id, value ->> 3 AS webhook_id
    FROM json_each(%s)
)
SELECT json_group_array(result.id)
FROM result CROSS JOIN {outstanding} AS outstanding ON outstanding.delivery_id = result.id
WHERE outstanding.attempt_count = result.number - 1
  AND outstanding.event_id = result.event_id AND outstanding.webhook_id = result.webhook_id
"""
_ENDED_SQLITE = "DELETE FROM {outstanding} WHERE delivery_id IN (SELECT value FROM json_each(%s))"
_LATER_SQLITE = """
WITH result(id, number, next_attempt_at, blocks) AS ({rows})
UPDATE {outstanding} SET
    next_attempt_at = CASE WHEN {outstanding}.next_attempt_at IS NOT NULL THEN result.next_attempt_at END,
    attempt_count = result.number,
    blocks = result.blocks
FROM result WHERE {outstanding}.delivery_id = result.id
"""
_UPDATE_SQLITE = """
WITH result(id, number, state, status_code, error, finished_at) AS ({rows})
UPDATE {delivery} SET
    state = CASE WHEN result.state = 'pending' THEN {delivery}.state ELSE result.state END,
    attempt_count = result.number,
    last_status_code = result.status_code,
    last_error = result.error,
    finished_at = result.finished_at
FROM result WHERE {delivery}.id = result.id
"""
_INSERT_SQLITE = f"INSERT INTO {{attempt}} (delivery_id, {_ATTEMPT}, superseded) {{rows}}"

#: Webhooks whose own record has to change: their deliveries failed, or it is long ago that one was noted to do well.
_WEBHOOKS = """
SELECT id, consecutive_failures, failing_since, breaker_until, breaker_level FROM {{webhook}}
WHERE {asked} AND (
    {failing} OR consecutive_failures > 0 OR breaker_level > 0 OR last_success_at IS NULL OR last_success_at < %s
)
ORDER BY id {lock}
"""

#: A webhook that does well is noted at most this often, so that its row is not rewritten with every flush.
NOTE_EVERY = timedelta(seconds=1)
ENDED = (Delivery.State.DELIVERED, Delivery.State.FAILED)


@dataclass(slots=True)
class Result:
    """One finished attempt and what follows from it."""

    delivery: Due
    outcome: Outcome
    attempted_at: datetime
    state: str
    next_attempt_at: datetime | None
    blocks: bool


def judge(
    delivery: Due,
    outcome: Outcome,
    attempted_at: datetime,
    strict: bool,
    delays: Sequence[float] | None = None,
) -> Result:
    """What follows from an attempt: delivered, tried again later, failed, or held because the endpoint is gone.

    The lane is free after the first attempt, in strict order only after the last.
    """
    if outcome.ok:
        return Result(delivery, outcome, attempted_at, Delivery.State.DELIVERED, None, False)
    if outcome.status == GONE:
        return Result(delivery, outcome, attempted_at, Delivery.State.HELD, None, delivery.blocks)
    at = now()
    delay = next_delay(delivery.attempt_count + 1, outcome, at, delays)
    if delay is None:
        return Result(delivery, outcome, attempted_at, Delivery.State.FAILED, None, False)
    later = at + timedelta(seconds=delay)
    return Result(delivery, outcome, attempted_at, Delivery.State.PENDING, later, delivery.blocks and strict)


@dataclass(slots=True)
class Written:
    """How many outcomes counted, and webhooks that are left alone from now on or may have more than a probe again."""

    counted: int
    stopped: set[int] = field(default_factory=set)
    healed: set[int] = field(default_factory=set)

    def merged(self, other: Written) -> Written:
        """Both together; `other` was written later."""
        return Written(
            self.counted + other.counted, (self.stopped - other.healed) | other.stopped, self.healed | other.healed
        )


def write(results: Sequence[Result], slot: int = 0, tripping: Collection[int] = ()) -> Written:
    """Write attempts and outcomes in one transaction.

    An outcome that came after another engine's changes nothing; its attempt is kept, marked superseded. `slot` is the
    engine's, for its totals; `tripping` are webhooks of which too much failed lately.
    """
    if not results:
        return Written(0)
    finished = now()
    # In the order in which whoever pauses or cancels locks them too.
    rows = sorted((_row(result, finished) for result in results), key=itemgetter(0))
    with transaction.atomic():
        # Webhooks before deliveries, as the verbs lock them.
        locked = _lock_webhooks(results, finished)
        counted = _write_postgresql(rows) if sql.vendor() == "postgresql" else _write_sqlite(rows)
        own = [result for result in results if result.delivery.id in counted]
        written = Written(len(counted))
        _note_health(locked, own, finished, tripping, written)
        tally.add(
            (
                (one.delivery.organisation_id, one.delivery.webhook_id, one.outcome.ok, one.outcome.duration_ms)
                for one in own
            ),
            slot,
            finished,
        )
    return written


def _row(result: Result, finished: datetime) -> tuple[Any, ...]:
    """The columns of `_RESULT`."""
    delivery, outcome = result.delivery, result.outcome
    return (
        delivery.id,
        delivery.organisation_id,
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
        result.state,
        result.next_attempt_at,
        result.blocks,
        finished if result.state in ENDED else None,
        delivery.event_id,
        delivery.webhook_id,
    )


def _write_postgresql(rows: Sequence[tuple[Any, ...]]) -> set[int]:
    given, parameters = sql.rows_of("result", _RESULT, rows)
    counted = f", counted AS ({_ENDED_POSTGRESQL})"
    if any(row[15] is None for row in rows):
        counted = (
            f", ended AS ({_ENDED_POSTGRESQL}), later AS ({_LATER_POSTGRESQL})"
            ", counted AS (SELECT * FROM ended UNION ALL SELECT * FROM later)"
        )
    return {row[0] for row in sql.run(given + counted + _WRITE_POSTGRESQL, parameters)}


def _write_sqlite(rows: Sequence[tuple[Any, ...]]) -> set[int]:
    versions = orjson.dumps([(row[0], row[2], *row[16:]) for row in rows]).decode()
    counted = set(sql.run_whole(_COUNTED_SQLITE, [versions]))
    outcomes, ended, later, attempts = [], [], [], []
    for row in rows:
        if row[0] in counted:
            outcomes.append((row[0], row[2], str(row[12]), row[4], row[5], sql.text(row[15])))
            if row[15] is None:
                later.append((row[0], row[2], sql.text(row[13]), row[14]))
            else:
                ended.append(row[0])
        documents = orjson.dumps(row[8]).decode(), orjson.dumps(row[9]).decode()
        attempts.append((*row[:3], sql.text(row[3]), *row[4:8], *documents, *row[10:12], row[0] not in counted))
    sql.run(_ENDED_SQLITE, [sql.numbers(ended)])
    sql.in_chunks(later, _LATER_SQLITE)
    sql.in_chunks(outcomes, _UPDATE_SQLITE)
    sql.in_chunks(attempts, _INSERT_SQLITE)
    return counted


def _lock_webhooks(results: Sequence[Result], moment: datetime) -> list[Health]:
    """Lock the webhooks whose own record has to change, in one order."""
    asked = {result.delivery.webhook_id for result in results}
    failing = {result.delivery.webhook_id for result in results if not result.outcome.ok}
    lock = "FOR NO KEY UPDATE" if sql.vendor() == "postgresql" else ""
    statement = _WEBHOOKS.format(asked=sql.among("id"), failing=sql.among("id"), lock=lock)
    rows = sql.run(statement, [sql.numbers(asked), sql.numbers(failing), sql.moment(moment - NOTE_EVERY)])
    return [
        Health(pk, count, since and instant(since), until and instant(until), level)
        for pk, count, since, until, level in rows
    ]


def _note_health(
    locked: Sequence[Health], results: Sequence[Result], moment: datetime, tripping: Collection[int], written: Written
) -> None:
    """Keep each locked webhook's own record of how it does, and leave alone those that fail or are gone."""
    by_webhook: dict[int, list[Result]] = {}
    for result in results:
        if result.outcome.error in UNSENT:
            continue
        by_webhook.setdefault(result.delivery.webhook_id, []).append(result)
    for health in locked:
        own = by_webhook.get(health.pk)
        if own is None:
            continue
        values = health.after([result.outcome.ok for result in own], health.pk in tripping, moment)
        Webhook.objects.filter(pk=health.pk).update(**values)
        if values.get("breaker_until") is not None:
            written.stopped.add(health.pk)
        elif values.get("breaker_level") == 0:
            written.healed.add(health.pk)
        if any(result.outcome.status == GONE for result in own):
            disable_gone(health.pk)
            written.stopped.add(health.pk)
