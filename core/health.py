"""/healthz: the process answers. /readyz: it can do its work, check by check."""

from __future__ import annotations

from collections.abc import Callable

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

#: Name → function that returns "" when all is well, else what is wrong. Apps add theirs in `ready()`.
CHECKS: dict[str, Callable[[], str]] = {}


def check_database() -> str:
    """The database answers a query."""
    try:
        with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return f"The database does not answer ({type(error).__name__})."
    return ""


_migrated = False


def check_migrations() -> str:
    """All migrations are applied. Once true, it is not looked at again."""
    global _migrated
    if _migrated:
        return ""
    try:
        executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
        _migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return f"The database does not answer ({type(error).__name__})."
    return "" if _migrated else "Migrations are missing: run manage.py migrate."


CHECKS["database"] = check_database
CHECKS["migrations"] = check_migrations


@never_cache
@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """200 as long as the process answers."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """200 `{"status": "ok", "checks": {name: "ok"}}`, or 503 with what is wrong by name."""
    found = {name: check() or "ok" for name, check in CHECKS.items()}
    ready = all(state == "ok" for state in found.values())
    return JsonResponse({"status": "ok" if ready else "unavailable", "checks": found}, status=200 if ready else 503)
