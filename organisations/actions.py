"""The verbs of organisations, people and keys. Each is atomic, takes an actor and refuses with `core.errors`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import available_timezones

import jwt
from django.db import IntegrityError, transaction
from django.dispatch import Signal
from django.utils.translation import gettext as _

from core.actors import Actor
from core.clock import now
from core.errors import Conflict, Invalid
from core.text import clean_text
from organisations.audit import record_audit
from organisations.keys import new_key
from organisations.models import ApiKey, Membership, Organisation, Role, User, WebioToken
from organisations.scopes import SCOPES

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
#: The longest overlap of a rotated key and its successor.
ROTATION_MAXIMUM = timedelta(hours=168)
#: Bytes of the shortest key that HS256 may be used with (RFC 7518 §3.2).
SECRET_KEY_MINIMUM = 32


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


#: Sent inside the transaction of a suspension or its end. Argument: `organisation`.
suspension_changed = Signal()


def suspend_organisation(*, organisation: Organisation, actor: Actor) -> Organisation:
    """Refuse an organisation's keys and members, and send nothing for it. Suspending it twice changes nothing."""
    return _set_suspended(organisation, actor, now(), "organisation.suspend")


def unsuspend_organisation(*, organisation: Organisation, actor: Actor) -> Organisation:
    """End a suspension: what was held meanwhile is sent. Without a suspension nothing changes."""
    return _set_suspended(organisation, actor, None, "organisation.unsuspend")


def _set_suspended(organisation: Organisation, actor: Actor, moment: datetime | None, verb: str) -> Organisation:
    with transaction.atomic():
        locked = Organisation.objects.select_for_update(no_key=True).get(pk=organisation.pk)
        if locked.suspended != (moment is not None):
            locked.suspended_at = moment
            locked.save(update_fields=["suspended_at"])
            record_audit(actor, verb, locked)
            suspension_changed.send(sender=Organisation, organisation=locked)
    organisation.suspended_at = locked.suspended_at
    return organisation


def revoke_api_key(*, api_key: ApiKey, actor: Actor) -> ApiKey:
    """End a key at once. Revoking it twice changes nothing."""
    with transaction.atomic():
        locked = ApiKey.objects.select_for_update(no_key=True).get(pk=api_key.pk)
        if locked.revoked_at is None:
            locked.revoked_at = now()
            locked.save(update_fields=["revoked_at"])
            record_audit(actor, "apikey.revoke", locked)
    api_key.revoked_at = locked.revoked_at
    return api_key


def rotate_api_key(*, api_key: ApiKey, actor: Actor, overlap: timedelta) -> tuple[ApiKey, str]:
    """Make a successor with the same name and scopes; the old key works for `overlap` longer.

    Returns the new row and whole key. Raises `Conflict` `key_not_usable` for a key that is revoked, expired or rotated.
    """
    if not timedelta(0) <= overlap <= ROTATION_MAXIMUM:
        raise Invalid.field("overlap", _("Must be from 0 to 168 hours."))
    with transaction.atomic():
        old = ApiKey.objects.select_for_update(no_key=True).get(pk=api_key.pk)
        moment = now()
        if not old.usable_at(moment) or old.replaced_by_id is not None:
            raise Conflict("key_not_usable", _("Only a key in use that was not rotated yet can be rotated."))
        key, prefix, key_hash = new_key()
        row = ApiKey.objects.create(
            organisation_id=old.organisation_id,
            name=old.name,
            prefix=prefix,
            key_hash=key_hash,
            scopes=old.scopes,
            expires_at=old.expires_at,
            created_by=old.created_by,
        )
        ends = moment + overlap
        old.expires_at = ends if old.expires_at is None else min(ends, old.expires_at)
        old.replaced_by = row
        old.save(update_fields=["expires_at", "replaced_by"])
        record_audit(
            actor, "apikey.rotate", old, data={"successor": row.prefix, "overlap": int(overlap.total_seconds())}
        )
    return row, key


def create_webio_token(
    *,
    organisation: Organisation,
    actor: Actor,
    secret_key: str,
    api_key: ApiKey | None = None,
    created_by: User | None = None,
) -> tuple[WebioToken, str]:
    """Generate the x-webio-token: an HS256 JWT that every request to the organisation carries from now on.

    Claims: `iss` "webio", `sub` the organisation's id, `iat`, `jti`, `kid` the prefix of the key that asked; no `exp`.
    The secret key is not stored. Raises `Invalid` for one shorter than 32 bytes (RFC 7518 §3.2) in UTF-8.
    """
    length = len(secret_key.encode("utf-8", "surrogatepass"))
    if length < SECRET_KEY_MINIMUM:
        message = _("Must be at least %(minimum)d bytes; it has %(length)d.")
        raise Invalid.field("secretKey", message % {"minimum": SECRET_KEY_MINIMUM, "length": length})
    moment = now()
    prefix = api_key.prefix if api_key is not None else ""
    claims: dict[str, Any] = {
        "iss": "webio",
        "sub": str(organisation.pk),
        "iat": int(moment.timestamp()),
        "jti": uuid.uuid4().hex,
        "kid": prefix,
    }
    token = jwt.encode(claims, secret_key, algorithm="HS256")
    with transaction.atomic():
        row = WebioToken.objects.create(
            organisation=organisation,
            token=token,
            key_prefix=prefix,
            created_by=created_by,
            created_at=moment,
        )
        record_audit(actor, "token.create", row, data={"jti": claims["jti"]})
    return row, token


def create_organisation(
    *, actor: Actor, name: str, slug: str, owner: User | None = None, parent: Organisation | None = None
) -> Organisation:
    """Make a tenant, with its first owner. Raises `Invalid` for the name and a bad or taken slug."""
    clean_text("name", name, minimum=1)
    if not SLUG.fullmatch(slug):
        raise Invalid.field("slug", _("Must be 1 to 60 lower-case letters, digits and hyphens."))
    with transaction.atomic():
        try:
            with transaction.atomic():
                organisation = Organisation.objects.create(name=name, slug=slug, parent=parent)
        except IntegrityError:
            # Asking first would let two of the same slug pass together: the constraint decides.
            raise Invalid.field("slug", _("Is already taken."), code="taken") from None
        if owner is not None:
            Membership.objects.create(organisation=organisation, user=owner, role=Role.OWNER)
        record_audit(actor, "organisation.create", organisation)
    return organisation


def update_organisation(*, organisation: Organisation, actor: Actor, name: str, time_zone: str) -> Organisation:
    """Change name and time zone. Events already recorded keep the old zone. Raises `Invalid`."""
    clean_text("name", name, minimum=1)
    if time_zone not in available_timezones():
        raise Invalid.field("timeZone", _("Must be a time zone such as Europe/Dublin."))
    with transaction.atomic():
        organisation.name = name
        organisation.time_zone = time_zone
        organisation.save(update_fields=["name", "time_zone"])
        record_audit(actor, "organisation.update", organisation, data={"name": name, "timeZone": time_zone})
    return organisation
