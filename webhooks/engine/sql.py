"""The few words in which SQLite's and PostgreSQL's SQL differ, and how PostgreSQL is kept to indexes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from django.db import DEFAULT_DB_ALIAS, connections

from conversations.models import Event, Position, Undispatched
from core import models as core
from core.statements import Plain, execute, execute_in_turn
from core.statements import finds as finds_any
from organisations.models import Organisation, WebioToken
from webhooks.models import (
    Attempt,
    Delivery,
    EngineTotal,
    FailureTotal,
    Lease,
    Outstanding,
    Subscription,
    Tally,
    Webhook,
)

TABLES = {
    "event": Event._meta.db_table,
    "undispatched": Undispatched._meta.db_table,
    "position": Position._meta.db_table,
    "delivery": Delivery._meta.db_table,
    "outstanding": Outstanding._meta.db_table,
    "attempt": Attempt._meta.db_table,
    "webhook": Webhook._meta.db_table,
    "subscription": Subscription._meta.db_table,
    "organisation": Organisation._meta.db_table,
    "token": WebioToken._meta.db_table,
    "sequence": core.Sequence._meta.db_table,
    "lease": Lease._meta.db_table,
    "tally": Tally._meta.db_table,
    "total": EngineTotal._meta.db_table,
    "failure_total": FailureTotal._meta.db_table,
}


#: Whatever statistics say of tables that grow and shrink at once, for the rest of a transaction PostgreSQL shall go
#: through indexes, in order, and stop: not read a whole table, or all of an index, to find some hundreds of its rows. A
#: plan made while a table is empty is kept when that has a million rows. What is looked up by another's columns stands
#: in a LATERAL query with OFFSET, which it cannot join in any other way (`looked_up`), or is asked for by `= ANY`; what
#: else is joined is joined by hashing.
#: One plan serves all: to make it anew for each execution, as the server would choose, takes as long as to execute it.
_ORDERLY = {f"enable_{way}": "off" for way in ("bitmapscan", "mergejoin", "nestloop", "seqscan")} | {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
IN_ORDER = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _ORDERLY.items())
_AS_USUAL = [(f"SET LOCAL {name} TO DEFAULT", ()) for name in _ORDERLY]

#: Kind of database to how a table is joined, under its own name, by a condition.
_LOOKED_UP = {
    "postgresql": "CROSS JOIN LATERAL (SELECT * FROM {{{0}}} AS {0} WHERE {1} OFFSET 0) AS {0}",
    "sqlite": "JOIN {{{0}}} AS {0} ON {1}",
}


def looked_up(table: str, condition: str, kind: str = "") -> str:
    """How to join one of `TABLES`, under its name, by a condition that an index serves; `kind` is of the database."""
    return _LOOKED_UP[kind or vendor()].format(table, condition)


def vendor() -> str:
    """ "sqlite" or "postgresql"."""
    return connections[DEFAULT_DB_ALIAS].vendor


def moment(value: datetime | None) -> Any:
    """A point in time as a query parameter."""
    return connections[DEFAULT_DB_ALIAS].ops.adapt_datetimefield_value(value)


def cast(expression: str, kind: str) -> str:
    """`expression` as a PostgreSQL type; SQLite's columns need no telling."""
    return f"CAST({expression} AS {kind})" if vendor() == "postgresql" else expression


def among(column: str) -> str:
    """A condition: `column` is one of the numbers of a parameter made by `numbers`."""
    if vendor() == "postgresql":
        return f"{column} = ANY(%s::bigint[])"
    return f"{column} IN (SELECT value FROM json_each(%s))"


def numbers(values: Iterable[int]) -> Any:
    """Many numbers as one query parameter."""
    return list(values) if vendor() == "postgresql" else orjson.dumps(list(values)).decode()


