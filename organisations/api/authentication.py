"""`Authorization: Bearer <api key>`."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from core.clients import client_address
from core.clock import now
from organisations.api import ratelimit
from organisations.api.problems import Problem
from organisations.keys import find_key, note_use
from organisations.models import ApiKey

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="webio"'}
#: Calls without a usable key that one address may make.
FAILURES = ratelimit.Limit(60, 60)


def failed(address: str, code: str, detail: str) -> Problem:
    """The refusal of a call without a usable key from the IP address `address`: 401, or 429 after too many.

    Only failures are counted and refused, so that a good key works whatever its neighbours at the address do.
    """
    if settings.API_RATE_LIMIT != "0":
        verdict = ratelimit.spend(f"address:{network_of(address)}", FAILURES)
        if not verdict.allowed:
            detail = _("Too many calls without a usable API key: wait %(seconds)d s.") % {"seconds": verdict.reset}
            return Problem(429, "too_many_failures", detail, headers={"Retry-After": str(verdict.reset)})
    return Problem(401, code, detail, headers=CHALLENGE)


def network_of(address: str) -> str:
    """Whom an address stands for: IPv4 itself, of IPv6 the /64 that one customer of a provider gets."""
    try:
        found = ip_address(address)
    except ValueError:
        # A web server on a Unix socket names no address.
        return "unknown"
    return str(IPv6Address(int(found) >> 64 << 64)) if isinstance(found, IPv6Address) else str(found)


class KeyHolder:
    """What DRF calls the user of a request that carries a key."""

    is_authenticated = True
    is_active = True
    pk = None


class KeyAuthentication(BaseAuthentication):
    """Finds the key's row; `request.auth` is that row. Raises 401 (429) without a usable key, 403 when suspended."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey]:
        scheme, _space, presented = request.headers.get("Authorization", "").partition(" ")
        address = client_address(request)
        if scheme.lower() != "bearer" or not presented:
            raise failed(address, "missing_key", _("Send Authorization: Bearer <API key>."))
        row = find_key(presented.strip())
        if row is None:
            raise failed(address, "bad_key", _("The API key is unknown, expired or revoked."))
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
