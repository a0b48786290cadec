"""From recorded events to deliveries: one position for each event, one row for each webhook that wants it."""

from __future__ import annotations

import logging
from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from typing import Any

from django.db import IntegrityError, connection, transaction

from core.clock import now
from core.models import Sequence
from core.statements import Plain
from webhooks import outstanding
from webhooks.engine import due, sql
from webhooks.outstanding import POSITIONS
from webhooks.payloads import FORMAT_VERSION

log = logging.getLogger("webio.deliveries")

BATCH = 1000
#: Up to which event those of others are taken as well: all. Django's `BigAutoField` ends there.
ALL = 2**63 - 1

_OLDEST = "SELECT event_id FROM {undispatched} ORDER BY event_id LIMIT %s"

#: Of the oldest those of organisations whose home is here, and of others up to one.
_OURS = """
FROM (SELECT event_id, organisation_id FROM {undispatched} ORDER BY event_id LIMIT %s) AS oldest
WHERE (organisation_id %% %s = %s OR event_id <= %s)
"""
#: Own ones first: their deliveries need not be read again.
_OWN_FIRST = f"SELECT event_id {_OURS} ORDER BY organisation_id %% %s <> %s, event_id LIMIT %s"

_NUMBER = """
INSERT INTO {position} (event_id, organisation_id, position)
SELECT event_id, organisation_id, %s + row_number() OVER (ORDER BY event_id) FROM {taken}
"""

_FAN_OUT = """
INSERT INTO {delivery} (
    organisation_id, webhook_id, event_id, copy, kind, event_type, conversation_id, seq, format, format_version,
    state, attempt_count, last_error, created_at
)
SELECT event.organisation_id, webhook_id, event.id, 0, 'event', event.type, event.conversation_id, event.seq,
       format, %s, {state}, 0, '', {now}
FROM {facts} AS event {hearing} WHERE after_event_id < event.id
ORDER BY event.id, webhook_id
{again}
"""

#: The end of that: without a look at what there is, unless there turned out to be deliveries of these events, as after
#: the backup of a part was restored. To look each time takes an eighth of the insert.
_ONCE, _AGAIN = "", "ON CONFLICT DO NOTHING"

#: Who hears of `{told}`, an event or all of an organisation's events of one type, if they came after its subscription:
#: what is joined, and by which condition. And the state in which their deliveries begin.
_HEARING = {
    "subscription": "subscription.organisation_id = {told}.organisation_id AND subscription.event_type = {told}.type",
    "webhook": "webhook.id = subscription.webhook_id AND webhook.archived_at IS NULL"
    " AND ({told}.type <> 'webhookDisabled' OR webhook.state <> 'disabled')",
    "organisation": "organisation.id = {told}.organisation_id",
}
_STATE = "CASE WHEN webhook.state = 'active' AND organisation.suspended_at IS NULL THEN 'pending' ELSE 'held' END"


def _hearing(kind: str, told: str) -> str:
    """Join what `_HEARING` names, on this kind of database."""
    return " ".join(
        sql.looked_up(name, condition.replace("{told}", told), kind) for name, condition in _HEARING.items()
    )


#: Dispatching does not wait for the disk: what a crash of the server takes back is dispatched again, and sent again
#: under the same id. Outcomes do wait, and with them what was dispatched before; so does who tells positions.
_NO_DISK = "set_config('synchronous_commit', 'off', true)"

_COUNTER = "SELECT value FROM {sequence} WHERE name = %s"

#: A setting: the last position given, for the rest of a transaction that has locked the counter, else "".
_POSITION = "webio.position"
#: `{how}`: without waiting for whoever has locked it, or "".
_LOCK_POSTGRESQL = f"""
{sql.IN_ORDER}, {_NO_DISK},
       set_config('{_POSITION}', COALESCE(({_COUNTER} FOR NO KEY UPDATE {{how}})::text, ''), true)
"""

