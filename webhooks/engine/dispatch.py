"""From recorded events to deliveries: one position for each event, one row for each webhook that wants it."""

from __future__ import annotations

from django.db import transaction

from core.clock import now
from core.models import Sequence
from webhooks.engine import sql
from webhooks.payloads import FORMAT_VERSION

POSITIONS = "event_position"
BATCH = 2000

_NUMBER = """
WITH batch AS (
    SELECT id, row_number() OVER (ORDER BY id) AS number
    FROM (SELECT id FROM {event} WHERE position IS NULL ORDER BY id LIMIT %s) AS undispatched
)
UPDATE {event} SET position = %s + batch.number FROM batch WHERE {event}.id = batch.id
RETURNING {event}.id
"""

_FAN_OUT = """
INSERT INTO {delivery} (
    organisation_id, webhook_id, event_id, copy, kind, event_type, conversation_id, seq, format, format_version,
    state, next_attempt_at, attempt_count, blocks, last_error, created_at
)
SELECT event.organisation_id, webhook.id, event.id, 0, 'event', event.type, event.conversation_id, event.seq,
       webhook.format, %s,
       CASE WHEN webhook.state = 'active' AND organisation.suspended_at IS NULL THEN 'pending' ELSE 'held' END,
       CASE WHEN webhook.state = 'active' AND organisation.suspended_at IS NULL THEN {now} END,
       0, event.conversation_id IS NOT NULL, '', {now}
FROM {event} AS event
JOIN {subscription} AS subscription
  ON subscription.organisation_id = event.organisation_id
 AND subscription.event_type = event.type
 AND subscription.created_at <= event.created_at
JOIN {webhook} AS webhook ON webhook.id = subscription.webhook_id AND webhook.archived_at IS NULL
JOIN {organisation} AS organisation ON organisation.id = event.organisation_id
WHERE {among}
ORDER BY event.id, webhook.id
ON CONFLICT DO NOTHING
"""


def dispatch(limit: int = BATCH, wait: bool = False) -> int:
    """Take up to `limit` events that nobody has taken. Returns how many.

    Ids commit out of order, so "newer than the last seen" would skip a late commit for ever; what has no position yet
    cannot be missed. One process at a time numbers events: on PostgreSQL others find the counter locked, and leave it
    to that one or, with `wait`, wait until it is done; SQLite has one writer anyway.
    """
    with transaction.atomic():
        counter = _counter(wait)
        if counter is None:
            return 0
        taken = [row[0] for row in sql.run(_NUMBER, [limit, counter.value])]
        if not taken:
            return 0
        Sequence.objects.filter(pk=counter.pk).update(value=counter.value + len(taken))
        moment = sql.moment(now())
        statement = _FAN_OUT.replace("{now}", sql.cast("%s", "timestamptz")).replace("{among}", sql.among("event.id"))
        sql.run(statement, [FORMAT_VERSION, moment, moment, sql.numbers(taken)])
    return len(taken)


def waiting() -> bool:
    """Whether an event waits to be dispatched: a look at a partial index."""
    return bool(sql.run("SELECT 1 FROM {event} WHERE position IS NULL LIMIT 1", []))


def _counter(wait: bool) -> Sequence | None:
    rows = Sequence.objects.select_for_update(skip_locked=not wait).filter(name=POSITIONS)
    counter = rows.first()
    if counter is None and Sequence.objects.get_or_create(name=POSITIONS)[1]:
        counter = rows.first()
    return counter
