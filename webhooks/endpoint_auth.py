"""How a webhook's requests say who asks, beyond their signature: Basic, Bearer, OAuth 2.0, a client certificate.

Secrets are stored encrypted and never shown again: `shown` leaves them out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC
from typing import Any
from urllib.parse import urlencode

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from django.utils.translation import gettext as _

from core.addresses import check_url
from core.clock import now
from core.errors import Invalid
from core.outbound import Outcome, Request, header_line
from webhooks.models import Webhook

#: Seconds for the request of an OAuth 2.0 token.
TOKEN_DEADLINE = 4.0
#: A token is not used for this long before it ends, and without `expires_in` (RFC 6749 §5.1) used for so long, seconds.
TOKEN_MARGIN, TOKEN_UNSAID = 30.0, 300.0
#: Longer than this no token is kept, seconds.
TOKEN_MOST = 3600.0
TEXT_MAX = 1_000
CERTIFICATE_MAX = 32_768

#: Kind → its fields on the wire, and which of them are secret; those that end in "?" may be left out.
FIELDS: dict[str, dict[str, bool]] = {
    Webhook.Auth.BASIC: {"username": False, "password": True},
    Webhook.Auth.BEARER: {"token": True},
    Webhook.Auth.OAUTH2: {"tokenUrl": False, "clientId": False, "clientSecret": True, "scope?": False},
}


def clean_authentication(field: str, value: Any) -> dict[str, str]:
    """Columns `auth_kind` and `auth_settings` of `{"type": …}` with the type's fields, or of None.

    Raises `Invalid` naming `field` and, after a dot, what in it breaks a rule.
    """
    if value is None:
        return {"auth_kind": Webhook.Auth.NONE, "auth_settings": ""}
    if not isinstance(value, dict):
        raise Invalid.field(field, _("Must be an object or null."))
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise Invalid.field(f"{field}.type", _("Must be one of: %(kinds)s.") % {"kinds": ", ".join(FIELDS)})
    known = {name.rstrip("?"): name.endswith("?") for name in FIELDS[kind]}
    errors: dict[str, list[str]] = {}
    for name in value.keys() - known.keys() - {"type"}:
        errors[f"{field}.{ascii(name)[1:-1][:60]}"] = [_("There is no such field.")]
    found = {}
    for name, optional in known.items():
        text = value.get(name)
        if text in (None, "") and optional:
            continue
        problem = _text_problem(text)
        if problem is None and name == "username" and ":" in str(text):
            problem = _("Must not contain a colon (RFC 7617).")
        if problem is None and name == "tokenUrl":
            try:
                check_url(f"{field}.{name}", text)
            except Invalid as refusal:
                errors.update(refusal.errors)
                continue
        if problem is not None:
            errors[f"{field}.{name}"] = [problem]
        found[name] = text
    if errors:
        raise Invalid(errors)
    return {"auth_kind": kind, "auth_settings": json.dumps(found)}


def _text_problem(text: Any) -> str | None:
    if not isinstance(text, str) or not 1 <= len(text) <= TEXT_MAX:
        return _("Must be a string of 1 to %(maximum)d characters.") % {"maximum": TEXT_MAX}
    if not text.isascii() or not text.isprintable():
        return _("Must be visible ASCII characters and spaces.")
    return None


def clean_certificate(field: str, value: Any) -> dict[str, str]:
    """Column `client_certificate` of PEM text with a certificate (and its chain) and its key; "" for none.

    Raises `Invalid` naming `field`: no PEM, key and certificate that do not belong together, expired, encrypted.
    """
    if value in (None, ""):
        return {"client_certificate": ""}
    if not isinstance(value, str) or len(value) > CERTIFICATE_MAX or not value.isascii():
        raise Invalid.field(field, _("Must be PEM text of at most %(maximum)d bytes.") % {"maximum": CERTIFICATE_MAX})
    try:
        certificate = x509.load_pem_x509_certificate(value.encode())
    except ValueError:
        raise Invalid.field(field, _("Must contain a certificate in PEM.")) from None
    try:
        key = load_pem_private_key(_key_block(value), None)
    except (TypeError, ValueError):
        raise Invalid.field(field, _("Must contain the certificate's private key in PEM, not encrypted.")) from None
    own, given = (
        one.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for one in (key.public_key(), certificate.public_key())
    )
    if own != given:
        raise Invalid.field(field, _("The key does not belong to the certificate."))
    if certificate.not_valid_after_utc <= now().astimezone(UTC):
        raise Invalid.field(field, _("The certificate has expired."))
    return {"client_certificate": value}


def _key_block(pem: str) -> bytes:
    """The private key's part of a PEM text. Raises `ValueError`."""
    start = pem.find("PRIVATE KEY-----")
    begin = pem.rfind("-----BEGIN ", 0, start) if start >= 0 else -1
    end = pem.find("-----END ", start)
    stop = pem.find("-----", end + 9)
    if min(start, begin, end, stop) < 0:
        raise ValueError("There is no private key.")
    return pem[begin : stop + 5].encode()


