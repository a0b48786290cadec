"""Read due deliveries of webhooks that this engine serves. Reading is all: the lease on the webhook makes them ours.

A delivery waits for earlier ones of the same webhook and conversation that still block its lane. Each comes with the
one right before it (`Due.behind`), so that the engine takes it only when it has that one too; then a lane costs no
round trip for each delivery. What stands behind a head that waits for a later attempt is left out here: however much
it is, it does not hide others. What is held blocks nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from core.clock import now
from webhooks.engine import sql
from webhooks.payloads import Facts, render

log = logging.getLogger("webio.deliveries")

#: Of all webhooks' numbers, since PostgreSQL uses the index for what names one (`LedIndex`), and from 17 on it does not
#: regard as such that the number is not null.
_WEBHOOKS_WITH_DUE_WORK = """
WITH RECURSIVE pending(webhook_id) AS (
    SELECT (SELECT webhook_id FROM {outstanding} WHERE webhook_id > 0 ORDER BY webhook_id LIMIT 1)
    UNION ALL
    SELECT (SELECT webhook_id FROM {outstanding} WHERE webhook_id > pending.webhook_id ORDER BY webhook_id LIMIT 1)
    FROM pending WHERE pending.webhook_id IS NOT NULL
)
SELECT webhook.id, webhook.organisation_id,
       webhook.organisation_id + (
           SELECT COUNT(*) FROM {webhook} AS older
           WHERE older.organisation_id = webhook.organisation_id AND older.id < webhook.id
       ),
       webhook.breaker_level, webhook.rate_limit, webhook.rate_seconds,
       {idle_seconds}, webhook.retry_delays
FROM pending {webhooks} {organisations}
WHERE webhook.state = 'active' AND webhook.archived_at IS NULL AND organisation.suspended_at IS NULL
  AND (webhook.breaker_until IS NULL OR webhook.breaker_until <= %s)
  AND (
      SELECT next_attempt_at FROM {outstanding} WHERE webhook_id = webhook.id AND next_attempt_at IS NOT NULL
      ORDER BY next_attempt_at LIMIT 1
  ) <= %s
ORDER BY webhook.id
"""

#: The delivery right before `d` in its lane that still blocks it. What is held blocks nobody.
BEHIND = """(
    SELECT b.delivery_id FROM {outstanding} AS b
    WHERE b.webhook_id = d.webhook_id AND b.lane = d.lane AND b.blocks AND b.seq < d.seq
      AND b.next_attempt_at IS NOT NULL
    ORDER BY b.seq DESC LIMIT 1
)"""

#: What `ready` takes, of an outstanding delivery `due` and its `event`. Times as text, in expressions: see `in_utc`.
COLUMNS = """
    due.delivery_id, due.webhook_id, due.organisation_id, due.event_id, due.lane, due.format, due.format_version,
    due.attempt_count, due.blocks, due.behind, {due_at},
    event.type, event.seq, event.data, {recorded_at} || '+00:00', event.actor_kind, event.actor_id, event.actor_label
"""

#: Due deliveries of one webhook after a place in their order, but for those whose lane has a head that is due later.
_DUE = f"""
SELECT d.*, {BEHIND} AS behind
FROM {{rows}} AS d
WHERE d.webhook_id = {{webhook_id}} AND d.next_attempt_at <= {{moment}} {{kind}}
  AND (d.next_attempt_at, d.delivery_id) > ({{after_at}}, {{after_id}}) AND {{not_held}}
  AND (
      SELECT b.next_attempt_at FROM {{outstanding}} AS b
      WHERE b.webhook_id = d.webhook_id AND b.lane = d.lane AND b.blocks AND b.seq < d.seq
        AND b.next_attempt_at IS NOT NULL
      ORDER BY b.seq LIMIT 1
  ) > d.next_attempt_at IS NOT TRUE
