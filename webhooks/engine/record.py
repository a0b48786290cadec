"""Write down what came of attempts, many at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
from django.db import transaction

from core.clock import now
from core.outbound import Outcome
from core.statements import instant
from webhooks.engine import sql, tally
from webhooks.engine.breaker import Health
from webhooks.engine.due import Due
from webhooks.engine.outgoing import SETTINGS_SECONDS
from webhooks.engine.schedule import GONE, UNSENT, next_delay
from webhooks.failing import disable_gone
from webhooks.models import Delivery, Webhook

#: What is written of a `Report`. An outcome counts when nobody wrote a later one and the delivery was not cancelled. A
#: pause while the request was under way has made the delivery held: a success ends it all the same, a failure leaves it
#: held. Event and webhook are looked at too: a crash of the server may have given the delivery's number to another.
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
    "ended": "boolean",
    "event_id": "bigint",
    "webhook_id": "bigint",
}
#: What is the same of most outcomes: they arrived at the first attempt.
_ALIKE = (
    "number",
    "status_code",
    "error",
    "error_detail",
    "response_truncated",
    "state",
    "next_attempt_at",
    "blocks",
    "ended",
)
_OF_ATTEMPT = 12
_ATTEMPT = ", ".join(list(_RESULT)[1:_OF_ATTEMPT])

#: Outcomes and attempts in one statement, and so in one round trip. What is outstanding comes first: it is the lock. It
#: is found by its number: `webhook_id = …` would let PostgreSQL choose an index that is not for that (`LedIndex`).
_COUNTS = """
    outstanding.delivery_id = ANY(ARRAY(SELECT id FROM result))
    AND outstanding.delivery_id = result.id AND outstanding.attempt_count = result.number - 1
    AND outstanding.event_id = result.event_id AND outstanding.webhook_id IS NOT DISTINCT FROM result.webhook_id
"""
_OUTCOME = "result.id, result.number, result.state, result.status_code, result.error, result.ended"
_ENDED_POSTGRESQL = f"""
    DELETE FROM {{outstanding}} AS outstanding USING result
    WHERE {_COUNTS} AND result.ended RETURNING {_OUTCOME}
"""
#: Strict order may have been chosen while the request was under way.
_STRICT = """(outstanding.lane IS NOT NULL AND (
    SELECT ordering FROM {webhook} AS webhook WHERE webhook.id = outstanding.webhook_id
) = 'strict')"""
_LATER_POSTGRESQL = f"""
    UPDATE {{outstanding}} AS outstanding SET
        next_attempt_at = CASE WHEN outstanding.next_attempt_at IS NOT NULL THEN result.next_attempt_at END,
        attempt_count = result.number,
        blocks = result.blocks OR {_STRICT}
    FROM result WHERE {_COUNTS} AND NOT result.ended RETURNING {_OUTCOME}
"""
_WRITE_POSTGRESQL = f"""
, written AS (
    UPDATE {{delivery}} SET
        state = CASE WHEN counted.state = 'pending' THEN {{delivery}}.state ELSE counted.state END,
        attempt_count = counted.number,
        last_status_code = counted.status_code,
        last_error = counted.error,
        finished_at = CASE WHEN counted.ended THEN CAST(%s AS timestamptz) END
    FROM counted WHERE {{delivery}}.id = ANY(ARRAY(SELECT id FROM counted)) AND {{delivery}}.id = counted.id
), attempted AS (
    INSERT INTO {{attempt}} (delivery_id, superseded, {_ATTEMPT})
    SELECT id, id NOT IN (SELECT id FROM counted), {_ATTEMPT} FROM result
)
SELECT id FROM result WHERE id NOT IN (SELECT id FROM counted)
"""

#: SQLite has no statement that updates one table and inserts into another, and one writer at a time.
_VERSIONS_SQLITE = """
SELECT delivery_id, attempt_count + 1, event_id, webhook_id FROM {outstanding}
WHERE delivery_id IN (SELECT value FROM json_each(%s))
"""
_ENDED_SQLITE = "DELETE FROM {outstanding} WHERE delivery_id IN (SELECT value FROM json_each(%s))"
_LATER_SQLITE = f"""
WITH result(id, number, next_attempt_at, blocks) AS ({{rows}})
UPDATE {{outstanding}} AS outstanding SET
    next_attempt_at = CASE WHEN outstanding.next_attempt_at IS NOT NULL THEN result.next_attempt_at END,
    attempt_count = result.number,
    blocks = result.blocks OR {_STRICT}
FROM result WHERE outstanding.delivery_id = result.id
"""
#: Most outcomes are the same, so all deliveries that had one are changed at once.
_UPDATE_SQLITE = """
UPDATE {delivery} SET state = COALESCE(%s, state), attempt_count = %s, last_status_code = %s, last_error = %s,
    finished_at = %s
