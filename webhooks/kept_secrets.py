"""Secrets that a change of a webhook keeps. They stay with the address they were entered for.

Stored secrets are never shown, so whoever may change a webhook could otherwise have them sent to a server of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from core.addresses import check_url
from core.errors import Invalid
from webhooks.custom_headers import headers_of
from webhooks.endpoint_auth import FIELDS, settings_of, shown
from webhooks.models import Webhook

PORTS = {"http": 80, "https": 443}


class Kept(Enum):
    """Its one value stands in a change for what is stored."""

    KEPT = "kept"


KEPT = Kept.KEPT


def with_kept(webhook: Webhook, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """`changes`, as `update_webhook` takes them, with what is stored in place of `KEPT`; and errors by wire name.

    A secret that `changes` do not name is kept too. An error is each kept secret whose address changes: the callback
    URL's origin, and for an OAuth 2.0 client secret also the token URL.
    """
    errors: dict[str, list[str]] = {}
    moved = _moved(webhook.callback_url, changes.get("callback_url", webhook.callback_url))
    filled = dict(changes)

    headers = changes.get("headers", dict.fromkeys(headers_of(webhook), KEPT))
    if isinstance(headers, dict):
        names = [name for name, value in headers.items() if value is KEPT]
        if names and moved:
            errors["headers"] = [f"{', '.join(names)}: {_again(moved)}"]
        filled["headers"] = _filled(headers, headers_of(webhook))

    authentication = changes.get("authentication", _authentication(webhook))
    if isinstance(authentication, dict):
        stored = settings_of(webhook) if authentication.get("type") == webhook.auth_kind else {}
        elsewhere = authentication.get("tokenUrl") != stored.get("tokenUrl")
        for name, value in authentication.items():
            if value is KEPT and name in stored and (moved or elsewhere):
                errors[f"authentication.{name}"] = [_again(moved)]
        filled["authentication"] = _filled(authentication, stored)

    if changes.get("client_certificate", KEPT) is KEPT:
        if webhook.client_certificate and moved:
            errors["clientCertificate"] = [_again(moved)]
        filled["client_certificate"] = webhook.client_certificate

    return {name: filled[name] for name in changes}, errors


def _authentication(webhook: Webhook) -> dict[str, Any] | None:
    """A webhook's authentication with its secrets kept."""
    secrets = [name for name, hidden in FIELDS.get(webhook.auth_kind, {}).items() if hidden]
    own = shown(webhook)
    return None if own is None else {**own, **dict.fromkeys(secrets, KEPT)}


def _filled(given: Mapping[str, Any], stored: Mapping[str, str]) -> dict[str, Any]:
    return {name: stored.get(name, "") if value is KEPT else value for name, value in given.items()}


def _again(moved: bool) -> str:
    if moved:
        return _("Enter it again: stored secrets do not follow the callback URL to another scheme, host or port.")
    return _("Enter it again: stored secrets do not follow the token URL to another address.")


def _moved(before: str, after: Any) -> bool:
    """Whether `after` is a URL that may be called, of another origin. What is no such URL is refused elsewhere."""
    try:
        return _origin(before) != _origin(check_url("callbackUrl", after))
    except Invalid:
        return False


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454 §4)."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or PORTS.get(scheme)
