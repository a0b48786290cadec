"""`Authorization: Bearer <api key>`."""

from __future__ import annotations

from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from core.clock import now
from organisations.api.problems import Problem
from organisations.keys import find_key, note_use
from organisations.models import ApiKey

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="webio"'}


class KeyHolder:
    """What DRF calls the user of a request that carries a key."""

    is_authenticated = True
    is_active = True
    pk = None


class KeyAuthentication(BaseAuthentication):
    """Finds the key's row; `request.auth` is that row. Raises 401 without a usable key, 403 when suspended."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey]:
        scheme, _space, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Problem(401, "missing_key", _("Send Authorization: Bearer <API key>."), headers=CHALLENGE)
        row = find_key(presented.strip())
        if row is None:
            raise Problem(401, "bad_key", _("The API key is unknown, expired or revoked."), headers=CHALLENGE)
        if row.organisation.suspended:
            raise Problem(403, "organisation_suspended", _("The organisation is suspended."))
        note_use(row, now())
        return KeyHolder(), row

    def authenticate_header(self, request: Request) -> str:
        return CHALLENGE["WWW-Authenticate"]


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How OpenAPI names it."""

    target_class = KeyAuthentication
    name = "apiKey"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key of your organisation: `wk_live_…`."}
