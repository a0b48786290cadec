"""Settings that would hurt in production are refused with a code."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from webio import checks

GOOD_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


@pytest.fixture
def production(settings: Any) -> Any:
    """Settings as a careful operator has them."""
    settings.RELAXED = False
    settings.SECRET_KEY = "x" * 60
    settings.FIELD_ENCRYPTION_KEYS = [GOOD_KEY]
    settings.ALLOWED_HOSTS = ["webio.example.com"]
    settings.PUBLIC_URL = "https://webio.example.com"
    settings.API_RATE_LIMIT = "1000/minute"
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    settings.TRUSTED_PROXIES = ["unix", "10.1.0.0/16", "2001:db8::1"]
    settings.BROKER_URL = ""
    return settings


def codes() -> list[str | None]:
    """What all checks say."""
    every = (checks.check_secrets, checks.check_addresses, checks.check_proxies, checks.check_limits)
    return [message.id for check in every for message in check(None)]


def test_good_settings_pass(production: Any) -> None:
    assert codes() == []


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("SECRET_KEY", "insecure-key-for-development-and-demo-only-never-for-production", "webio.E001"),
        ("FIELD_ENCRYPTION_KEYS", [], "webio.E002"),
        ("FIELD_ENCRYPTION_KEYS", ["not base64!"], "webio.E003"),
        ("FIELD_ENCRYPTION_KEYS", [GOOD_KEY, base64.urlsafe_b64encode(b"short").decode()], "webio.E003"),
        ("ALLOWED_HOSTS", ["*"], "webio.E004"),
        ("OUTBOUND_ALLOWED_NETWORKS", ["10.0.0.1/8"], "webio.E005"),
        ("OUTBOUND_ALLOWED_NETWORKS", ["everything"], "webio.E005"),
        ("TRUSTED_PROXIES", ["10.0.0.1/8"], "webio.E010"),
        ("TRUSTED_PROXIES", ["2"], "webio.E010"),
        ("TRUSTED_PROXIES", ["proxy.example.com"], "webio.E010"),
        ("TRUSTED_PROXIES", ["10.0.0.0/8", "0.0.0.0/0"], "webio.E010"),
        ("PUBLIC_URL", "webio.example.com", "webio.E006"),
        ("PUBLIC_URL", "http://webio.example.com", "webio.W001"),
        ("API_RATE_LIMIT", "many", "webio.E007"),
        ("API_RATE_LIMIT", "0/minute", "webio.E007"),
        ("BROKER_URL", "amqp://localhost", "webio.E008"),
        ("WEBHOOKS_PER_ORGANISATION", 0, "webio.E009"),
        ("EVENTS_WAIT_SECONDS", -1, "webio.E011"),
        ("EVENTS_WAIT_SECONDS", 31, "webio.E011"),
        ("WEBHOOK_DISABLE_AFTER_DAYS", 0, "webio.E012"),
        ("WEBHOOK_DISABLE_AFTER_DAYS", 366, "webio.E012"),
    ],
)
def test_a_bad_setting_is_named(production: Any, name: str, value: object, code: str) -> None:
    setattr(production, name, value)
    assert codes() == [code]


def test_unsafe_defaults_are_fine_for_the_demo(production: Any) -> None:
    production.RELAXED = True
    production.SECRET_KEY = production.INSECURE_SECRET_KEY
    production.FIELD_ENCRYPTION_KEYS = []
    production.ALLOWED_HOSTS = ["*"]
    assert codes() == []
