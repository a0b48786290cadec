"""`Idempotency-Key`: the same POST sent twice is done once and answered the same.

Kept per organisation, method and path for 24 h. While the first call runs a second one is told so (409); the same key
with another body is refused (422). Only successful answers are kept, encrypted, since some hold a secret.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from core.clock import now
from core.errors import Invalid
from organisations.api.problems import Problem
from organisations.models import IdempotencyKey, Organisation

KEPT = timedelta(hours=24)
#: A first call that died frees the key after this time.
LOCKED = timedelta(seconds=60)
KEY_MAX = 255


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer given before."""

    status: int
    body: Any


def begin(organisation: Organisation, method: str, path: str, key: str, body: bytes) -> IdempotencyKey | Kept:
    """Claim a key for a call, or find the answer it got before.

    Raises `Invalid` for a malformed key, 409 while the first call runs, 422 for another body.
    """
    if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= KEY_MAX:
        raise Invalid.field("Idempotency-Key", _("Must be 1 to 255 printable ASCII characters."))
    moment = now()
    mark = {"organisation": organisation, "method": method, "path": path, "key": key}
    body_hash = hashlib.sha256(body).hexdigest()
    fresh = {
        "body_hash": body_hash,
        "locked_until": moment + LOCKED,
        "status_code": None,
        "answer": "",
        "created_at": moment,
        "expires_at": moment + KEPT,
    }
    try:
        with transaction.atomic():
            return IdempotencyKey.objects.create(**mark, **fresh)
    except IntegrityError:
        pass
    with transaction.atomic():
        row = IdempotencyKey.objects.select_for_update().filter(**mark).first()
        if row is None:
            raise Problem(409, "idempotency_conflict", _("A call with this key has just ended; send it again."))
        dead = row.status_code is None and row.locked_until is not None and row.locked_until <= moment
        if row.expires_at <= moment or dead:
            for name, value in fresh.items():
                setattr(row, name, value)
            row.save(update_fields=list(fresh))
            return row
    if row.body_hash != body_hash:
        raise Problem(422, "idempotency_mismatch", _("This Idempotency-Key was used with another body."))
    if row.status_code is None:
        raise Problem(409, "idempotency_running", _("The first call with this Idempotency-Key is still running."))
    return Kept(row.status_code, json.loads(row.answer))


def keep(row: IdempotencyKey, status: int, body: Any) -> None:
    """Keep an answer. Raises 409, so that the call's transaction is undone, when the key went to another call."""
    with transaction.atomic():
        mine = IdempotencyKey.objects.select_for_update().filter(
            pk=row.pk, status_code=None, locked_until=row.locked_until
        )
        if not mine.exists():
            raise Problem(409, "idempotency_conflict", _("The call took too long and was sent again meanwhile."))
        row.status_code, row.answer, row.locked_until = status, json.dumps(body), None
        row.save(update_fields=["status_code", "answer", "locked_until"])


def release(row: IdempotencyKey) -> None:
    """Free the key of a call that was refused, unless it went to another call meanwhile."""
    IdempotencyKey.objects.filter(pk=row.pk, status_code=None, created_at=row.created_at).delete()
