"""The database refuses a row of one organisation that points at a row of another.

An organisation column alone does not stop a conversation of A from pointing at a queue of B. After each
`migrate`, every table with an organisation gets a trigger that compares it with the organisation of each row it
points at, and that keeps the column from ever changing. As it never changes, looking it up is free of races.
Triggers, because SQLite has no composite foreign keys to add later and rebuilds tables (dropping their
triggers) when a migration alters them: so they are put back after every `migrate` instead of in one migration.
SQLite also refuses to rename a table while a trigger names one that is being rebuilt: there they are taken away
before.

A model may set `tenancy_by_construction = True` when its rows are only ever made by SQL that joins on the
organisation; it then only gets the immutable column.
"""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db import connections, models

COLUMN = "organisation_id"


def remove_triggers(using: str, **_: Any) -> None:
    """`pre_migrate` receiver: on SQLite, take all triggers of ours away."""
    connection = connections[using]
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%!_tenant!_%' ESCAPE '!'"
            )
            for (name,) in cursor.fetchall():
                cursor.execute(f'DROP TRIGGER "{name}"')


def install_triggers(sender: AppConfig, using: str, **_: Any) -> None:
    """`post_migrate` receiver: (re)create the triggers of one app's tables."""
    connection = connections[using]
    existing = set(connection.introspection.table_names())
    for model in sender.get_models():
        if owned(model) and model._meta.db_table in existing:
            statements = sqlite_statements(model) if connection.vendor == "sqlite" else postgresql_statements(model)
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)


def owned(model: type[models.Model]) -> bool:
    """Whether rows of `model` belong to an organisation."""
    return any(field.column == COLUMN for field in model._meta.local_concrete_fields)


def checked_columns(model: type[models.Model]) -> list[tuple[str, str]]:
    """(column, target table) of each foreign key of `model` to a table with an organisation."""
    if getattr(model, "tenancy_by_construction", False):
        return []
    return [
        (field.column, field.related_model._meta.db_table)
        for field in model._meta.local_concrete_fields
        if isinstance(field, models.ForeignKey) and getattr(field, "db_constraint", True) and owned(field.related_model)
    ]


def sqlite_statements(model: type[models.Model]) -> list[str]:
    """Triggers for SQLite; they raise an integrity error."""
    table = model._meta.db_table
    checks = "".join(
        f"""
        SELECT RAISE(ABORT, '{table}.{column} belongs to another organisation')
        WHERE NEW."{column}" IS NOT NULL
          AND (SELECT "{COLUMN}" FROM "{target}" WHERE "id" = NEW."{column}") <> NEW."{COLUMN}";"""
        for column, target in checked_columns(model)
    )
    statements = [
        f'DROP TRIGGER IF EXISTS "{table}_tenant_fixed"',
        f"""CREATE TRIGGER "{table}_tenant_fixed" BEFORE UPDATE OF "{COLUMN}" ON "{table}"
        WHEN NEW."{COLUMN}" IS NOT OLD."{COLUMN}"
        BEGIN SELECT RAISE(ABORT, '{table}.{COLUMN} never changes'); END""",
    ]
    if checks:
        columns = ", ".join(f'"{column}"' for column, _target in checked_columns(model))
        for name, moment in (("insert", "INSERT"), ("update", f"UPDATE OF {columns}")):
            statements += [
                f'DROP TRIGGER IF EXISTS "{table}_tenant_{name}"',
                f'CREATE TRIGGER "{table}_tenant_{name}" BEFORE {moment} ON "{table}" BEGIN {checks} END',
            ]
    return statements


def postgresql_statements(model: type[models.Model]) -> list[str]:
    """A trigger function for PostgreSQL; it raises an integrity error (SQLSTATE 23514)."""
    table = model._meta.db_table
    columns = [COLUMN, *(column for column, _target in checked_columns(model))]
    checks = "".join(
        f"""
        IF NEW."{column}" IS NOT NULL AND EXISTS (
            SELECT 1 FROM "{target}" WHERE "id" = NEW."{column}" AND "{COLUMN}" <> NEW."{COLUMN}"
        ) THEN
            RAISE EXCEPTION '{table}.{column} belongs to another organisation' USING ERRCODE = '23514';
        END IF;"""
        for column, target in checked_columns(model)
    )
    watched = ", ".join(columns)
    return [
        f"""CREATE OR REPLACE FUNCTION "{table}_tenant"() RETURNS trigger LANGUAGE plpgsql AS $body$
    BEGIN
        IF TG_OP = 'UPDATE' AND NEW."{COLUMN}" IS DISTINCT FROM OLD."{COLUMN}" THEN
            RAISE EXCEPTION '{table}.{COLUMN} never changes' USING ERRCODE = '23514';
        END IF;{checks}
        RETURN NEW;
    END $body$""",
        f'DROP TRIGGER IF EXISTS "{table}_tenant" ON "{table}"',
        f"""CREATE TRIGGER "{table}_tenant" BEFORE {"INSERT OR " if checks else ""}UPDATE OF {watched}
        ON "{table}" FOR EACH ROW EXECUTE FUNCTION "{table}_tenant"()""",
    ]