ORDER BY d.next_attempt_at, d.delivery_id
LIMIT {{quota}}
"""

#: First attempts alone, among the oldest of all, as no index tells them from retries; none behind a retry.
AMONG = 2000
_OLDEST = f"""(
    SELECT * FROM {{outstanding}} WHERE webhook_id = {{webhook_id}} AND next_attempt_at <= {{moment}}
    ORDER BY next_attempt_at, delivery_id LIMIT {AMONG}
)"""
_FIRST_ATTEMPTS = """AND d.attempt_count = 0 AND (
      SELECT b.attempt_count FROM {outstanding} AS b
      WHERE b.webhook_id = d.webhook_id AND b.lane = d.lane AND b.blocks AND b.seq < d.seq
        AND b.next_attempt_at IS NOT NULL
      ORDER BY b.seq LIMIT 1
  ) > 0 IS NOT TRUE"""

_WITH_EVENT = f"""
SELECT {COLUMNS} FROM {{due}} {{events}}
ORDER BY due.next_attempt_at, due.delivery_id
"""

#: SQLite takes at most 500 SELECTs in one statement (sqlite.org/limits.html).
PARTS_SQLITE = 400

#: Before every place in the order.
START = ("0001-01-01 00:00:00", 0)


@dataclass(slots=True)
class Wanting:
    """A webhook with something due, and the settings that decide when it may be sent."""

    webhook_id: int
    organisation_id: int
    #: Which engine should serve it: its organisation's id, plus 1 for the organisation's second webhook and so on.
    home: int
    breaker_level: int
    rate_limit: int | None
    rate_seconds: int
    #: Seconds since its latest attempt, None before the first.
    idle_seconds: float | None
    #: Its own retry schedule in seconds, None for the platform's.
    retry_delays: list[float] | None


@dataclass(slots=True)
class Due:
    """A delivery to be sent."""

    id: int
    webhook_id: int
    organisation_id: int
    event_id: int
    #: The conversation whose order it keeps; None for what may go at any time.
    lane: int | None
    attempt_count: int
    blocks: bool
    #: The one before it in its lane, if that still blocks it.
    behind: int | None
    #: Place in the order of the webhook's due deliveries: when it was due, as text in UTC, and its id.
    place: tuple[str, int]
    #: What is posted; None when it could not be made.
    body: bytes | None
    #: The W3C trace that the request continues, "" for none.
    trace: str


def webhooks_with_due_work() -> list[Wanting]:
    """Webhooks that something may be sent to. A skip scan: it costs one look per webhook, not per row."""
    moment = sql.moment(now())
    success, failure = "webhook.last_success_at", "webhook.last_failure_at"
    if sql.vendor() == "postgresql":
        idle = f"EXTRACT(EPOCH FROM CAST(%s AS timestamptz) - GREATEST({success}, {failure}))::float"
    else:
        latest = f"COALESCE(MAX({success}, {failure}), {success}, {failure})"
        idle = f"(julianday(%s) - julianday({latest})) * 86400.0"
    statement = _WEBHOOKS_WITH_DUE_WORK.replace("{idle_seconds}", idle)
    statement = statement.replace("{webhooks}", sql.looked_up("webhook", "webhook.id = pending.webhook_id"))
    owners = sql.looked_up("organisation", "organisation.id = webhook.organisation_id")
    rows = sql.run_in_order(statement.replace("{organisations}", owners), [moment, moment, moment])
    return [
        Wanting(pk, owner, home, level, limit, seconds, idle_seconds, None if delays is None else _list(delays))
        for pk, owner, home, level, limit, seconds, idle_seconds, delays in rows
    ]


def _list(document: Any) -> list[float] | None:
    """A JSON column that holds a list or null."""
    found: list[float] | None = orjson.loads(document)
    return found


class Part(NamedTuple):
    """What to read of one webhook: at most so many after a place in their order, but for those at hand. Without
    `retries` only first attempts, of the oldest `AMONG` of all."""

    webhook_id: int
    quota: int
    after: tuple[str, int] = START
    held: Collection[int] = ()
    retries: bool = True


def load(wanted: Sequence[Part]) -> list[tuple[Any, ...]]:
    """Due deliveries of each part, oldest first. Each is the fields of a `Due`."""
    if not wanted:
        return []
    read = _load_postgresql if sql.vendor() == "postgresql" else _load_sqlite
    moment, rows = sql.moment(now()), []
    for retries in (True, False):
        if parts := [part for part in wanted if part.retries == retries]:
            due = _DUE.replace("{rows}", "{outstanding}" if retries else _OLDEST)
            rows += read(parts, due.replace("{kind}", "" if retries else _FIRST_ATTEMPTS), moment)
    return ready(rows)


def _load_postgresql(wanted: Sequence[Part], due: str, moment: Any) -> list[tuple[Any, ...]]:
    columns = {"webhook_id": "bigint", "quota": "integer", "after_at": "timestamptz", "after_id": "bigint"}
    given, parameters = sql.rows_of(
        "wanted", columns, [(part.webhook_id, part.quota, f"{part.after[0]}+00", part.after[1]) for part in wanted]
    )
    # What is held all at once, for which the server makes one table.
    one = due.replace("{not_held}", "d.delivery_id NOT IN (SELECT unnest(%s::bigint[]))")
    for name in ("webhook_id", "quota", "after_at", "after_id"):
        one = one.replace(f"{{{name}}}", f"wanted.{name}")
    moments = [moment] * one.count("{moment}")
    one = one.replace("{moment}", "CAST(%s AS timestamptz)")
    statement = given + _WITH_EVENT.replace("{due}", f"wanted CROSS JOIN LATERAL ({one}) AS due")
    held = sql.numbers(pk for part in wanted for pk in part.held)
    return sql.run_in_order(_whole(statement), [*parameters, *moments, held])


def _load_sqlite(wanted: Sequence[Part], due: str, moment: Any) -> list[tuple[Any, ...]]:
    if len(wanted) > PARTS_SQLITE:
        return _load_sqlite(wanted[:PARTS_SQLITE], due, moment) + _load_sqlite(wanted[PARTS_SQLITE:], due, moment)
    # Each webhook's own: SQLite makes a table of them for each webhook.
    one = due.replace("{not_held}", "d.delivery_id NOT IN (SELECT value FROM json_each(%s))")
    # Of which, and until when, is said once for each place where rows are looked for.
    places = one.count("{moment}")
    for name in ("webhook_id", "moment", "after_at", "after_id", "quota"):
        one = one.replace(f"{{{name}}}", "%s")
    parameters: list[Any] = []
    for part in wanted:
        parameters += [part.webhook_id, moment] * places + [*part.after, sql.numbers(part.held), part.quota]
    parts = " UNION ALL ".join([f"SELECT * FROM ({one})"] * len(wanted))
    return sql.run(_whole(_WITH_EVENT.replace("{due}", f"({parts}) AS due")), parameters)


def _whole(statement: str) -> str:
    """Fill in events and times."""
    return in_utc(statement.replace("{events}", sql.looked_up("event", "event.id = due.event_id")))


def in_utc(statement: str) -> str:
    """Fill in the times of `COLUMNS`.

    As expressions, because the converters that psycopg and Django have for columns take longer than all the rest.
    """
    for name, column in (("{due_at}", "due.next_attempt_at"), ("{recorded_at}", "event.created_at")):
        postgresql = f"CAST({column} AT TIME ZONE 'UTC' AS text)"
        statement = statement.replace(name, postgresql if sql.vendor() == "postgresql" else f"{column} || ''")
    return statement


def ready(rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The fields of `Due` from rows of `COLUMNS`. Bodies are made here, where the engine waits for the database."""
    return [_of_due(*row) for row in rows]


