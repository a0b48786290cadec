"""Statements past Django's cursors, for the few places where every message passes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper


def execute(connection: BaseDatabaseWrapper, text: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Execute one statement, with `%s` for parameters, in the connection's transaction; its rows, if it returns any.

    On PostgreSQL Django's cursors write parameters into the text, and the server would take longer to read and plan
    such a statement than to execute it; here they travel beside it and the plan is kept, where the database's option
    `prepare_threshold` allows it. On SQLite they rewrite the text at each call. Raises what Django's cursors raise.
    """
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        if connection.vendor == "sqlite":
            rows: list[tuple[Any, ...]] = connection.connection.execute(qmarks(text), parameters).fetchall()
            return rows
        from psycopg import Cursor

        with Cursor(connection.connection) as prepared:
            prepared.execute(text, parameters, prepare=True)
            return prepared.fetchall() if prepared.description else []


def instant(value: datetime) -> datetime:
    """A point in time that `execute` gives, aware: what Django makes of SQLite's columns is UTC and does not say so."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def qmarks(text: str) -> str:
    """A statement with the marks for parameters that SQLite knows."""
    return text.replace("%s", "?").replace("%%", "%")
