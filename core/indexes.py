"""Indexes that no app has of its own."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement


class LedIndex(models.Index):
    """An index that PostgreSQL uses only for statements that name its first column, which is never null.

    A table that is filled and emptied again seems empty to PostgreSQL for a while after. What is looked for by another
    column it may then look for by going through all of an index in which that column only comes later, since that seems
    to be one page, and by a plan that it keeps when the table is full again. So there the index has a condition that
    holds for each row but follows only from what names the first column (PostgreSQL manual, 11.8).

    SQLite, which would never use an index with such a condition, has none.
    """

    def create_sql(
        self, model: type[models.Model], schema_editor: BaseDatabaseSchemaEditor, using: str = "", **kwargs: Any
    ) -> Statement:
        if schema_editor.connection.vendor == "sqlite":
            return super().create_sql(model, schema_editor, using, **kwargs)
        named = models.Q((f"{self.fields[0]}__isnull", False))
        led = models.Index(fields=self.fields, name=self.name, condition=named)
        return led.create_sql(model, schema_editor, using, **kwargs)