#: All that is done by whoever has locked the counter, nothing otherwise. Who hears of events is looked up once for all
#: of an organisation's of one type. What stands in a lane is looked up in the state before the statement, so the
#: deliveries made by it do not count. The first row alone has what is of all of them: there may be thousands of others.
_ALL_POSTGRESQL = f"""
WITH wanted AS MATERIALIZED (
    SELECT unnest(%s::bigint[]) AS webhook_id
), counter AS MATERIALIZED (
    SELECT NULLIF(current_setting('{_POSITION}', true), '')::bigint AS value
), taken AS (
    DELETE FROM {{undispatched}} WHERE event_id = ANY(ARRAY({_OWN_FIRST})) AND (SELECT value FROM counter) IS NOT NULL
    RETURNING event_id, organisation_id
), numbered AS (
    {_NUMBER.replace("{taken}", "taken").replace("%s", "(SELECT value FROM counter)")} RETURNING event_id
), facts AS MATERIALIZED (
    SELECT event.* FROM numbered {sql.looked_up("event", "event.id = event_id", "postgresql")}
), target AS MATERIALIZED (
    SELECT kind.*, subscription.webhook_id, subscription.after_event_id, webhook.format, {_STATE} AS state
    FROM (SELECT DISTINCT organisation_id, type FROM facts) AS kind
    {_hearing("postgresql", "kind")}
), counted AS (
    UPDATE {{sequence}} SET value = value + (SELECT count(*) FROM numbered)
    WHERE name = %s AND EXISTS (SELECT 1 FROM numbered)
), delivery AS (
{_FAN_OUT.replace("{state}", "target.state").replace("{hearing}", "JOIN target USING (organisation_id, type)")}
RETURNING {outstanding.COPIED}
), made AS (
{outstanding.ADD.replace("{deliveries}", "delivery")} RETURNING *
)
SELECT counts.taken, CASE WHEN row_number() OVER () = 1 THEN ARRAY(
    SELECT DISTINCT webhook_id FROM made
    WHERE next_attempt_at IS NOT NULL AND webhook_id NOT IN (SELECT webhook_id FROM wanted)
) END, fresh.*
FROM (SELECT count(*) AS taken FROM numbered) AS counts LEFT JOIN (
    SELECT {due.COLUMNS}
    FROM (
        SELECT d.*, {due.BEHIND} AS behind FROM made AS d
        WHERE d.next_attempt_at IS NOT NULL AND d.webhook_id IN (SELECT webhook_id FROM wanted)
        ORDER BY d.delivery_id LIMIT %s
    ) AS due JOIN facts AS event ON event.id = due.event_id
) AS fresh ON true
"""

#: In the order of an index, which soon passes over what is gone; the table holds it until it is vacuumed.
_WAITING = "SELECT 1 FROM {undispatched} ORDER BY event_id LIMIT 1"
_WAITING_FOR_US = f"SELECT 1 {_OURS} LIMIT 1"
_NEWEST = "SELECT event_id FROM {undispatched} ORDER BY event_id DESC LIMIT 1"
_FACTS_SQLITE = "(SELECT * FROM {event} WHERE id IN (SELECT value FROM json_each(%s)))"
_OWNED_SQLITE = "{undispatched} WHERE event_id IN (SELECT value FROM json_each(%s))"
_MADE_SQLITE = f"""
SELECT {due.COLUMNS}
FROM (
    SELECT d.*, {due.BEHIND.replace("WHERE", "WHERE b.delivery_id < %s AND", 1)} AS behind
    FROM {{outstanding}} AS d NOT INDEXED
    WHERE d.delivery_id >= %s AND d.next_attempt_at IS NOT NULL AND {{wanted}} ORDER BY d.delivery_id LIMIT %s
) AS due JOIN {{event}} AS event ON event.id = due.event_id
ORDER BY due.delivery_id
"""
_OTHERS_SQLITE = """
SELECT DISTINCT webhook_id FROM {outstanding} AS d NOT INDEXED
WHERE d.delivery_id >= %s AND d.next_attempt_at IS NOT NULL AND NOT {wanted}
"""


@dataclass(slots=True)
class Dispatched:
    """How many events were taken, deliveries made of them that may be sent at once, in order (the fields of
    `Due`), and the webhooks that have further ones."""

    events: int = 0
    fresh: list[tuple[Any, ...]] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    #: Somebody else is taking events at this moment.
    elsewhere: bool = False


def dispatch(
    limit: int = BATCH,
    *,
    wait: bool = False,
    place: tuple[int, int] = (0, 1),
    others: int = ALL,
    wanted: Collection[int] = (),
    room: int = 0,
) -> Dispatched:
    """Take up to `limit` events that nobody has taken.

    Ids commit out of order, so "newer than the last seen" would skip a late commit for ever; what has no position yet
    cannot be missed. One process at a time numbers events: on PostgreSQL others find the counter locked, and leave it
    to that one or, with `wait`, wait until it is done; SQLite has one writer anyway. Organisations whose id leaves the
    rest `place[0]` when divided by `place[1]` come first; of others only events up to the id `others` are taken, on
    SQLite all. Up to `room` new deliveries of the `wanted` webhooks are
    given back as if read.
    """
    try:
        return _dispatch(limit, wait, place, others, wanted, room, _ONCE)
    except IntegrityError:
        dispatched = _dispatch(limit, wait, place, others, wanted, room, _AGAIN)
        log.warning("events had been dispatched before")
        return dispatched


