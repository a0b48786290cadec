"""Fields that no app has of its own."""

from __future__ import annotations

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


class RowOf(models.OneToOneField):
    """A one-to-one field that is the primary key of a table that engines fill and empty.

    On SQLite it is the row's own number. Django's would be a `bigint`, which SQLite keeps in an index beside the table,
    because only `integer` names the row itself (sqlite.org/lang_createtable.html, 5); and without that index no part of
    the table could be read by it.
    """

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        return "integer" if connection.vendor == "sqlite" else super().db_type(connection)
