"""Delete what has been kept long enough, or say what would go."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from core import retention


class Command(BaseCommand):
    """`manage.py retention [--dry-run]`."""

    help = "Delete rows past their retention, or with --dry-run print how many would go."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="delete nothing, print counts")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"]:
            counts = retention.count()
        else:
            counts, _done = retention.run(budget=float("inf"))
        for name, number in counts.items():
            self.stdout.write(f"{name}: {number}")
