"""Settings that would hurt in production are refused at start, each with a code and what to set instead."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from core.clients import UNIX

#: Of all these checks.
TAG = "webio"
RATE = re.compile(r"0|[1-9][0-9]*/(second|minute|hour)")


@register(TAG)
def check_secrets(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E001 SECRET_KEY, E002 FIELD_ENCRYPTION_KEYS missing, E003 malformed."""
    found: list[CheckMessage] = []
    if not settings.RELAXED and settings.SECRET_KEY == settings.INSECURE_SECRET_KEY:
        found.append(Error("SECRET_KEY is not set.", hint="Set it to 50 or more random characters.", id="webio.E001"))
    if not settings.RELAXED and not settings.FIELD_ENCRYPTION_KEYS:
        hint = "Set it to one or more keys: urlsafe base64 of 32 random bytes, separated by commas."
        found.append(Error("FIELD_ENCRYPTION_KEYS is not set.", hint=hint, id="webio.E002"))
    for number, key in enumerate(settings.FIELD_ENCRYPTION_KEYS, 1):
        try:
            length = len(base64.urlsafe_b64decode(key.encode()))
        except (binascii.Error, ValueError):
            length = 0
        if length != 32:
            text = f"Key {number} of FIELD_ENCRYPTION_KEYS is not urlsafe base64 of 32 bytes."
            found.append(Error(text, id="webio.E003"))
    return found


@register(TAG)
def check_addresses(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E004 ALLOWED_HOSTS open, E005 OUTBOUND_ALLOWED_NETWORKS malformed, E006 PUBLIC_URL, W001 PUBLIC_URL plain."""
    found: list[CheckMessage] = []
    if not settings.RELAXED and "*" in settings.ALLOWED_HOSTS:
        found.append(Error("ALLOWED_HOSTS contains *.", hint="Name the hosts people use.", id="webio.E004"))
    found.extend(malformed("OUTBOUND_ALLOWED_NETWORKS", settings.OUTBOUND_ALLOWED_NETWORKS, "webio.E005"))
    parts = urlsplit(settings.PUBLIC_URL)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        found.append(Error("PUBLIC_URL must be like https://webio.example.com.", id="webio.E006"))
    elif not settings.RELAXED and parts.scheme == "http":
        found.append(Warning("PUBLIC_URL is not https: links in mails will be plain.", id="webio.W001"))
    return found


def malformed(name: str, networks: Sequence[str], code: str) -> list[CheckMessage]:
    """An error for each that is no network."""
    found: list[CheckMessage] = []
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            found.append(Error(f"{network!r} in {name} is not a network such as 10.1.0.0/16.", id=code))
    return found


@register(TAG)
def check_proxies(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E010 TRUSTED_PROXIES malformed, or everybody."""
    networks = [network for network in settings.TRUSTED_PROXIES if network != UNIX]
    found = malformed("TRUSTED_PROXIES", networks, "webio.E010")
    if not found and any(ipaddress.ip_network(network).prefixlen == 0 for network in networks):
        text = "TRUSTED_PROXIES lets every client claim any address."
        found.append(Error(text, hint="Name the networks of the proxies only.", id="webio.E010"))
    return found


@register(TAG)
def check_limits(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E007 API_RATE_LIMIT, E008 BROKER_URL, E009 WEBHOOKS_PER_ORGANISATION, E011 EVENTS_WAIT_SECONDS, E012
    WEBHOOK_DISABLE_AFTER_DAYS.
    """
    found: list[CheckMessage] = []
    if not RATE.fullmatch(settings.API_RATE_LIMIT):
        found.append(Error("API_RATE_LIMIT must be 0 or like 1000/minute.", id="webio.E007"))
    if settings.BROKER_URL and urlsplit(settings.BROKER_URL).scheme not in ("redis", "rediss"):
        found.append(Error("BROKER_URL must begin with redis:// or rediss://.", id="webio.E008"))
    if settings.WEBHOOKS_PER_ORGANISATION < 1:
        found.append(Error("WEBHOOKS_PER_ORGANISATION must be at least 1.", id="webio.E009"))
    if not 0 <= settings.EVENTS_WAIT_SECONDS <= 30:
        found.append(Error("EVENTS_WAIT_SECONDS must be from 0 to 30.", id="webio.E011"))
    if not 1 <= settings.WEBHOOK_DISABLE_AFTER_DAYS <= 365:
        found.append(Error("WEBHOOK_DISABLE_AFTER_DAYS must be from 1 to 365.", id="webio.E012"))
    return found
