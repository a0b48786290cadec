"""The verbs of organisations, people and keys. Each is atomic, takes an actor and refuses with `core.errors`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _

from core.actors import Actor
from core.clock import now
from core.errors import Invalid
from core.text import clean_text
from organisations.audit import record_audit
from organisations.keys import new_key
from organisations.models import ApiKey, Organisation, User
from organisations.scopes import SCOPES


def create_api_key(
    *,
    organisation: Organisation,
    actor: Actor,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    created_by: User | None = None,
) -> tuple[ApiKey, str]:
    """Make a key. Returns the row and the whole key, which nobody can read again.

    Raises `Invalid` for the name, an unknown scope, no scope, or an expiry in the past.
    """
    clean_text("name", name, minimum=1)
    chosen = sorted(set(scopes))
    unknown = [scope for scope in chosen if scope not in SCOPES]
    if unknown:
        raise Invalid.field("scopes", _("Unknown scope: %(scope)s.") % {"scope": unknown[0]})
    if not chosen:
        raise Invalid.field("scopes", _("Choose at least one scope."))
    if expires_at is not None and expires_at <= now():
        raise Invalid.field("expiresAt", _("Must be in the future."))
    key, prefix, key_hash = new_key()
    with transaction.atomic():
        row = ApiKey.objects.create(
            organisation=organisation,
            name=name,
            prefix=prefix,
            key_hash=key_hash,
            scopes=chosen,
            expires_at=expires_at,
            created_by=created_by,
        )
        record_audit(actor, "apikey.create", row, data={"scopes": chosen})
    return row, key
