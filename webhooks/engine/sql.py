"""The few words in which SQLite's and PostgreSQL's SQL differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import DEFAULT_DB_ALIAS, connections

from conversations.models import Event
from core.models import Sequence
from organisations.models import Organisation
from webhooks.models import Attempt, Delivery, EngineTotal, Lease, Subscription, Tally, Webhook

TABLES = {
    "event": Event._meta.db_table,
    "delivery": Delivery._meta.db_table,
    "attempt": Attempt._meta.db_table,
    "webhook": Webhook._meta.db_table,
    "subscription": Subscription._meta.db_table,
    "organisation": Organisation._meta.db_table,
    "sequence": Sequence._meta.db_table,
    "lease": Lease._meta.db_table,
    "tally": Tally._meta.db_table,
    "total": EngineTotal._meta.db_table,
}


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


def rows_of(name: str, columns: Mapping[str, str], rows: Iterable[Iterable[Any]]) -> tuple[str, list[Any]]:
    """`WITH name(columns) AS (…)` over given rows, and its parameters. `columns` maps names to PostgreSQL types.

    On PostgreSQL each column is one parameter, an array: psycopg takes longer to fill in thousands of marks than the
    server takes for the statement, and the server longer to read the same rows from JSON than to write them.
    """
    head = f"WITH {name}({', '.join(columns)}) AS "
    if vendor() == "postgresql":
        kinds = ", ".join(f"CAST(%s AS {kind}[])" for kind in columns.values())
        arrays = [_array(values, kind) for values, kind in zip(zip(*rows, strict=True), columns.values(), strict=True)]
        return head + f"(SELECT * FROM unnest({kinds}))", arrays
    marks = "(" + ", ".join(["%s"] * len(columns)) + ")"
    plain: list[Any] = []
    for row in rows:
        for value, kind in zip(row, columns.values(), strict=True):
            if kind == "jsonb":
                plain.append(orjson.dumps(value).decode())
            else:
                plain.append(moment(value) if isinstance(value, datetime) else value)
    return head + "(VALUES " + ", ".join([marks] * (len(plain) // len(columns))) + ")", plain


def _array(values: Iterable[Any], kind: str) -> str:
    """A PostgreSQL array as text (PostgreSQL manual, 8.15.6)."""
    if kind == "boolean":
        return "{" + ",".join(["t" if value else "f" for value in values]) + "}"
    if kind in ("text", "jsonb", "timestamptz"):
        return "{" + ",".join(["NULL" if value is None else _quoted(value, kind) for value in values]) + "}"
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _quoted(value: Any, kind: str) -> str:
    element = orjson.dumps(value).decode() if kind == "jsonb" else str(value)
    if "\\" in element or '"' in element:
        element = element.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{element}"'


def text(value: datetime | None) -> str | None:
    """A point in time as SQLite stores it, without the look at settings that Django takes at each."""
    return None if value is None else value.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def run_many(sql: str, rows: list[tuple[Any, ...]]) -> None:
    """Execute one statement for each row of parameters."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.executemany(sql.format(**TABLES), rows)


def run(sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    """Execute one statement with `{table}` names filled in; its rows, if it returns any.

    On PostgreSQL parameters travel beside the text and the plan is kept: with Django's cursors, which write them into
    it, the server would take longer to read and plan these statements than to execute them.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    text = sql.format(**TABLES)
    if connection.vendor == "postgresql":
        from psycopg import Cursor

        connection.ensure_connection()
        with connection.wrap_database_errors, Cursor(connection.connection) as prepared:
            # Behind PgBouncer the next statement may meet another server process.
            kept = not connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"]
            prepared.execute(text, parameters, prepare=kept)
            return prepared.fetchall() if prepared.description else []
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        return list(cursor.fetchall()) if cursor.description else []
