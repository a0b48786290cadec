"""The audit trail of settings: who changed what, from where."""

from __future__ import annotations

from typing import Any

from django.db import models

from core.actors import Actor
from core.clients import current_client
from core.clock import now
from organisations.models import AuditEntry, Organisation


def record_audit(
    actor: Actor,
    action: str,
    row: models.Model | None,
    *,
    organisation: Organisation | None = None,
    data: dict[str, Any] | None = None,
) -> AuditEntry:
    """Record that `actor` did `action` ("noun.verb") to `row`, in the caller's transaction.

    `organisation` is the row's own unless given. `data` holds facts, never a secret. The client's address is added
    when a request is being answered.
    """
    if organisation is None and row is not None:
        organisation = row if isinstance(row, Organisation) else getattr(row, "organisation", None)
    return AuditEntry.objects.create(
        organisation=organisation,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
        action=action,
        object_type=row._meta.model_name or "" if row is not None else "",
        object_id=str(row.pk) if row is not None else "",
        object_label=str(row)[:255] if row is not None else "",
        data=data or {},
        ip_address=current_client() or None,
        created_at=now(),
    )
