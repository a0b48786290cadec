"""/healthz, /readyz and /metrics."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from core import health


def test_healthz_needs_no_database(client: Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_names_every_check(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECKS", {name: health.CHECKS[name] for name in ("database", "migrations")})
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {"database": "ok", "migrations": "ok"}}


def test_readyz_says_what_is_wrong(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECKS", {"database": health.check_database, "engine": lambda: "No engine runs."})
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": "ok", "engine": "No engine runs."}


def test_metrics_count_requests_by_route_and_never_by_path(client: Client, db: None) -> None:
    client.get("/healthz")
    client.get("/api/v1/conversations/424242")
    text = client.get("/metrics").content.decode()
    assert 'webio_http_requests_total{method="GET",route="healthz",status="200"}' in text
    assert "424242" not in text


def test_methods_nobody_knows_are_counted_together(client: Client, db: None) -> None:
    for method in ("BREW", "get", "X" * 1000):
        client.generic(method, "/healthz")
    labels = [line for line in client.get("/metrics").content.decode().splitlines() if 'route="healthz"' in line]
    assert any('method="other"' in line for line in labels)
    assert not any(word in line for line in labels for word in ("BREW", 'method="get"', "XXX"))


@pytest.mark.parametrize(
    ("token", "headers", "address", "status"),
    [
        ("", {}, "127.0.0.1", 200),
        ("", {}, "192.0.2.7", 403),
        ("", {"X-Forwarded-For": "192.0.2.7"}, "127.0.0.1", 403),
        ("", {"Forwarded": "for=192.0.2.7"}, "127.0.0.1", 403),
        ("", {"X-Forwarded-Proto": "https"}, "127.0.0.1", 403),
        ("secret", {}, "127.0.0.1", 403),
        ("secret", {"Authorization": "Bearer wrong"}, "192.0.2.7", 403),
        ("secret", {"Authorization": "Bearer secret"}, "192.0.2.7", 200),
    ],
)
def test_metrics_are_for_this_machine_or_who_has_the_token(
    client: Client, db: None, settings: Any, token: str, headers: dict[str, str], address: str, status: int
) -> None:
    settings.METRICS_TOKEN = token
    assert client.get("/metrics", headers=headers, REMOTE_ADDR=address).status_code == status
