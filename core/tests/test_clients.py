"""The client's address is what trusted proxies say, and never what a client says of itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.test import Client, RequestFactory

from core.clients import client_address

PROXIES = ["10.1.0.0/16", "2001:db8:1::/48"]


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        # Nobody is trusted: the header changes nothing.
        ([], "192.0.2.7", None, "192.0.2.7"),
        ([], "192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ([], "127.0.0.1", "198.51.100.1", "127.0.0.1"),
        # The peer is no proxy of ours.
        (PROXIES, "192.0.2.7", "198.51.100.1", "192.0.2.7"),
        (PROXIES, "192.0.2.7", "198.51.100.1, 10.1.0.1", "192.0.2.7"),
        (PROXIES, "10.2.0.1", "198.51.100.1", "10.2.0.1"),
        # It is one.
        (PROXIES, "10.1.0.1", None, "10.1.0.1"),
        (PROXIES, "10.1.0.1", "", "10.1.0.1"),
        (PROXIES, "10.1.0.1", "198.51.100.1", "198.51.100.1"),
        (PROXIES, "2001:db8:1::5", "2001:db8:2::9", "2001:db8:2::9"),
        # Two of them in a row.
        (PROXIES, "10.1.0.1", "198.51.100.1, 10.1.0.2", "198.51.100.1"),
        # What the client claimed stands before what the proxy saw.
        (PROXIES, "10.1.0.1", "203.0.113.9, 198.51.100.1", "198.51.100.1"),
        (PROXIES, "10.1.0.1", "10.1.0.9, 198.51.100.1, 10.1.0.2", "198.51.100.1"),
        (PROXIES, "10.1.0.1", "' OR 1=1, 198.51.100.1", "198.51.100.1"),
        # What cannot be read ends the look.
        (PROXIES, "10.1.0.1", "198.51.100.1, unknown", "10.1.0.1"),
        (PROXIES, "10.1.0.1", "198.51.100.1, nonsense, 10.1.0.2", "10.1.0.2"),
        # Everybody named is a proxy: the farthest one asks.
        (PROXIES, "10.1.0.1", "10.1.0.3, 10.1.0.2", "10.1.0.3"),
        # Spellings.
        (PROXIES, "::ffff:10.1.0.1", "198.51.100.1:4711", "198.51.100.1"),
        (PROXIES, "10.1.0.1", "[2001:db8:2::9]:4711", "2001:db8:2::9"),
        ([], "::ffff:192.0.2.7", None, "192.0.2.7"),
        ([], "fe80::1%eth0", None, "fe80::1"),
        # A Unix socket.
        ([], "", "198.51.100.1", ""),
        (PROXIES, "", "198.51.100.1", ""),
        (["unix"], "", "198.51.100.1", "198.51.100.1"),
        (["unix"], "", None, ""),
        (["unix"], "192.0.2.7", "198.51.100.1", "192.0.2.7"),
    ],
)
def test_who_is_the_client(
    rf: RequestFactory, settings: Any, trusted: list[str], peer: str, forwarded: str | None, client: str
) -> None:
    settings.TRUSTED_PROXIES = trusted
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert client_address(rf.get("/", headers=headers, REMOTE_ADDR=peer)) == client


@pytest.mark.parametrize(("trusted", "logged"), [([], "10.1.0.1"), (PROXIES, "198.51.100.1")])
def test_the_request_log_names_the_client(
    client: Client, db: None, settings: Any, caplog: pytest.LogCaptureFixture, trusted: list[str], logged: str
) -> None:
    settings.TRUSTED_PROXIES = trusted
    with caplog.at_level(logging.INFO):
        client.get("/api/v1/nowhere", headers={"X-Forwarded-For": "198.51.100.1"}, REMOTE_ADDR="10.1.0.1")
    (line,) = [record for record in caplog.records if record.name == "webio.requests"]
    assert line.__dict__["facts"]["client"] == logged
