"""Statements past Django's cursors: same transaction, same errors, and on PostgreSQL plans that are kept."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError

from core.statements import execute, execute_in_turn, finds

pytestmark = pytest.mark.django_db

only_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="needs PostgreSQL")


def test_rows_are_given_back_and_parameters_are_no_text() -> None:
    assert execute(connection, "SELECT CAST(%s AS text), 7 %% 4", ["'; --"]) == [("'; --", 3)]


def test_it_is_part_of_the_transaction() -> None:
    name = "core_test_statement"
    with transaction.atomic():
        execute(connection, f"CREATE TABLE {name} (id integer)", [])
        assert name in connection.introspection.table_names()
        transaction.set_rollback(True)
    assert name not in connection.introspection.table_names()


def test_a_broken_transaction_takes_no_more() -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionManagementError):
            execute(connection, "SELECT 1", [])
        transaction.set_rollback(False)


@only_postgresql
def test_errors_are_djangos() -> None:
    with pytest.raises(DataError), transaction.atomic():
        execute(connection, "SELECT CAST(%s AS integer)", ["x"])


@only_postgresql
def test_the_server_keeps_the_plan() -> None:
    statement = "SELECT 'kept', CAST(%s AS integer)"
    for number in range(3):
        assert execute(connection, statement, [number]) == [("kept", number)]
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT ''kept'', CAST($1 AS integer)'"
    assert execute(connection, count, []) == [(1,)]


@only_postgresql
def test_behind_pgbouncer_it_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection.connection, "prepare_threshold", None)
    statement = "SELECT 'not kept', CAST(%s AS integer)"
    assert execute(connection, statement, [1]) == [("not kept", 1)]
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s"
    assert execute(connection, count, ["SELECT 'not kept'%"]) == [(0,)]


#: Two statements that need one transaction: the second reads what the first has set for the rest of it.
SETS = "SELECT set_config('webio.test', %s, true), 5 -%s -- 100 %% of it"
READS = "SELECT current_setting('webio.test', true), cardinality(CAST(%s AS bigint[])), 7 %% 4"
TEXT = "it's 100 % \\ $1"
IN_TURN = [(SETS, [TEXT, -3]), (READS, [[1, 2, 3]])]
FOUND = [[(TEXT, 8)], [(TEXT, 3, 3)]]
PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%set_config(''webio.test''%%'"


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_statements_in_turn_are_one_transaction_and_are_planned_once() -> None:
    for _ in range(2):
        assert execute_in_turn(connection, IN_TURN) == FOUND
    assert execute(connection, "SELECT current_setting('webio.test', true)", []) == [("",)]
    assert execute(connection, PREPARED, []) == [(1,)]


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_statements_in_turn_are_prepared_again_after_what_a_rollback_dropped() -> None:
    assert execute_in_turn(connection, IN_TURN) == FOUND
    with transaction.atomic():
        execute(connection, "SELECT 1", [])
        transaction.set_rollback(True)
    # That is what psycopg does with a rollback.
    assert execute(connection, PREPARED, []) == [(0,)]
    assert execute_in_turn(connection, IN_TURN) == FOUND


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_of_statements_in_turn_nothing_is_done_when_one_fails() -> None:
    execute(connection, "CREATE TABLE core_test_in_turn (id bigint PRIMARY KEY)", [])
    try:
        insert = "INSERT INTO core_test_in_turn VALUES (%s)"
        with pytest.raises(IntegrityError):
            execute_in_turn(connection, [(insert, [1]), (insert, [1])])
        assert execute_in_turn(connection, [(insert, [1]), ("SELECT id FROM core_test_in_turn", [])]) == [[], [(1,)]]
    finally:
        execute(connection, "DROP TABLE core_test_in_turn", [])


@only_postgresql
def test_statements_in_turn_are_part_of_a_transaction() -> None:
    assert execute_in_turn(connection, IN_TURN) == FOUND
    assert execute(connection, "SELECT current_setting('webio.test', true)", []) == [(TEXT,)]
    assert execute(connection, PREPARED, []) == [(0,)]


@only_postgresql
def test_a_text_that_postgresql_cannot_hold_is_refused_and_not_cut() -> None:
    with pytest.raises(DataError, match="NUL"):
        execute_in_turn(connection, [("SELECT %s", ["a\0b"])])


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_behind_pgbouncer_statements_in_turn_are_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection.connection, "prepare_threshold", None)
    assert execute_in_turn(connection, IN_TURN) == FOUND
    assert execute(connection, PREPARED, []) == [(0,)]


ANY = "SELECT 1 FROM core_slot WHERE number < 0"
ONE = "SELECT 1 AS one"


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_whether_a_row_is_found() -> None:
    for _ in range(2):
        assert not finds(connection, ANY)
        assert finds(connection, ONE)
        assert finds(connection, ANY, ONE)
        assert not finds(connection, ONE, ANY)
    with transaction.atomic():
        assert finds(connection, ANY, ONE)
        assert not finds(connection, ONE, ANY)
    with pytest.raises(DatabaseError, match="no_such_table"):
        finds(connection, ONE, "SELECT 1 FROM no_such_table")
    with pytest.raises(DatabaseError, match="no_such_table"):
        finds(connection, "SELECT 1 FROM no_such_table", ONE)
    assert finds(connection, ONE)


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_it_is_found_again_after_what_a_rollback_dropped_and_not_by_a_connection_that_is_gone() -> None:
    assert finds(connection, ONE)
    with transaction.atomic():
        execute(connection, "SELECT 1", [])
        transaction.set_rollback(True)
    assert execute(connection, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'webio%%'", []) == [(0,)]
    assert finds(connection, ONE)
    with connection.wrap_database_errors, connection.connection.cursor() as cursor, contextlib.suppress(Exception):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(DatabaseError):
        finds(connection, ONE)
    connection.close_if_unusable_or_obsolete()
    assert finds(connection, ONE)


@only_postgresql
def test_behind_pgbouncer_nothing_is_prepared_to_find_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    connection.ensure_connection()
    monkeypatch.setattr(connection.connection, "prepare_threshold", None)
    assert finds(connection, ANY, "SELECT 'not prepared' AS one")
    count = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s"
    assert execute(connection, count, ["%''not prepared''%"]) == [(0,)]


@pytest.mark.parametrize(("pgbouncer", "allowed"), [("0", True), ("1", False)])
def test_whether_plans_are_kept_is_a_setting(pgbouncer: str, allowed: bool) -> None:
    database = {"DATABASE_URL": "postgres://webio@127.0.0.1/webio", "DATABASE_PGBOUNCER": pgbouncer, "DEMO": "1"}
    told = "from webio.settings import DATABASES; print('prepare_threshold' in DATABASES['default']['OPTIONS'])"
    done = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, **database},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"{allowed}\n"