def settings_of(webhook: Webhook) -> dict[str, str]:
    """What the webhook's kind of authentication takes, secrets included."""
    return json.loads(webhook.auth_settings) if webhook.auth_settings else {}


def shown(webhook: Webhook) -> dict[str, str] | None:
    """`{"type": …}` with what is not secret; None for no authentication."""
    if webhook.auth_kind == Webhook.Auth.NONE:
        return None
    secret = {name for name, hidden in FIELDS[webhook.auth_kind].items() if hidden}
    return {"type": str(webhook.auth_kind)} | {
        name: value for name, value in settings_of(webhook).items() if name not in secret
    }


@dataclass(frozen=True, slots=True)
class Authentication:
    """A webhook's authentication, decrypted: a header that stays, or where to ask for a token."""

    #: The whole header line; "" when a token has to be asked for, or there is none.
    line: str = ""
    #: The request that asks for a token.
    asks: Request | None = None

    @property
    def key(self) -> bytes:
        """Names the token: the same for requests that would be the same."""
        assert self.asks is not None
        return hashlib.sha256("\n".join([self.asks.url, *self.asks.headers]).encode() + self.asks.body).digest()


def authentication_of(webhook: Webhook) -> Authentication:
    """Read and decrypt a webhook's authentication."""
    settings = settings_of(webhook)
    if webhook.auth_kind == Webhook.Auth.BASIC:
        pair = f"{settings['username']}:{settings['password']}".encode()
        return Authentication(header_line("authorization", f"Basic {base64.b64encode(pair).decode()}"))
    if webhook.auth_kind == Webhook.Auth.BEARER:
        return Authentication(header_line("authorization", f"Bearer {settings['token']}"))
    if webhook.auth_kind == Webhook.Auth.OAUTH2:
        # RFC 6749 §2.3.1 and §4.4.2: the client's name and secret in the Authorization header.
        pair = urlencode({settings["clientId"]: settings["clientSecret"]}).replace("=", ":", 1).encode()
        form = {"grant_type": "client_credentials"} | ({"scope": settings["scope"]} if "scope" in settings else {})
        headers = [
            header_line("authorization", f"Basic {base64.b64encode(pair).decode()}"),
            header_line("content-type", "application/x-www-form-urlencoded"),
            header_line("accept", "application/json"),
        ]
        asks = Request("POST", settings["tokenUrl"], headers, urlencode(form).encode(), TOKEN_DEADLINE)
        return Authentication(asks=asks)
    return Authentication()


class Tokens:
    """Access tokens of this process, each kept until shortly before it ends."""

    def __init__(self) -> None:
        self._lines: dict[bytes, tuple[str, float]] = {}

    def line(self, authentication: Authentication) -> str | None:
        """The authorization header line; "" for none, None when a token has to be asked for first."""
        if authentication.asks is None:
            return authentication.line
        line, until = self._lines.get(authentication.key, ("", 0.0))
        return line if time.monotonic() < until else None

    def take(self, authentication: Authentication, outcome: Outcome) -> bool:
        """Keep the token of a token endpoint's answer (RFC 6749 §5.1). Returns whether there was one."""
        if not outcome.ok:
            return False
        try:
            answer = orjson.loads(outcome.body)
            token, lasts = answer["access_token"], float(answer.get("expires_in", TOKEN_UNSAID))
            line = header_line("authorization", f"Bearer {token}") if _text_problem(token) is None else ""
        except (KeyError, TypeError, ValueError, AttributeError):
            return False
        if line:
            # Even one that ends soon is good for the requests that wait for it.
            until = time.monotonic() + min(TOKEN_MOST, max(1.0, lasts - TOKEN_MARGIN))
            self._lines[authentication.key] = (line, until)
        return bool(line)

    def drop(self, authentication: Authentication) -> None:
        """The endpoint does not take the token."""
        self._lines.pop(authentication.key, None)
