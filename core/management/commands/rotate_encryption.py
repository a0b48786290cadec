"""Seal every encrypted text anew with the first key of `FIELD_ENCRYPTION_KEYS`."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, transaction
from django.db.models import QuerySet

from core.encryption import (
    VERSION,
    DecryptionError,
    EncryptedTextField,
    Sealed,
    encrypt,
    encrypted_fields,
    keyring,
)


class Command(BaseCommand):
    """Put the new key first, restart, run this, then drop the old key. It can be stopped and run again."""

    help = "Encrypt every encrypted field anew with the first key of FIELD_ENCRYPTION_KEYS."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--batch-size", type=int, default=200, help="rows per transaction (200)")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="alias of the database")
        parser.add_argument("--check", action="store_true", help="only count; fail when old keys are still in use")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["batch_size"] < 1:
            raise CommandError("--batch-size must be at least 1.")
        current = keyring().current
        left = 0
        failed = 0
        for field in encrypted_fields():
            rows = self.rows_under_other_keys(field, options["database"])
            label = f"{field.model._meta.label}.{field.name}"
            if options["check"]:
                count = rows.count()
                left += count
                self.stdout.write(f"{label}: {count} under other keys than {current}")
                continue
            done, errors = self.rotate(field, rows, options["batch_size"], options["database"])
            failed += errors
            self.stdout.write(f"{label}: {done} encrypted with key {current}")
        if left:
            raise CommandError(f"{left} values are not encrypted with the first key {current}.")
        if failed:
            raise CommandError(f"{failed} values could not be read and were left alone.")

    @staticmethod
    def rows_under_other_keys(field: EncryptedTextField, using: str) -> QuerySet[Any]:
        """Rows of the field's model whose text is neither empty nor sealed with the first key."""
        current = Sealed(f"{VERSION}:{keyring().current}:")
        return (
            field.model._base_manager.using(using)
            .exclude(**{f"{field.name}__startswith": current})
            .exclude(**{field.name: ""})
            .exclude(**{f"{field.name}__isnull": True})
            .order_by("pk")
        )

    def rotate(self, field: EncryptedTextField, rows: QuerySet[Any], size: int, using: str) -> tuple[int, int]:
        """(values sealed anew, values that do not open). A row written meanwhile is left as its writer sealed it."""
        columns = ["pk", field.name] + ([field.bound_to] if field.bound_to else [])
        done = failed = 0
        last: Any = None
        while True:
            page = rows if last is None else rows.filter(pk__gt=last)
            with transaction.atomic(using=using):
                batch = list(page.values_list(*columns)[:size])
                for pk, sealed, *owner in batch:
                    context = field.context(owner[0] if owner else None)
                    try:
                        fresh = encrypt(field.open(sealed, owner[0] if owner else None), context)
                    except DecryptionError as error:
                        self.stderr.write(f"row {pk}: {error}")
                        failed += 1
                        continue
                    same = field.model._base_manager.using(using).filter(**{"pk": pk, field.name: sealed})
                    done += same.update(**{field.name: fresh})
            if not batch:
                return done, failed
            last = batch[-1][0]
