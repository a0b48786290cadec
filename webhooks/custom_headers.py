"""The headers a customer adds to their webhook: what they may be called, what they may hold and how they are kept."""

from __future__ import annotations

import json
import re
from typing import Any

from django.utils.translation import gettext as _

from core.errors import Invalid
from webhooks.models import Webhook

HEADERS_MAX = 20
NAME_MAX = 100
VALUE_MAX = 1_000

#: RFC 9110 §5.6.2: a field name is a token.
NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9110 §5.5 without obs-text: visible ASCII with spaces and tabs inside. A line break would start a new header.
VALUE = re.compile(r"[\x21-\x7e](?:[\x20\x09\x21-\x7e]*[\x21-\x7e])?")

#: What the platform itself says about a request, and what belongs to one connection (RFC 9110 §7.6.1).
RESERVED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
#: Ours, also those still to come.
RESERVED_PREFIXES = ("webhook-", "x-webio-")


def clean_headers(field: str, value: Any) -> dict[str, str]:
    """Custom headers, a dict of name to value. Raises `Invalid` naming `field` and the header that breaks a rule."""
    if not isinstance(value, dict):
        raise Invalid.field(field, _("Must be an object of string values."))
    if len(value) > HEADERS_MAX:
        raise Invalid.field(field, _("Must be at most %(maximum)d headers.") % {"maximum": HEADERS_MAX})
    seen = set()
    for name, text in value.items():
        error = _name_error(name) or _value_error(name, text)
        if error is None and name.lower() in seen:
            error = _("%(name)s is given twice.") % {"name": name}
        if error is not None:
            raise Invalid.field(field, error)
        seen.add(name.lower())
    return value


def _name_error(name: Any) -> str | None:
    if not isinstance(name, str) or len(name) > NAME_MAX or not NAME.fullmatch(name):
        return _("%(name)s is no header name: 1 to %(maximum)d letters, digits and !#$%%&'*+-.^_`|~ are.") % {
            "name": ascii(name)[:NAME_MAX],
            "maximum": NAME_MAX,
        }
    if name.lower() in RESERVED or name.lower().startswith(RESERVED_PREFIXES):
        return _("%(name)s is set by the platform and cannot be overridden.") % {"name": name}
    return None


def _value_error(name: str, text: Any) -> str | None:
    if not isinstance(text, str):
        return _("The value of %(name)s must be a string.") % {"name": name}
    if len(text) > VALUE_MAX or not VALUE.fullmatch(text):
        return _(
            "The value of %(name)s must be 1 to %(maximum)d visible ASCII characters, with spaces only between them."
        ) % {"name": name, "maximum": VALUE_MAX}
    return None


def dump_headers(headers: dict[str, str]) -> str:
    """What is stored of clean headers: a JSON object, "" for none."""
    return json.dumps(headers) if headers else ""


def load_headers(stored: str) -> dict[str, str]:
    """What `dump_headers` stored."""
    return json.loads(stored) if stored else {}


def headers_of(webhook: Webhook) -> dict[str, str]:
    """The custom headers of a webhook. The values may be secrets: show names only."""
    return load_headers(webhook.headers)
