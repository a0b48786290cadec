"""Calls without a usable key are limited by address; calls with one are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from organisations.api import ratelimit
from organisations.api.authentication import FAILURES, network_of
from organisations.api.ratelimit import Limit, spend
from organisations.models import RateWindow

URL = "/api/v1/organisation"
WRONG = {"Authorization": f"Bearer wk_live_{'a' * 12}_{'b' * 43}"}


@pytest.fixture(autouse=True)
def fresh_windows(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    """A small limit, in the middle of a window that nobody has called in."""
    settings.API_RATE_LIMIT = "1000/minute"
    settings.BROKER_URL = ""
    ratelimit._windows.clear()
    monkeypatch.setattr("organisations.api.authentication.FAILURES", Limit(3, 60))
    monkeypatch.setattr("organisations.api.ratelimit.time.time", lambda: 1_800_000_030.0)
    yield
    ratelimit._windows.clear()


def test_sixty_failures_a_minute_are_answered() -> None:
    assert Limit(60, 60) == FAILURES


@pytest.mark.parametrize("headers", [{}, WRONG, {"Authorization": "Bearer nonsense"}])
def test_too_many_failures_are_429_with_the_seconds_to_wait(client: Client, db: None, headers: dict[str, str]) -> None:
    assert [client.get(URL, headers=headers).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    refused = client.get(URL, headers=headers)
    assert refused["Retry-After"] == "30"
    assert refused["Content-Type"] == "application/problem+json"
    assert refused.json()["code"] == "too_many_failures"


def test_a_good_key_works_from_an_address_that_failed_too_often(client: Client, acme: Cast) -> None:
    assert [client.get(URL, headers=WRONG).status_code for _ in range(4)][-1] == 429
    assert client.get(URL, headers=acme.auth).status_code == 200


def test_good_calls_are_not_counted_as_failures(client: Client, acme: Cast) -> None:
    assert {client.get(URL, headers=acme.auth).status_code for _ in range(5)} == {200}
    assert not RateWindow.objects.filter(key__startswith="address:").exists()


def test_addresses_are_counted_apart(client: Client, db: None) -> None:
    for _ in range(4):
        client.get(URL, REMOTE_ADDR="192.0.2.1")
    assert client.get(URL, REMOTE_ADDR="192.0.2.1").status_code == 429
    assert client.get(URL, REMOTE_ADDR="192.0.2.2").status_code == 401


def test_a_claimed_address_does_not_escape_the_limit(client: Client, db: None) -> None:
    answers = [client.get(URL, headers={"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in range(5)]
    assert answers == [401, 401, 401, 429, 429]


def test_clients_behind_a_trusted_proxy_are_counted_apart(client: Client, db: None, settings: Any) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1"]

    def ask(forwarded: str) -> int:
        return client.get(URL, headers={"X-Forwarded-For": forwarded}).status_code

    assert [ask(f"203.0.113.{n}, 192.0.2.1") for n in range(4)] == [401, 401, 401, 429]
    assert ask("192.0.2.1, 192.0.2.2") == 401


def test_the_next_minute_begins_anew(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [client.get(URL).status_code for _ in range(4)][-1] == 429
    monkeypatch.setattr("organisations.api.ratelimit.time.time", lambda: 1_800_000_090.0)
    assert client.get(URL).status_code == 401


def test_without_rate_limits_failures_are_not_limited(client: Client, db: None, settings: Any) -> None:
    settings.API_RATE_LIMIT = "0"
    assert {client.get(URL).status_code for _ in range(5)} == {401}
    assert not RateWindow.objects.exists()


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("", "unknown"),
    ],
)
def test_of_an_ipv6_address_the_network_counts(address: str, network: str) -> None:
    assert network_of(address) == network


def test_windows_that_are_over_are_forgotten(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("organisations.api.ratelimit.REMEMBERED", 3)
    limit = Limit(3, 60)
    for name in ("address:192.0.2.1", "address:192.0.2.2", "organisation:1"):
        spend(name, limit)
    monkeypatch.setattr("organisations.api.ratelimit.time.time", lambda: 1_800_007_230.0)
    spend("address:192.0.2.3", limit)
    assert list(ratelimit._windows) == ["address:192.0.2.3"]
    assert set(RateWindow.objects.values_list("key", flat=True)) == {"organisation:1", "address:192.0.2.3"}