def rows_of(
    name: str, columns: Mapping[str, str], rows: Iterable[Iterable[Any]], alike: Collection[str] = ()
) -> tuple[str, list[Any]]:
    """`WITH name(columns) AS (…)` over given rows, and its parameters. `columns` maps names to PostgreSQL types; JSON
    is given as text.

    On PostgreSQL each column is one parameter, an array: psycopg takes longer to fill in thousands of marks than the
    server takes for the statement, and the server longer to read the same rows from JSON than to write them. If all
    rows are the same in the columns `alike`, some of them for which that is usual, their values are given once.
    """
    head = f"WITH {name}({', '.join(columns)}) AS "
    if vendor() == "postgresql":
        given, arrays = _given(columns, list(zip(*rows, strict=True)), alike)
        return head + given, arrays
    marks = "(" + ", ".join(["%s"] * len(columns)) + ")"
    plain: list[Any] = []
    for row in rows:
        plain += [moment(value) if isinstance(value, datetime) else value for value in row]
    return head + "(VALUES " + ", ".join([marks] * (len(plain) // len(columns))) + ")", plain


#: Kinds that take the server long to read: of so many values at most each is given once, and rows have its place among
#: them. To find the place in a long array takes the server longer.
_DEAR = frozenset({"jsonb", "timestamptz"})
_FEW = 64


def _given(
    columns: Mapping[str, str], values: Sequence[Sequence[Any]], alike: Collection[str]
) -> tuple[str, list[Any]]:
    """A query of rows whose columns have these values, and its parameters."""
    named = dict(zip(columns, values, strict=True))
    once = alike if all(named[name].count(named[name][0]) == len(named[name]) for name in alike) else ()
    chosen, read, names, kinds, arrays = [], [], [], [], []
    for name, kind in columns.items():
        column = named[name]
        if name in once:
            chosen.append(f"CAST(%s AS {kind})")
            read.append(column[0])
            continue
        places: dict[Any, int | None] = {None: None}
        for value in column if kind in _DEAR else ():
            # The dictionary's length counts None as well, so the first has the place 1, as in PostgreSQL.
            places.setdefault(value, len(places))
        if 1 < len(places) <= _FEW:
            chosen.append(f"(CAST(%s AS {kind}[]))[{name}]")
            read.append(_array(list(places)[1:], kind))
            kind, column = "integer", [places[value] for value in column]
        else:
            chosen.append(name)
        names.append(name)
        kinds.append(f"CAST(%s AS {kind}[])")
        arrays.append(_array(column, kind))
    given = f"unnest({', '.join(kinds)}) AS given({', '.join(names)})"
    return f"(SELECT {', '.join(chosen)} FROM {given})", read + arrays


def _array(values: Sequence[Any], kind: str) -> str:
    """A PostgreSQL array as text (PostgreSQL manual, 8.15.6)."""
    if kind == "boolean":
        return "{" + ",".join(["t" if value else "f" for value in values]) + "}"
    if kind in ("text", "timestamptz", "jsonb"):
        # Most are the same in many rows.
        known: dict[Any, str] = {None: "NULL"}
        for value in values:
            if value not in known:
                known[value] = _quoted(str(value))
        return "{" + ",".join([known[value] for value in values]) + "}"
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _quoted(element: str) -> str:
    if "\\" in element or '"' in element:
        element = element.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{element}"'


#: How many rows a statement holds on SQLite: of few kinds, because it keeps what it has prepared.
_CHUNKS = (64, 8, 1)


def in_chunks(rows: Sequence[tuple[Any, ...]], statement: str) -> None:
    """On SQLite, execute a statement with `{rows}` as many times as it takes for all rows.

    A statement for one row at a time takes longer than one for some dozens; one for thousands has to be prepared anew.
    """
    start = 0
    while start < len(rows):
        size = next(size for size in _CHUNKS if size <= len(rows) - start)
        marks = "(" + ", ".join(["%s"] * len(rows[start])) + ")"
        text = statement.replace("{rows}", "VALUES " + ", ".join([marks] * size))
        run(text, [value for row in rows[start : start + size] for value in row])
        start += size


def text(value: datetime | None) -> str | None:
    """A point in time as SQLite stores it, without the look at settings that Django takes at each."""
    if value is None:
        return None
    if value.tzinfo is UTC:
        return value.isoformat(" ")[:-6]
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def run(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """`core.statements.execute` with `{table}` names filled in."""
    return execute(connections[DEFAULT_DB_ALIAS], _named(sql), parameters)


def finds(sql: str) -> bool:
    """`core.statements.finds` with `{table}` names filled in, on PostgreSQL as `IN_ORDER` says."""
    if vendor() == "sqlite" or connections[DEFAULT_DB_ALIAS].in_atomic_block:
        return bool(run_in_order(sql, ()))
    return finds_any(connections[DEFAULT_DB_ALIAS], IN_ORDER, _named(sql))


def run_in_order(sql: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """`run`, on PostgreSQL as `IN_ORDER` says: in one round trip, or in three inside of a transaction.

    That goes on as usual.
    """
    if vendor() == "sqlite":
        return run(sql, parameters)
    if not connections[DEFAULT_DB_ALIAS].in_atomic_block:
        return run_in_turn((IN_ORDER, ()), (sql, parameters))[1]
    run(IN_ORDER, ())
    rows = run(sql, parameters)
    run_in_turn(*_AS_USUAL)
    return rows


def run_in_turn(*statements: tuple[str, Sequence[Plain]]) -> list[list[tuple[Any, ...]]]:
    """`core.statements.execute_in_turn` with `{table}` names filled in."""
    return execute_in_turn(connections[DEFAULT_DB_ALIAS], [(_named(text), given) for text, given in statements])


@lru_cache(maxsize=64)
def _named(sql: str) -> str:
    return sql.format(**TABLES)
