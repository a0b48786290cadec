"""Claim due deliveries: a fair choice over organisations and webhooks, under a lease that names this engine.

A delivery waits for earlier ones of the same webhook and conversation that still block its lane. Predecessors which
this engine holds, or takes in the same claim, do not count: the engine sends a lane one after another itself, so a
lane costs no round trip to the database for each delivery. What is held blocks nobody; the condition is written as
`<> 'held'` because `= 'pending'` lets PostgreSQL, before it has statistics, choose the due index over the lane's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from conversations.models import Event
from core.clock import now
from webhooks.engine import sql

#: A claimed delivery is due again after this long. No request starts unless its deadline and a flush fit in what is
#: left, so an outcome is written under a lease that still stands.
LEASE = timedelta(seconds=40)

_WEBHOOKS_WITH_DUE_WORK = """
WITH RECURSIVE pending(webhook_id) AS (
    SELECT MIN(webhook_id) FROM {delivery} WHERE state = 'pending'
    UNION ALL
    SELECT (
        SELECT MIN(d.webhook_id) FROM {delivery} AS d WHERE d.state = 'pending' AND d.webhook_id > pending.webhook_id
    )
    FROM pending WHERE pending.webhook_id IS NOT NULL
)
SELECT webhook.id, webhook.organisation_id
FROM pending
JOIN {webhook} AS webhook ON webhook.id = pending.webhook_id
JOIN {organisation} AS organisation ON organisation.id = webhook.organisation_id
WHERE webhook.state = 'active' AND webhook.archived_at IS NULL AND organisation.suspended_at IS NULL
  AND EXISTS (
      SELECT 1 FROM {delivery} AS d
      WHERE d.webhook_id = webhook.id AND d.state = 'pending' AND d.next_attempt_at <= %s
  )
ORDER BY webhook.id
"""

#: Due deliveries of one webhook, oldest first, whose lane is free (see the module's docstring).
_DUE = """
SELECT id FROM (
    SELECT d.id FROM {delivery} AS d
    WHERE d.webhook_id = %s AND d.state = 'pending' AND d.next_attempt_at <= %s
      AND NOT EXISTS (
          SELECT 1 FROM {delivery} AS b
          WHERE b.webhook_id = d.webhook_id AND b.conversation_id = d.conversation_id AND b.blocks AND b.seq < d.seq
            AND b.state <> 'held'
            AND d.kind = 'event'
            AND COALESCE(b.lease_token, 0) <> %s
            AND NOT (
                b.next_attempt_at <= %s
                AND (b.next_attempt_at < d.next_attempt_at OR (b.next_attempt_at = d.next_attempt_at AND b.id < d.id))
            )
      )
    ORDER BY d.next_attempt_at, d.id LIMIT %s {lock}
) AS due_{number}
"""

#: The choice stands in a CTE because PostgreSQL may run a subquery with LIMIT and SKIP LOCKED once for each row it
#: compares, and then takes more than was asked for.
_LEASE = """
WITH due AS ({due})
UPDATE {delivery} SET lease_token = %s, next_attempt_at = {until}
WHERE id IN (SELECT id FROM due)
RETURNING id, organisation_id, webhook_id, event_id, kind, event_type, conversation_id, seq, format, format_version,
          attempt_count, blocks
"""

#: Of the claimed, those whose predecessor another engine holds: it was locked, and so skipped, while we chose.
_OVERTAKING = """
SELECT d.id FROM {delivery} AS d
WHERE d.lease_token = %s AND d.id IN ({ids}) AND d.kind = 'event' AND EXISTS (
    SELECT 1 FROM {delivery} AS b
    WHERE b.webhook_id = d.webhook_id AND b.conversation_id = d.conversation_id AND b.blocks AND b.seq < d.seq
      AND b.state <> 'held' AND COALESCE(b.lease_token, 0) <> %s
)
"""


@dataclass(slots=True)
class Claimed:
    """A delivery this engine may send until `lease_until`."""

    id: int
    organisation_id: int
    webhook_id: int
    event_id: int
    kind: str
    event_type: str
    conversation_id: int | None
    seq: int
    format: str
    format_version: int
    attempt_count: int
    blocks: bool
    lease_until: datetime
    #: Attached before sending.
    event: Event = field(init=False)


def webhooks_with_due_work() -> list[tuple[int, int]]:
    """(webhook, organisation) ids that have something due. A skip scan: it costs one look per webhook, not per row."""
    return [(row[0], row[1]) for row in sql.run(_WEBHOOKS_WITH_DUE_WORK, [sql.moment(now())])]


def claim(quotas: list[tuple[int, int]], token: int) -> list[Claimed]:
    """Lease up to `quota` due deliveries of each (webhook, quota), oldest first within a webhook."""
    quotas = [(webhook_id, quota) for webhook_id, quota in quotas if quota > 0]
    if not quotas:
        return []
    moment = now()
    until = moment + LEASE
    at = sql.moment(moment)
    postgresql = sql.vendor() == "postgresql"
    parts = []
    parameters: list[Any] = []
    for number, (webhook_id, quota) in enumerate(quotas):
        lock = "FOR UPDATE SKIP LOCKED" if postgresql else ""
        parts.append(_DUE.replace("{lock}", lock).replace("{number}", str(number)))
        parameters += [webhook_id, at, token, at, quota]
    statement = _LEASE.replace("{until}", sql.cast("%s", "timestamptz")).replace("{due}", " UNION ALL ".join(parts))
    with transaction.atomic():
        rows = sql.run(statement, [*parameters, token, sql.moment(until)])
        if rows and postgresql:
            rows = _give_back_overtaking(rows, token, at)
    claimed = [Claimed(*row, until) for row in rows]  # type: ignore[call-arg]  # as many as RETURNING names
    claimed.sort(key=lambda one: one.id)
    return claimed


def _give_back_overtaking(rows: list[tuple[Any, ...]], token: int, at: Any) -> list[tuple[Any, ...]]:
    ids = [row[0] for row in rows]
    marks = ", ".join(["%s"] * len(ids))
    overtaking = {row[0] for row in sql.run(_OVERTAKING.replace("{ids}", marks), [token, *ids, token])}
    if overtaking:
        release(overtaking, token, at)
    return [row for row in rows if row[0] not in overtaking]


def release(ids: set[int], token: int, at: Any) -> None:
    """Give claimed deliveries back unsent: due again from `at` (a query parameter)."""
    marks = ", ".join(["%s"] * len(ids))
    until = sql.cast("%s", "timestamptz")
    statement = (
        f"UPDATE {{delivery}} SET lease_token = NULL, next_attempt_at = {until} "
        f"WHERE lease_token = %s AND state = 'pending' AND id IN ({marks})"
    )
    sql.run(statement, [at, token, *ids])


def hold(ids: set[int], token: int) -> None:
    """Keep claimed deliveries unsent until their webhook is active again."""
    marks = ", ".join(["%s"] * len(ids))
    statement = (
        "UPDATE {delivery} SET lease_token = NULL, next_attempt_at = NULL, state = 'held' "
        f"WHERE lease_token = %s AND state = 'pending' AND id IN ({marks})"
    )
    sql.run(statement, [token, *ids])
