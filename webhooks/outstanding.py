"""Deliveries that are not finished: how their rows come to be, are held, released and cancelled.

A delivery's `Outstanding` is written before the delivery itself, always: it is the lock of both.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import connections, router, transaction
from django.db.models import Q, QuerySet

from core.clock import now
from core.models import Sequence
from webhooks.models import Delivery, Outstanding, Webhook

#: States that `Delivery.exception` repeats.
EXCEPTIONS = (Delivery.State.FAILED, Delivery.State.HELD, Delivery.State.CANCELLED)

#: The counter of positions: whoever fans events out holds it until that is committed.
POSITIONS = "event_position"
#: So long may it be held at most by one who does nothing: nobody could fan out meanwhile, seconds.
IDLE_SECONDS = 5

#: Rows changed by one statement: SQLite takes 32,766 parameters.
AT_ONCE = 10_000

#: What is outstanding of `{deliveries}` that have just been made: pending ones are due since then.
ADD = """
INSERT INTO {outstanding} (
    delivery_id, organisation_id, webhook_id, event_id, lane, seq, format, format_version, next_attempt_at,
    attempt_count, blocks
)
SELECT id, organisation_id, webhook_id, event_id, CASE WHEN kind = 'event' THEN conversation_id END, seq, format,
       format_version, CASE WHEN state = 'pending' THEN created_at END, attempt_count,
       kind = 'event' AND conversation_id IS NOT NULL
FROM {deliveries} ORDER BY id
"""
#: What that reads of them.
COPIED = """
    id, organisation_id, webhook_id, event_id, kind, conversation_id, seq, format, format_version, state, created_at,
    attempt_count
"""
#: On SQLite, which has one writer, the deliveries made since this was the highest number.
LATEST = "SELECT COALESCE(MAX(id), 0) FROM {delivery}"
NEWER = "{delivery} WHERE id > %s"

_NAMES = {"delivery": Delivery._meta.db_table, "outstanding": Outstanding._meta.db_table}


def insert(statement: str, parameters: list[Any]) -> int:
    """Execute an `INSERT INTO … SELECT` of deliveries with what is outstanding of them. Returns how many were made."""
    connection = connections[router.db_for_write(Delivery)]
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            add = ADD.format(deliveries="made", **_NAMES)
            cursor.execute(f"WITH made AS ({statement} RETURNING {COPIED}) {add}", parameters)
        else:
            cursor.execute(LATEST.format(**_NAMES))
            latest = cursor.fetchone()[0]
            cursor.execute(statement, parameters)
            cursor.execute(ADD.replace("{deliveries}", NEWER).format(**_NAMES), [latest])
        return cursor.rowcount


def of(delivery: Delivery, next_attempt_at: datetime | None, *, blocks: bool = False) -> Outstanding:
    """What is outstanding of a delivery that is due then, None while it is held; `blocks` its lane. Not saved."""
    return Outstanding(
        delivery=delivery,
        organisation_id=delivery.organisation_id,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        lane=delivery.conversation_id if delivery.kind == Delivery.Kind.EVENT else None,
        seq=delivery.seq,
        format=delivery.format,
        format_version=delivery.format_version,
        next_attempt_at=next_attempt_at,
        attempt_count=delivery.attempt_count,
        blocks=blocks,
    )


def hold(webhook: Webhook) -> int:
    """Hold what is pending of a webhook. Returns how many.

    A request that is under way ends: its success counts, its failure leaves the delivery held.
    """
    pending = Outstanding.objects.filter(webhook=webhook, next_attempt_at__isnull=False)
    return _move(pending, None, Delivery.State.HELD)


def release(which: QuerySet[Outstanding]) -> int:
    """Make what is held among these due now. Returns how many."""
    return _move(which.filter(next_attempt_at=None), now(), Delivery.State.PENDING)


def release_all(which: QuerySet[Outstanding]) -> int:
    """`release` in the transaction that lets these be sent, its last change: nothing stays held that is fanned out
    meanwhile by somebody who saw them held. What comes after it in its conversation would overtake it.

    Fan-out waits only for what was held in the last moment. Returns how many.
    """
    with transaction.atomic():
        released = release(which)
        connection = connections[router.db_for_write(Delivery)]
        if connection.vendor != "postgresql":
            return released
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', '%ss', true)", [IDLE_SECONDS])
        list(Sequence.objects.select_for_update(no_key=True).filter(name=POSITIONS))
        return released + release(which)


def keep_back(webhook: Webhook) -> None:
    """Let what has been tried and is not finished keep back the next ones of its conversation."""
    tried = Outstanding.objects.filter(webhook=webhook, lane__isnull=False, blocks=False)
    with transaction.atomic():
        for some in _locked(tried):
            Outstanding.objects.filter(pk__in=some).update(blocks=True)


def _move(which: QuerySet[Outstanding], next_attempt_at: datetime | None, state: Delivery.State) -> int:
    with transaction.atomic():
        moved = _locked(which)
        for some in moved:
            Outstanding.objects.filter(pk__in=some).update(next_attempt_at=next_attempt_at)
            Delivery.objects.filter(pk__in=some).update(state=state)
    return sum(map(len, moved))


def cancel(which: QuerySet[Outstanding]) -> int:
    """Cancel these. The attempt of a request that is under way is kept, but superseded. Returns how many."""
    moment = now()
    with transaction.atomic():
        unfinished = _locked(which)
        for some in unfinished:
            Delivery.objects.filter(pk__in=some).update(state=Delivery.State.CANCELLED, finished_at=moment)
            Outstanding.objects.filter(pk__in=some).delete()
    return sum(map(len, unfinished))


def _locked(which: QuerySet[Outstanding]) -> list[list[int]]:
    """The numbers of these, locked in their order as outcomes lock them, a statement's worth at a time.

    Rows that are made meanwhile are not among them: the sweep finds those (`webhooks.stranded`).
    """
    found = list(which.order_by("pk").select_for_update().values_list("pk", flat=True))
    return [found[start : start + AT_ONCE] for start in range(0, len(found), AT_ONCE)]


def in_states(states: Iterable[str]) -> Q:
    """The condition that a delivery is in one of these states, in words that an index serves if it can."""
    wanted = list(states)
    return Q(exception__in=wanted) if set(wanted) <= set(EXCEPTIONS) else Q(state__in=wanted)


def in_state(state: str, webhook_id: int | None = None) -> Q:
    """The condition that a delivery is in a state, in words that an index serves; `webhook_id` if it is of one only."""
    if state != Delivery.State.PENDING:
        return in_states([state])
    own = Q() if webhook_id is None else Q(outstanding__webhook=webhook_id)
    return own & Q(outstanding__next_attempt_at__isnull=False)
