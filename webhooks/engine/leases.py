"""Which webhooks this engine serves: leases in the database, and what of them still stands by this process's clock.

A lease is counted from before the statement that took it, by a clock that never jumps; the database compares only its
own times. So neither a wrong clock nor a frozen process lets two engines start requests to one webhook. What a frozen
engine had under way may still arrive; its outcome is checked against the delivery (`webhooks.engine.record`).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta

from core.clock import now
from webhooks.engine import sql
from webhooks.engine.outgoing import DEADLINE

#: How long a lease lasts, and how often it is renewed, seconds. An engine that dies delays its webhooks by so much.
SECONDS = 30.0
RENEW_SECONDS = 5.0
#: A request starts only when so much of the lease is left: it ends, and is written down, before somebody else starts.
NEEDED = DEADLINE + 5.0

_TAKE = """
INSERT INTO {lease} (webhook_id, token, until)
SELECT webhook_id, %s, {until} FROM wanted WHERE true ORDER BY webhook_id
ON CONFLICT (webhook_id) DO UPDATE SET token = excluded.token, until = excluded.until
WHERE {lease}.token = excluded.token OR {lease}.until < {now} OR {lease}.until > {impossible}
RETURNING webhook_id
"""
_RENEW = "UPDATE {lease} SET until = {until} WHERE token = %s RETURNING webhook_id"
_GIVE_UP_ALL = "UPDATE {lease} SET token = 0, until = {now} WHERE token = %s"
_GIVE_UP = _GIVE_UP_ALL + " AND {among}"

_tokens: dict[int, int] = {}


def token_of_process() -> int:
    """The name of this process in leases: an engine that failed is followed by one that goes on at once."""
    return _tokens.setdefault(os.getpid(), secrets.randbits(62) + 1)


class Leases:
    """The leases of one engine, taken and renewed many at a time."""

    def __init__(self, token: int | None = None) -> None:
        self.token = token or token_of_process()
        #: Until when each lease stands, by `time.monotonic`.
        self._until: dict[int, float] = {}
        self._renewed_at = time.monotonic()

    def __contains__(self, webhook_id: int) -> bool:
        return webhook_id in self._until

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._until))

    def stands(self, webhook_id: int, moment: float) -> bool:
        """Whether a request to the webhook may start at `moment` (`time.monotonic`)."""
        return self._until.get(webhook_id, 0.0) - moment >= NEEDED

    def add(self, taken: Mapping[int, float]) -> None:
        """Count on leases from now on."""
        self._until.update(taken)

    def renew(self) -> set[int]:
        """Renew all when it is time to. Returns the webhooks that went to somebody else."""
        moment = time.monotonic()
        if not self._until or moment - self._renewed_at < RENEW_SECONDS:
            return set()
        self._renewed_at = moment
        kept = {row[0] for row in _run(_RENEW, [], self.token)}
        lost = self._until.keys() - kept
        self._until = dict.fromkeys(kept, moment + SECONDS)
        return lost

    def give_up(self, webhook_ids: Iterable[int]) -> None:
        """Let others serve these webhooks from now on."""
        ids = [pk for pk in webhook_ids if self._until.pop(pk, None) is not None]
        if ids:
            _run(_GIVE_UP.replace("{among}", sql.among("webhook_id")), [], self.token, [sql.numbers(ids)])

    def give_up_all(self) -> None:
        """The same of all, also of those that were taken and are not counted on."""
        self._until = {}
        _run(_GIVE_UP_ALL, [], self.token)


def ask(token: int, webhook_ids: Collection[int]) -> dict[int, float]:
    """Take in the database what nobody else has. Returns until when each stands, for `Leases.add`."""
    moment = time.monotonic()
    wanted, parameters = sql.rows_of("wanted", {"webhook_id": "bigint"}, [(pk,) for pk in sorted(webhook_ids)])
    rows = _run(wanted + _TAKE, parameters, token)
    return {row[0]: moment + SECONDS for row in rows}


def _run(statement: str, before: list[object], token: int, after: Iterable[object] = ()) -> list[tuple[int]]:
    """Fill in the clock: PostgreSQL's own, which all machines share; on SQLite there is one machine.

    A lease that ends later than any could was taken by a clock that was wrong, and is over.
    """
    if sql.vendor() == "postgresql":
        statement = statement.replace("{now}", "clock_timestamp()")
        statement = statement.replace("{impossible}", f"clock_timestamp() + interval '{2 * SECONDS} seconds'")
        statement = statement.replace("{until}", f"clock_timestamp() + interval '{SECONDS} seconds'")
    else:
        present = now()
        statement = statement.replace("{now}", f"'{sql.moment(present)}'")
        statement = statement.replace("{impossible}", f"'{sql.moment(present + timedelta(seconds=2 * SECONDS))}'")
        statement = statement.replace("{until}", f"'{sql.moment(present + timedelta(seconds=SECONDS))}'")
    return sql.run(statement, [*before, token, *after])  # type: ignore[return-value]