WHERE id IN (SELECT value FROM json_each(%s))
"""
_INSERT_SQLITE = f"INSERT INTO {{attempt}} (delivery_id, {_ATTEMPT}, superseded) {{rows}}"

#: Webhooks whose own record has to change: their deliveries failed, or it is long ago that one was noted to do well.
_WEBHOOKS = """
SELECT id, consecutive_failures, failing_since, breaker_until, breaker_level, callback_url FROM {{webhook}}
WHERE {asked} AND (
    {failing} OR consecutive_failures > 0 OR breaker_level > 0 OR last_success_at IS NULL OR last_success_at < %s
)
ORDER BY id {lock}
"""

#: A webhook that does well is noted at most this often, so that its row is not rewritten with every flush.
NOTE_EVERY = timedelta(seconds=1)
ENDED = ("delivered", "failed")


class Report(NamedTuple):
    """What came of an attempt: the columns of `_RESULT`, in their order, and more."""

    id: int
    organisation_id: int
    number: int
    attempted_at: datetime
    status_code: int | None
    error: str
    error_detail: str
    duration_ms: int
    timings: str
    response_headers: str
    response_body: str
    response_truncated: bool
    state: str
    next_attempt_at: datetime | None
    blocks: bool
    ended: bool
    event_id: int
    webhook_id: int
    #: Where it was sent.
    url: str

    @property
    def ok(self) -> bool:
        """The delivery has arrived."""
        return self.state == Delivery.State.DELIVERED

    @property
    def reason(self) -> str:
        """Why it failed, as `FailureTotal` has it: its error class, or the class of its status (RFC 9110 §15)."""
        return self.error or f"http_{(self.status_code or 0) // 100}xx"


@dataclass(slots=True)
class Result:
    """One finished attempt and what follows from it."""

    delivery: Due
    outcome: Outcome
    #: Its delivery keeps the next ones of the conversation back.
    blocks: bool
    #: What `Report` is made of. Bare, because that is pickled in a tenth of the time.
    report: tuple[Any, ...]
    #: What starts next to the webhook depends on it.
    decides: bool = False


def judge(
    delivery: Due,
    outcome: Outcome,
    attempted_at: datetime,
    url: str,
    strict: bool,
    delays: Sequence[float] | None = None,
) -> Result:
    """What follows from an attempt: delivered, tried again later, failed, or held because the endpoint is gone.

    The lane is free after the first attempt, in strict order only after the last.
    """
    state, later, blocks = "delivered", None, False
    if not outcome.ok:
        state, later, blocks = _after_failure(delivery, outcome, strict, delays)
    report = (
        delivery.id,
        delivery.organisation_id,
        delivery.attempt_count + 1,
        attempted_at,
        outcome.status,
        outcome.error,
        outcome.detail,
        outcome.duration_ms,
        orjson.dumps(outcome.timings).decode(),
        orjson.dumps(outcome.headers).decode(),
        outcome.body.decode("utf-8", "replace").replace("\0", "\ufffd") if outcome.body else "",
        outcome.truncated,
        state,
        later,
        blocks,
        state in ENDED,
        delivery.event_id,
        delivery.webhook_id,
        url,
    )
    return Result(delivery, outcome, blocks, report)


def _after_failure(
    delivery: Due, outcome: Outcome, strict: bool, delays: Sequence[float] | None
) -> tuple[str, datetime | None, bool]:
    """The delivery's state, when it is due again, and whether it blocks its lane."""
    if outcome.status == GONE:
        return "held", None, delivery.blocks
    at = now()
    delay = next_delay(delivery.attempt_count + 1, outcome, at, delays)
    if delay is None:
        return "failed", None, False
    return "pending", at + timedelta(seconds=delay), delivery.blocks and strict


@dataclass(slots=True)
class Written:
    """How many outcomes counted, and webhooks that are left alone from now on, or may have more than a probe again, or
    have another callback URL than was asked."""

    counted: int
    stopped: set[int] = field(default_factory=set)
    healed: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)

    def merged(self, other: Written) -> Written:
        """Both together; `other` was written later."""
        return Written(
            self.counted + other.counted,
            (self.stopped - other.healed) | other.stopped,
            self.healed | other.healed,
            self.moved | other.moved,
        )


def write(given: Sequence[tuple[Any, ...]], slot: int = 0, tripping: Collection[int] = ()) -> Written:
    """Write attempts and outcomes in one transaction, given as they came; each is what a `Report` is made of.

    An outcome that came after another engine's changes nothing; its attempt is kept, marked superseded. `slot` is the
    engine's, for its totals; `tripping` are webhooks of which too much failed lately.
    """
    if not given:
        return Written(0)
    written_at = now()
    arrived = list(map(Report._make, given))
    # In the order in which whoever pauses or cancels locks them too.
    reports = sorted(arrived, key=itemgetter(0))
    with transaction.atomic():
        # Webhooks before deliveries, as the verbs lock them.
        locked = _lock_webhooks(reports, written_at)
        elsewhere = _to_another_url(arrived, locked)
        if elsewhere:
            soon = now() + timedelta(seconds=SETTINGS_SECONDS)
            reports = [_due_again(one, soon) if one.id in elsewhere else one for one in reports]
        how = _write_postgresql if sql.vendor() == "postgresql" else _write_sqlite
        counted = how(reports, written_at)
        # How an endpoint does is told by what came last.
        own = [one for one in arrived if one.id in counted]
        written = Written(len(counted), moved={one.webhook_id for one in arrived if one.id in elsewhere})
        _note_health(locked, [one for one in own if one.id not in elsewhere], written_at, tripping, written)
        tally.add(((one.organisation_id, one.webhook_id, one.ok, one.duration_ms) for one in own), slot, written_at)
        tally.add_failures((one.reason for one in own if not one.ok), slot)
    return written


