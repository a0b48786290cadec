"""Statements past Django's cursors, for the few places where every message passes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import DataError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from core.sqlite.base import DatabaseWrapper

#: PostgreSQL manual, appendix A: invalid_sql_statement_name.
NOT_PREPARED = "26000"
#: What a statement's `%s` may stand for in `execute_in_turn`.
Plain = int | str | datetime | list[int]

Answer = TypeVar("Answer")

_numbers = count(1)


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
            waiting: DatabaseWrapper = connection  # type: ignore[assignment]
            raw, known = connection.connection, qmarks(text)
            rows: list[tuple[Any, ...]] = waiting.in_turn(text, lambda: raw.execute(known, parameters).fetchall())
            return rows
        from psycopg import Cursor

        with Cursor(connection.connection) as prepared:
            prepared.execute(text, parameters, prepare=True)
            return _rows(prepared)


def finds(connection: BaseDatabaseWrapper, *texts: str) -> bool:
    """Whether on PostgreSQL the last of these statements returns a row, all without parameters and in one transaction;
    for what is asked all day while nothing happens.

    They are prepared and go to libpq without a cursor: code that has not run for 40 ms has to be fetched from memory,
    and psycopg's cursor took longer than the rest of an idle engine. Raises what Django's cursors raise.
    """
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    if connection.in_atomic_block or connection.connection.prepare_threshold is None:
        return bool(execute_in_turn(connection, [(text, ()) for text in texts])[-1])
    return _prepared_or_again(connection, lambda: _finds_prepared(connection, texts))


def execute_in_turn(
    connection: BaseDatabaseWrapper, statements: Sequence[tuple[str, Sequence[Plain]]]
) -> list[list[tuple[Any, ...]]]:
    """Execute statements on PostgreSQL, each with its parameters, in one round trip; the rows of each.

    Outside of a transaction they have one for all of them, which ends with the last (PostgreSQL manual, 55.2.2.1), and
    are planned once for the connection where its option `prepare_threshold` allows it. Raises what Django's cursors
    raise; then nothing was done.
    """
    connection.ensure_connection()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors:
        # After a rollback psycopg drops all that is prepared, and inside a transaction nothing could be tried again.
        whole = connection.in_atomic_block or not connection.get_autocommit()
        if whole or connection.connection.prepare_threshold is None:
            return _in_turn(connection, [text % _literals(connection, given) for text, given in statements])
    return _prepared_or_again(connection, lambda: _in_turn_prepared(connection, statements))


def _prepared_or_again(connection: BaseDatabaseWrapper, asks: Callable[[], Answer]) -> Answer:
    """What `asks` returns, which executes what was prepared, again if that has been dropped meanwhile."""
    try:
        return asks()
    except ProgrammingError as problem:
        if getattr(problem.__cause__, "sqlstate", "") != NOT_PREPARED:
            raise
        _known(connection).clear()
    return asks()


def _finds_prepared(connection: BaseDatabaseWrapper, texts: Sequence[str]) -> bool:
    from psycopg.errors import error_from_result
    from psycopg.pq import ExecStatus

    with connection.wrap_database_errors:
        named = ";".join([_prepared(connection, text, ()) for text in texts])
        # What it gives is of the last.
        result = connection.connection.pgconn.exec_(named.encode())
        if result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result)
        return bool(result.ntuples)


def _in_turn_prepared(
    connection: BaseDatabaseWrapper, statements: Sequence[tuple[str, Sequence[Plain]]]
) -> list[list[tuple[Any, ...]]]:
    with connection.wrap_database_errors:
        return _in_turn(connection, [_prepared(connection, text, given) for text, given in statements])


def _in_turn(connection: BaseDatabaseWrapper, texts: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    from psycopg import Cursor

    with Cursor(connection.connection) as plain:
        plain.execute("\n;".join(texts), prepare=False)
        found = [_rows(plain)]
        while plain.nextset():
            found.append(_rows(plain))
        return found


def _rows(cursor: Any) -> list[tuple[Any, ...]]:
    """What a statement returned. A cursor's `description` would tell whether it is anything; it takes longer."""
    found: list[tuple[Any, ...]] = cursor.fetchall() if cursor.pgresult.nfields else []
    return found


def _prepared(connection: BaseDatabaseWrapper, text: str, given: Sequence[Plain]) -> str:
    """How to execute a statement by its name, which it is given at its first use on this connection."""
    known = _known(connection)
    if text not in known:
        name = f"webio_{os.getpid()}_{next(_numbers)}"
        marks = tuple(f"${number}" for number in range(1, len(given) + 1))
        _in_turn(connection, [f"PREPARE {name} AS {text % marks}"])
        known[text] = name
    return f"EXECUTE {known[text]}" + (f"({', '.join(_literals(connection, given))})" if given else "")


def _known(connection: BaseDatabaseWrapper) -> dict[str, str]:
    """The names of statements that have been prepared on this connection, by their text."""
    names: dict[str, str] = connection.connection.__dict__.setdefault("webio_prepared", {})
    return names


def _literals(connection: BaseDatabaseWrapper, given: Sequence[Plain]) -> tuple[str, ...]:
    """Parameters as the server reads them: quoted, numbers too, so that their types are found out as those of marks."""
    from psycopg.pq import Escaping

    quoted = Escaping(connection.connection.pgconn).escape_literal
    texts = ("{" + ",".join(map(str, one)) + "}" if isinstance(one, list) else str(one) for one in given)
    return tuple(bytes(quoted(_whole(text))).decode() for text in texts)


def _whole(text: str) -> bytes:
    """A text as libpq takes it, to the end: at a NUL it would stop."""
    if "\0" in text:
        raise DataError("PostgreSQL text cannot contain NUL bytes.")
    return text.encode()


def instant(value: datetime) -> datetime:
    """A point in time that `execute` gives, aware: what Django makes of SQLite's columns is UTC and does not say so."""
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def qmarks(text: str) -> str:
    """A statement with the marks for parameters that SQLite knows."""
    return text.replace("%s", "?").replace("%%", "%")
