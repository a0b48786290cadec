"""Faulty and hostile endpoints, all at once, through the real engine: each in bounded time and memory, told by the
right class, and the good endpoints beside them are served meanwhile."""

from __future__ import annotations

import resource
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from conftest import Cast
from conversations import actions as conversation_actions
from core.tests import receivers
from core.tests.receivers import Behaviour, Receiver, answer, raw, receiver, redirect, reset, unused_port
from webhooks.engine import outgoing
from webhooks.engine.drain import Drain
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.engine import step

pytestmark = pytest.mark.django_db

#: Instead of 15, seconds: on a busy machine servers in the engine's own process may take one or two to answer.
DEADLINE = 3.0
GOOD = 4
EVENTS = 10
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

#: Behaviour, and what comes of it: status and error class.
ENDPOINTS: dict[str, tuple[Behaviour, int | None, str]] = {
    "hangs": (receivers.hang, None, "timeout"),
    "drips its headers": (receivers.slow_headers, 200, "timeout"),
    "drips its body": (receivers.slow_body, 200, "timeout"),
    "sends a body without end": (receivers.endless_body, 200, ""),
    "sends chunks without end": (receivers.endless_chunks, 200, ""),
    "says it has ten gigabytes": (receivers.huge_body, 200, ""),
    "sends a gzip bomb": (receivers.gzip_bomb(20), 200, ""),
    "sends a header of 1 MB": (receivers.large_header, 200, "too_large"),
    "sends headers without end": (receivers.endless_headers, 200, "too_large"),
    "sends interim answers without end": (receivers.endless_interim, 103, "too_large"),
    "resets at once": (reset(), None, "reset"),
    "resets in mid-response": (reset(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok"), 200, "reset"),
    "speaks HTTP/1.0": (raw(b"HTTP/1.0 200 OK\r\n\r\nok"), 200, ""),
    "says 100 first": (raw(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), 200, ""),
    "says 103 first": (raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK), 200, ""),
    "only says 100": (raw(b"HTTP/1.1 100 Continue\r\n\r\n", keep=True), 100, "timeout"),
    "speaks something else": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), None, "protocol"),
    "redirects to us": (redirect("http://127.0.0.1:1/admin"), 302, ""),
    "answers with NUL and broken UTF-8": (answer(500, b"a\0b\xff", "x-odd: \xff\r\n"), 500, ""),
}


@pytest.fixture(autouse=True)
def short(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    monkeypatch.setattr(outgoing, "DEADLINE", DEADLINE)


@pytest.fixture
def authority(settings: Any, tmp_path: Path) -> trustme.CA:
    """A certificate authority that the engine trusts."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings.OUTBOUND_CA_FILE = str(tmp_path / "ca.pem")
    return made


def context(authority: trustme.CA, name: str, **options: Any) -> ssl.SSLContext:
    """TLS with a certificate for `name`."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(found)
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as running:
        yield running


@pytest.fixture
def hostile(acme: Cast, settings: Any, authority: trustme.CA, stack: ExitStack) -> dict[int, tuple[int | None, str]]:
    """A webhook for each bad endpoint; what its attempts must come to."""
    settings.WEBHOOKS_PER_ORGANISATION = 100
    expected: dict[int, tuple[int | None, str]] = {}

    def add(url: str, status: int | None, error: str) -> None:
        webhook = make_webhook(acme, callback_url=url)
        expected[webhook.pk] = (status, error)

    for behaviour, status, error in ENDPOINTS.values():
        add(stack.enter_context(receiver(behaviour)).url, status, error)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    expired = {"not_before": yesterday - timedelta(days=9), "not_after": yesterday}
    for bad in (
        context(authority, "other.example"),
        context(authority, "127.0.0.1", **expired),
        context(trustme.CA(), "127.0.0.1"),
    ):
        add(stack.enter_context(receiver(tls=bad)).url, None, "tls")
    add(stack.enter_context(receiver(tls=context(authority, "127.0.0.1"))).url, 200, "")
    add(f"http://127.0.0.1:{unused_port()}/", None, "connect")
    add("https://rebound.example/", None, "refused_address")
    # As if its name had begun to point here after it was saved.
    Webhook.objects.filter(callback_url="https://rebound.example/").update(callback_url="http://10.0.0.1/")
    return expected


@pytest.fixture
def good(globex: Cast, stack: ExitStack) -> list[Receiver]:
    """Endpoints of others, which answer at once."""
    found = [stack.enter_context(receiver()) for _ in range(GOOD)]
    for server in found:
        make_webhook(globex, callback_url=server.url)
    return found


def test_all_of_them_at_once(
    acme: Cast, globex: Cast, hostile: dict[int, tuple[int | None, str]], good: list[Receiver]
) -> None:
    for number in range(EVENTS):
        for cast in (acme, globex):
            conversation_actions.receive_message(channel=cast.channel, address=f"4477177{number:05}", body=str(number))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    drain = Drain()
    began = time.monotonic()
    try:
        while Delivery.objects.filter(organisation=globex.organisation, state="delivered").count() < GOOD * EVENTS:
            drain.look()
            drain.sender.start()
            drain.collect(0.01)
            assert time.monotonic() - began < DEADLINE + 1, "the good ones wait for the bad ones"
        step(drain, 10 * DEADLINE)
    finally:
        drain.finish()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB, the servers' own memory included

    assert not Attempt.objects.filter(duration_ms__gt=(DEADLINE + 1) * 1000).exists()
    found = {
        webhook_id: set(Attempt.objects.filter(delivery__webhook_id=webhook_id).values_list("status_code", "error"))
        for webhook_id in hostile
    }
    assert found == {webhook_id: {wanted} for webhook_id, wanted in hostile.items()}
    for webhook in Webhook.objects.filter(pk__in=hostile):
        status, error = hostile[webhook.pk]
        state = "delivered" if status == 200 and not error else "pending"
        assert set(webhook.deliveries.values_list("state", flat=True)) == {state}
    for server in good:
        assert len(server.requests) == EVENTS


def test_one_that_is_half_open_holds_up_nobody_for_ever(acme: Cast, globex: Cast, good: list[Receiver]) -> None:
    """A server whose machine is gone: the kernel took the connection in, and nobody ever reads from it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        webhook = make_webhook(acme, callback_url=f"http://127.0.0.1:{listener.getsockname()[1]}/")
        for cast in (acme, globex):
            conversation_actions.receive_message(channel=cast.channel, address="447717700001", body="hello")
        drain = Drain()
        try:
            step(drain, 4 * DEADLINE)
        finally:
            drain.finish()
    (delivery,) = webhook.deliveries.all()
    assert (delivery.state, delivery.last_error, delivery.last_status_code) == ("pending", "timeout", None)
    assert all(len(server.requests) == 1 for server in good)