def _to_another_url(reports: Sequence[Report], locked: Mapping[Health, str]) -> set[int]:
    """Deliveries that were sent to what is no longer the callback URL of their webhook."""
    urls = {health.pk: url for health, url in locked.items()}
    return {one.id for one in reports if urls.get(one.webhook_id, one.url) != one.url}


def _due_again(report: Report, soon: datetime) -> Report:
    """What another endpoint failed, or had held because it is gone, is for the one that is now. Not at once: an engine
    may not know of that yet."""
    return report if report.ended else report._replace(state="pending", next_attempt_at=soon)


def _write_postgresql(reports: Sequence[Report], written_at: datetime) -> set[int]:
    given, parameters = sql.rows_of("result", _RESULT, [one[: len(_RESULT)] for one in reports], _ALIKE)
    counted = f", counted AS ({_ENDED_POSTGRESQL})"
    if not all(one.ended for one in reports):
        counted = (
            f", ended AS ({_ENDED_POSTGRESQL}), later AS ({_LATER_POSTGRESQL})"
            ", counted AS (SELECT * FROM ended UNION ALL SELECT * FROM later)"
        )
    late = sql.run_in_order(given + counted + _WRITE_POSTGRESQL, [*parameters, sql.moment(written_at)])
    return {one.id for one in reports} - {row[0] for row in late}


def _write_sqlite(reports: Sequence[Report], written_at: datetime) -> set[int]:
    versions = set(sql.run(_VERSIONS_SQLITE, [sql.numbers(one.id for one in reports)]))
    counted = {one.id for one in reports if (one.id, one.number, one.event_id, one.webhook_id) in versions}
    ended, later, attempts = [], [], []
    same: dict[tuple[Any, ...], list[int]] = {}
    for one in reports:
        if one.id in counted:
            same.setdefault((one.state, one.number, one.status_code, one.error, one.ended), []).append(one.id)
            if one.ended:
                ended.append(one.id)
            else:
                later.append((one.id, one.number, sql.text(one.next_attempt_at), one.blocks))
        attempts.append((*one[:3], sql.text(one.attempted_at), *one[4:_OF_ATTEMPT], one.id not in counted))
    sql.run(_ENDED_SQLITE, [sql.numbers(ended)])
    sql.in_chunks(later, _LATER_SQLITE)
    finished = sql.text(written_at)
    for (state, *values, over), ids in same.items():
        changed = None if state == "pending" else state
        sql.run(_UPDATE_SQLITE, [changed, *values, finished if over else None, sql.numbers(ids)])
    sql.in_chunks(attempts, _INSERT_SQLITE)
    return counted


def _lock_webhooks(reports: Sequence[Report], moment: datetime) -> dict[Health, str]:
    """Lock the webhooks whose own record has to change, in one order. Each with its callback URL."""
    asked = {one.webhook_id for one in reports}
    failing = {one.webhook_id for one in reports if not one.ok}
    lock = "FOR NO KEY UPDATE" if sql.vendor() == "postgresql" else ""
    statement = _WEBHOOKS.format(asked=sql.among("id"), failing=sql.among("id"), lock=lock)
    rows = sql.run(statement, [sql.numbers(asked), sql.numbers(failing), sql.moment(moment - NOTE_EVERY)])
    return {
        Health(pk, count, since and instant(since), until and instant(until), level): url
        for pk, count, since, until, level, url in rows
    }


def _note_health(
    locked: Iterable[Health], reports: Sequence[Report], moment: datetime, tripping: Collection[int], written: Written
) -> None:
    """Keep each locked webhook's own record of how it does, and leave alone those that fail or are gone."""
    by_webhook: dict[int, list[Report]] = {}
    for one in reports:
        if one.error in UNSENT:
            continue
        by_webhook.setdefault(one.webhook_id, []).append(one)
    for health in locked:
        own = by_webhook.get(health.pk)
        if own is None:
            continue
        values = health.after([one.ok for one in own], health.pk in tripping, moment)
        Webhook.objects.filter(pk=health.pk).update(**values)
        if values.get("breaker_until") is not None:
            written.stopped.add(health.pk)
        elif values.get("breaker_level") == 0:
            written.healed.add(health.pk)
        if any(one.status_code == GONE for one in own):
            disable_gone(health.pk)
            written.stopped.add(health.pk)