def _of_due(
    pk: int,
    webhook_id: int,
    organisation_id: int,
    event_id: int,
    lane: int | None,
    format: str,
    version: int,
    attempt_count: int,
    blocks: bool,
    behind: int | None,
    due_at: str,
    *event: Any,
) -> tuple[Any, ...]:
    body, trace = _body(format, version, event_id, *event)
    place = due_at, pk
    return pk, webhook_id, organisation_id, event_id, lane, attempt_count, blocks, behind, place, body, trace


def _body(
    format: str, version: int, event_id: int, type: str, seq: int, data: str, recorded_at: str, *actor: str
) -> tuple[Any, str]:
    """The body, None where there is none, and the trace that a request shall continue."""
    try:
        facts = orjson.loads(data)
        event = Facts(event_id, type, seq, facts, datetime.fromisoformat(recorded_at), *actor)
        return render(event, format, version), facts.get("trace", "")
    except Exception:
        # That of another may well be made.
        log.exception("event could not be rendered", extra={"facts": {"event": event_id}})
        return None, ""


def put_off(delivery_id: int, attempt_count: int, until: datetime) -> None:
    """Make a delivery due later without counting an attempt, unless somebody has counted one meanwhile."""
    statement = """
        UPDATE {outstanding} SET next_attempt_at = %s
        WHERE delivery_id = %s AND attempt_count = %s AND next_attempt_at IS NOT NULL
    """
    sql.run_in_order(statement, [sql.moment(until), delivery_id, attempt_count])
