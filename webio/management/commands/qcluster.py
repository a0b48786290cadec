"""`manage.py qcluster`: django-q's workers, without what only web servers need."""

from __future__ import annotations

from django_q.management.commands import qcluster

from webio.checks import TAG


class Command(qcluster.Command):  # type: ignore[misc]
    """As django-q's, but of the system checks only those of settings are run.

    The others import all pages and the whole API: a second of processor time and 30 MB in every worker.
    """

    requires_system_checks = (TAG,)