def waiting(limit: int = BATCH, *, place: tuple[int, int] = (0, 1), others: int = ALL) -> bool:
    """Whether an event waits that `dispatch` would take."""
    number, count = place
    if count == 1 or others == ALL:
        return sql.finds(_WAITING)
    return bool(sql.run_in_order(_WAITING_FOR_US, [_window(limit, count), count, number, others]))


def newest() -> int:
    """The id of the newest event that waits to be dispatched, 0 for none."""
    return max((row[0] for row in sql.run_in_order(_NEWEST, [])), default=0)


def _window(limit: int, count: int) -> int:
    """How many of the oldest events are looked at: among so many, `limit` are about those of one of `count` engines."""
    return limit if count == 1 else limit * (count + 1)


def settle_positions() -> None:
    """Wait until the disk has the positions that can be seen now: called before anybody is told of them.

    A crash of the server would give them to other events, and who goes on behind them would miss those.
    """
    if sql.vendor() == "postgresql":
        # A message to nobody: what writes nothing is committed without waiting.
        sql.run("SELECT pg_logical_emit_message(true, 'webio', '')", [])


def _dispatch(
    limit: int, wait: bool, place: tuple[int, int], others: int, wanted: Collection[int], room: int, again: str
) -> Dispatched:
    if sql.vendor() != "postgresql":
        with transaction.atomic():
            return _dispatch_sqlite(limit, wanted, room, again)
    # In a transaction of the caller's, what fails must be taken back alone.
    with transaction.atomic() if connection.in_atomic_block else nullcontext():
        return _dispatch_postgresql(limit, wait, place, others, wanted, room, again)


def _dispatch_postgresql(
    limit: int, wait: bool, place: tuple[int, int], others: int, wanted: Collection[int], room: int, again: str
) -> Dispatched:
    moment = str(sql.text(now()))
    number, count = place
    given: list[Plain] = [list(wanted), _window(limit, count), count, number, others, count, number, limit]
    given += [POSITIONS, FORMAT_VERSION, f"{moment}+00", moment, room]
    lock = _LOCK_POSTGRESQL.replace("{how}", "" if wait else "SKIP LOCKED")
    # A statement sees what was committed before it began: the second all that was done by who held the lock before.
    locked, rows = sql.run_in_turn((lock, [POSITIONS]), (_all_postgresql(again), given))
    if not locked[0][-1]:
        if Sequence.objects.get_or_create(name=POSITIONS)[1]:
            return _dispatch_postgresql(limit, wait, place, others, wanted, room, again)
        return Dispatched(elsewhere=True)
    taken, further, *_first = rows[0]
    # Put in order here: the server would put whole events in order.
    fresh = sorted((row[2:] for row in rows if row[2] is not None), key=itemgetter(0))
    return Dispatched(taken, due.ready(fresh), further)


@cache
def _all_postgresql(again: str) -> str:
    statement = _ALL_POSTGRESQL.replace("{now}", "CAST(%s AS timestamptz)").replace("{again}", again)
    # All that is made here is due at the same moment.
    return due.in_utc(statement.replace("{facts}", "facts").replace("{due_at}", "CAST(%s AS text)"))


def _dispatch_sqlite(limit: int, wanted: Collection[int], room: int, again: str) -> Dispatched:
    taken = [row[0] for row in sql.run(_OLDEST, [limit])]
    if not taken:
        return Dispatched()
    ((value,),) = sql.run(_COUNTER, [POSITIONS]) or [(Sequence.objects.get_or_create(name=POSITIONS)[0].value,)]
    chosen = sql.numbers(taken)
    sql.run(_NUMBER.replace("{taken}", _OWNED_SQLITE), [value, chosen])
    sql.run(f"DELETE FROM {_OWNED_SQLITE}", [chosen])
    Sequence.objects.filter(name=POSITIONS).update(value=value + len(taken))
    moment = sql.moment(now())
    fan_out = _FAN_OUT.replace("{now}", "%s").replace("{facts}", _FACTS_SQLITE).replace("{state}", _STATE)
    fan_out = fan_out.replace("{hearing}", _hearing("sqlite", "event"))
    fan_out = fan_out.replace("{again}", again)
    ((latest,),) = sql.run(outstanding.LATEST, [])
    sql.run(fan_out, [FORMAT_VERSION, moment, chosen])
    first, ours = latest + 1, sql.numbers(wanted)
    sql.run(outstanding.ADD.replace("{deliveries}", outstanding.NEWER), [latest])
    condition = sql.among("d.webhook_id")
    others = [row[0] for row in sql.run(_OTHERS_SQLITE.replace("{wanted}", condition), [first, ours])]
    made = due.in_utc(_MADE_SQLITE.replace("{wanted}", condition))
    rows = sql.run(made, [first, first, ours, room]) if room else []
    return Dispatched(len(taken), due.ready(rows), others)
