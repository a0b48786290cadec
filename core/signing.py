"""Signatures of the Standard Webhooks specification (symmetric, `v1`), made and checked.

Signed is `<webhook-id>.<webhook-timestamp>.<body>` with HMAC-SHA256; the header holds one `v1,<base64>` for each
secret in force, separated by spaces. Secrets are `whsec_` and base64 of 24 to 64 random bytes.
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

PREFIX = "whsec_"
SECRET_MINIMUM = 24
SECRET_MAXIMUM = 64
#: How far a timestamp may be from now when a signature is checked, seconds.
TOLERANCE = 300


def new_secret() -> str:
    """A fresh signing secret with 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def secret_bytes(secret: object) -> bytes:
    """The key that `whsec_…` stands for. Raises `ValueError` with a sentence that names the broken rule."""
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        raise ValueError(_("Must begin with whsec_."))
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(_("Must be whsec_ followed by base64.")) from None
    if not SECRET_MINIMUM <= len(key) <= SECRET_MAXIMUM:
        raise ValueError(
            _("Must hold %(minimum)d to %(maximum)d bytes; it holds %(length)d.")
            % {"minimum": SECRET_MINIMUM, "maximum": SECRET_MAXIMUM, "length": len(key)}
        )
    return key


def _inner_and_outer(key: bytes) -> tuple[Any, Any]:
    """The two hashes of HMAC-SHA256 that have taken in the key, which is no longer than their block of 64 bytes."""
    padded = key.ljust(64, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in padded)), hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))


class Signer:
    """Signs many messages with the same secrets: the keys are decoded and set up once.

    HMAC as RFC 2104 defines it: to copy its two hashes takes a third less than to copy an `hmac.HMAC`.
    """

    __slots__ = ("_states",)

    def __init__(self, secrets_in_force: Sequence[str]) -> None:
        self._states = [_inner_and_outer(secret_bytes(secret)) for secret in secrets_in_force]

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The `webhook-signature` header of one request; `timestamp` in seconds since 1970."""
        content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
        signatures = []
        for inner, outer in self._states:
            hashed, mac = inner.copy(), outer.copy()
            hashed.update(content)
            mac.update(hashed.digest())
            signatures.append("v1," + base64.b64encode(mac.digest()).decode())
        return " ".join(signatures)


def sign(secrets_in_force: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """`Signer.sign` for one message."""
    return Signer(secrets_in_force).sign(message_id, timestamp, body)


@dataclass(frozen=True, slots=True)
class Signature:
    """Whether a request is genuine, and if not the code and the sentence of the first check that failed.

    Codes: "missing_header", "bad_timestamp", "too_old", "too_new", "bad_format", "no_match", "" when valid.
    """

    valid: bool
    code: str = ""
    reason: str = ""


def verify(
    secrets_in_force: Sequence[str], headers: Mapping[str, str], body: bytes, *, at: float | None = None
) -> Signature:
    """Check a request as a receiver would. `headers` by lower-case name; `at` is now in seconds, None skips the age."""
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not headers.get(name):
            return Signature(False, "missing_header", _("The header %(name)s is missing.") % {"name": name})
    try:
        timestamp = int(headers["webhook-timestamp"])
    except ValueError:
        return Signature(False, "bad_timestamp", _("webhook-timestamp is not a whole number of seconds."))
    if at is not None and timestamp < at - TOLERANCE:
        return Signature(False, "too_old", _("webhook-timestamp is more than five minutes ago."))
    if at is not None and timestamp > at + TOLERANCE:
        return Signature(False, "too_new", _("webhook-timestamp is more than five minutes ahead."))
    shown = [part.removeprefix("v1,") for part in headers["webhook-signature"].split(" ") if part.startswith("v1,")]
    if not shown:
        return Signature(False, "bad_format", _("webhook-signature holds no v1 signature."))
    for expected in sign(secrets_in_force, headers["webhook-id"], timestamp, body).split(" "):
        if any(hmac.compare_digest(expected.removeprefix("v1,").encode(), one.encode()) for one in shown):
            return Signature(True)
    return Signature(False, "no_match", _("No signature matches: another secret, or the body or headers were changed."))
