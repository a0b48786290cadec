"""The door out: what is refused, what comes back from good and from hostile servers, and what it costs."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from core import outbound
from core.outbound import BODY_KEPT, ERRORS, STANDSTILL, Outcome, Request, Stream, fetch, header_line
from core.tests import receivers
from core.tests.receivers import Behaviour, Received, answer, in_turn, raw, receiver, reset, unused_port

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8"]


@pytest.fixture
def stream() -> Iterator[Stream]:
    running = Stream(connections=64)
    yield running
    running.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, settings: Any, tmp_path: Path) -> trustme.CA:
    """A certificate authority that the client trusts."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    settings.OUTBOUND_CA_FILE = str(tmp_path / "ca.pem")
    return authority


def server_context(authority: trustme.CA, name: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


def get(url: str, deadline: float = 5.0, **extra: Any) -> Outcome:
    return fetch(Request("GET", url, deadline=deadline, **extra))


def drain(stream: Stream, count: int, seconds: float = 20.0) -> dict[Any, Outcome]:
    """The outcomes of `count` requests by token."""
    done: dict[Any, Outcome] = {}
    limit = time.monotonic() + seconds
    while len(done) < count and time.monotonic() < limit:
        done.update(stream.poll(0.2))
    assert len(done) == count
    assert stream.in_flight == 0
    return done


# What is sent


def test_a_post_arrives_as_it_was_given_and_nothing_is_added() -> None:
    with receiver() as server:
        lines = [header_line("content-type", "application/json"), header_line("x-own", "Grüße"), "x-empty;"]
        outcome = fetch(Request("POST", server.url + "/a/../b?x=%20", lines, b'{"a": 1}'))
    (request,) = server.requests
    assert outcome.ok
    assert (request.method, request.target, request.version) == ("POST", "/hook/a/../b?x=%20", "HTTP/1.1")
    assert request.body == b'{"a": 1}'
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "content-type": "application/json",
        "content-length": "8",
        "x-own": "Grüße",
        "x-empty": "",
    }


def test_a_large_body_is_sent_without_asking_first() -> None:
    with receiver() as server:
        assert fetch(Request("POST", server.url, ["content-type: text/plain"], b"x" * 300_000)).ok
    assert len(server.requests[0].body) == 300_000
    assert "expect" not in server.requests[0].headers


def test_a_body_may_be_empty() -> None:
    with receiver() as server:
        assert fetch(Request("POST", server.url, ["content-type: text/plain"])).ok
    assert server.requests[0].headers["content-length"] == "0"


def test_one_handle_serves_every_method(stream: Stream) -> None:
    with receiver() as server:
        for method in ("POST", "GET", "PUT", "GET", "DELETE", "POST"):
            stream.submit(Request(method, server.url, body=b"" if method == "GET" else b"body"), method)
            drain(stream, 1)
    assert [request.method for request in server.requests] == ["POST", "GET", "PUT", "GET", "DELETE", "POST"]
    assert [request.body for request in server.requests] == [b"body", b"", b"body", b"", b"body", b"body"]
    assert server.connections == 1


def test_a_url_beyond_ascii_is_encoded_for_the_wire() -> None:
    with receiver() as server:
        outcome = get(
            f"http://bücher.example:{server.port}/ü?q=ß", resolve=[f"xn--bcher-kva.example:{server.port}:127.0.0.1"]
        )
    assert outcome.ok
    assert server.requests[0].target == "/%C3%BC?q=%C3%9F"
    assert server.requests[0].headers["host"] == f"xn--bcher-kva.example:{server.port}"


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\0b", "😀"])
def test_a_header_cannot_smuggle_another(value: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeError is one of its kinds
        header_line("x-own", value)


def test_the_environments_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    with receiver() as server:
        assert get(server.url).ok


def test_the_configured_proxy_is_used_and_its_faults_are_its_own(settings: Any) -> None:
    with receiver() as proxy:
        settings.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
        assert get("http://customer.example/hook").ok
        assert proxy.requests[0].target == "http://customer.example/hook"
    with receiver(answer(403)) as proxy:
        settings.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
        outcome = get("https://customer.example/hook")
        assert (outcome.status, outcome.error) == (None, "proxy")
        assert proxy.requests[0].method == "CONNECT"
    settings.OUTBOUND_PROXY = "http://proxy.invalid:3128"
    assert get("http://customer.example/hook").error == "proxy"
    for status in (502, 503, 504):
        with receiver(answer(status)) as proxy:
            settings.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
            # The host behind it does not answer.
            assert fetch(Request("POST", "https://customer.example/hook")).error == "connect"
    settings.OUTBOUND_PROXY = f"http://127.0.0.1:{proxy.port}"
    assert fetch(Request("POST", "http://customer.example/hook")).error == "proxy"


# What must not be dialled


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "localhost", "0"],
)
def test_no_spelling_of_a_refused_address_is_dialled(settings: Any, host: str, stream: Stream) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    with receiver() as server:
        url = f"http://{host}:{server.port}/"
        outcome = get(url)
        stream.submit(Request("POST", url), 1)
        streamed = drain(stream, 1)[1]
    for one in (outcome, streamed):
        assert (one.status, one.error, one.ok) == (None, "refused_address", False)
    assert server.connections == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "[::1]", "10.0.0.1", "169.254.169.254", "[fd00:ec2::254]"])
def test_a_name_that_turns_into_a_refused_address_is_not_dialled(settings: Any, address: str) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    with receiver() as server:
        outcome = get(f"http://rebound.example:{server.port}/", resolve=[f"rebound.example:{server.port}:{address}"])
    assert outcome.error == "refused_address"
    assert server.connections == 0


def test_rebinding_between_two_requests_reaches_nothing(settings: Any, stream: Stream) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with receiver(answer(keep=False)) as server:
        url = f"http://rebound.example:{server.port}/"
        for token, address in enumerate(("127.0.0.1", "127.0.0.2")):
            stream.submit(Request("GET", url, resolve=[f"rebound.example:{server.port}:{address}"]), token)
            outcome = drain(stream, 1)[token]
            assert outcome.error == ("" if address == "127.0.0.1" else "refused_address")
    assert server.connections == 1


def test_of_several_addresses_only_the_allowed_is_dialled() -> None:
    with receiver() as server:
        resolve = [f"mixed.example:{server.port}:10.0.0.1,169.254.169.254,127.0.0.1"]
        assert get(f"http://mixed.example:{server.port}/", resolve=resolve).ok


def test_what_an_allowed_address_does_is_not_blamed_on_a_refused_one() -> None:
    with receiver(receivers.hang) as server:
        resolve = [f"mixed.example:{server.port}:10.0.0.1,127.0.0.1"]
        assert get(f"http://mixed.example:{server.port}/", 0.3, resolve=resolve).error == "timeout"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_not_followed(status: int) -> None:
    with receiver() as target, receiver(receivers.redirect(target.url, status)) as server:
        outcome = get(server.url)
    assert (outcome.status, outcome.error, outcome.ok) == (status, "", False)
    assert dict(outcome.headers)["location"] == target.url
    assert target.connections == 0


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/", "dict://127.0.0.1/", "ftp://127.0.0.1/"])
def test_other_protocols_are_not_spoken(url: str) -> None:
    outcome = get(url)
    assert (outcome.status, outcome.error, outcome.body) == (None, "invalid_url", b"")


@pytest.mark.parametrize(
    "url", ["", "http://", "http://[::1", "http://a b/", "http://😀\ud800.example/", "http://" + "ü" * 99]
)
def test_what_is_no_url_is_an_outcome_and_not_an_exception(url: str, stream: Stream) -> None:
    assert get(url).error == "invalid_url"
    with receiver() as server:
        stream.submit(Request("GET", url), "bad")
        stream.submit(Request("GET", server.url), "good")
        done = drain(stream, 2)
    assert done["bad"].error == "invalid_url"
    assert done["good"].ok


# What comes back


def test_an_answer_is_told_whole() -> None:
    with receiver(answer(201, b"thanks", "X-Twice: 1\r\nx-twice: 2\r\n")) as server:
        outcome = get(server.url)
    assert (outcome.status, outcome.error, outcome.detail, outcome.ok) == (201, "", "", True)
    assert outcome.headers == (("content-length", "6"), ("x-twice", "1"), ("x-twice", "2"))
    assert (outcome.body, outcome.truncated, outcome.reused) == (b"thanks", False, False)
    assert list(outcome.timings) == ["dns", "connect", "tls", "firstByte", "total"]
    assert 0 <= outcome.timings["connect"] <= outcome.timings["firstByte"] <= outcome.duration_ms < 1_000


def test_a_reason_with_a_colon_is_no_header() -> None:
    with receiver(raw(b"HTTP/1.1 400 Bad Request: no name\r\ncontent-length: 0\r\n\r\n")) as server:
        outcome = get(server.url)
    assert (outcome.status, outcome.error, outcome.headers) == (400, "", (("content-length", "0"),))


@pytest.mark.parametrize("status", [204, 400, 404, 410, 429, 500, 503, 599])
def test_every_status_is_an_answer(status: int) -> None:
    with receiver(answer(status, b"")) as server:
        outcome = get(server.url)
    assert (outcome.status, outcome.error, outcome.ok) == (status, "", status == 204)


def test_the_start_of_a_long_body_is_kept() -> None:
    for length, truncated in ((BODY_KEPT, False), (BODY_KEPT + 1, True), (500_000, True)):
        with receiver(answer(body=b"x" * length)) as server:
            outcome = get(server.url)
        assert outcome.ok
        assert (len(outcome.body), outcome.truncated) == (min(length, BODY_KEPT), truncated)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GOOD_ANSWERS = {
    "HTTP/1.0": raw(b"HTTP/1.0 200 OK\r\n\r\nok"),
    "no length, ended by closing": raw(b"HTTP/1.1 200 OK\r\n\r\nok"),
    "chunked": raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\nx-t: 1\r\n\r\n"),
    "100 first": raw(b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    "103 first": raw(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK),
    "bare line feeds": raw(OK.replace(b"\r\n", b"\n")),
    "no reason": raw(OK.replace(b" OK", b"")),
    "slow, yet in time": receivers.slowly(OK, 0.002),
}


@pytest.mark.parametrize("behaviour", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS.keys())
def test_unusual_answers_count(behaviour: Behaviour) -> None:
    with receiver(behaviour) as server:
        outcome = get(server.url)
    assert (outcome.status, outcome.error, outcome.body) == (200, "", b"ok")
    assert "link" not in dict(outcome.headers)


BAD_ANSWERS: dict[str, tuple[Behaviour, int | None, str]] = {
    "hangs": (receivers.hang, None, "timeout"),
    "drips its status line": (receivers.slowly(OK, 1.0), None, "timeout"),
    "drips its headers": (receivers.slow_headers, 200, "timeout"),
    "drips its body": (receivers.slow_body, 200, "timeout"),
    "stops in the body": (
        in_turn(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok", keep=True)),
        200,
        "timeout",
    ),
    "only says 100": (raw(b"HTTP/1.1 100 Continue\r\n\r\n", keep=True), 100, "timeout"),
    "closes at once": (raw(b""), None, "reset"),
    "closes in the headers": (raw(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n"), 200, "reset"),
    "closes in the body": (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok"), 200, "reset"),
    "closes in a chunk": (
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok"),
        200,
        "reset",
    ),
    "resets at once": (reset(), None, "reset"),
    "resets in the headers": (reset(b"HTTP/1.1 200 OK\r\nx-a: 1\r\n"), 200, "reset"),
    "resets in the body": (reset(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok"), 200, "reset"),
    "sends headers without end": (receivers.endless_headers, 200, "too_large"),
    "sends one header without end": (receivers.endless_header_line, 200, "too_large"),
    "sends a header of 1 MB": (receivers.large_header, 200, "too_large"),
    "sends 1 MB of headers": (receivers.large_headers, 200, "too_large"),
    "sends interim answers without end": (receivers.endless_interim, 103, "too_large"),
    "speaks HTTP/0.9": (raw(b"ok"), None, "protocol"),
    "speaks SSH": (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), None, "protocol"),
    "speaks HTTP/9": (raw(b"HTTP/9.9 200 OK\r\n\r\n"), None, "protocol"),
    "sends bad chunks": (raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n"), 200, "reset"),
    "sends a bad length": (raw(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nok"), 200, "protocol"),
}


@pytest.mark.parametrize(("behaviour", "status", "error"), BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_a_faulty_server_gets_the_right_class_in_bounded_time(
    behaviour: Behaviour, status: int | None, error: str
) -> None:
    with receiver(behaviour) as server:
        began = time.monotonic()
        outcome = get(server.url, 0.6)
        took = time.monotonic() - began
    assert (outcome.status, outcome.error) == (status, error)
    assert not outcome.ok
    assert outcome.detail == ERRORS[error]
    assert took < 1.0
    assert outcome.duration_ms < 1_000


@pytest.mark.parametrize(
    "behaviour", [receivers.endless_body, receivers.endless_chunks, receivers.huge_body], ids=["raw", "chunked", "huge"]
)
def test_a_body_without_end_is_cut_off_and_its_status_counts(behaviour: Behaviour) -> None:
    with receiver(behaviour) as server:
        outcome = get(server.url, 5.0)
    assert (outcome.status, outcome.error, outcome.ok) == (200, "", True)
    assert (len(outcome.body), outcome.truncated) == (BODY_KEPT, True)
    assert outcome.duration_ms < 2_000


def test_a_compressed_body_is_not_unpacked() -> None:
    with receiver(receivers.gzip_bomb(20)) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = get(server.url)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert outcome.ok
    assert outcome.body[:2] == b"\x1f\x8b"
    assert "accept-encoding" not in server.requests[0].headers
    assert grown < 15_000  # KiB


def test_many_hostile_answers_at_once_take_little_memory(stream: Stream) -> None:
    with receiver(receivers.endless_body) as bodies, receiver(receivers.endless_headers) as headers:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(40):
            stream.submit(Request("GET", (bodies, headers)[number % 2].url), number)
        done = drain(stream, 40)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert all(outcome.error == ("too_large" if number % 2 else "") for number, outcome in done.items())
    assert grown < 60_000  # KiB


def test_a_closed_port_is_a_connect_error() -> None:
    outcome = get(f"http://127.0.0.1:{unused_port()}/")
    assert (outcome.status, outcome.error) == (None, "connect")


def test_a_port_that_does_not_answer_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        # The kernel drops what asks for a connection while nobody takes those that wait.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        outcome = get(f"http://127.0.0.1:{full.getsockname()[1]}/", 0.5)
    assert (outcome.status, outcome.error, outcome.timings["connect"]) == (None, "timeout", 0)


def test_an_unknown_name_is_a_dns_error() -> None:
    assert get("http://nowhere.invalid/").error == "dns"


# What is our own fault

ENVIRONMENT = {**os.environ, "DEMO": "1", "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8"}
#: Dials an address and looks a name up, first with enough descriptors left, then with one and with none.
SHORT = """
import os, resource, sys
import django
django.setup()
from core.outbound import Request, Stream
stream = Stream()
filled = [os.dup(0) for _ in range(16)]
for left in (200, 1, 0):
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1 + left, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for url in (sys.argv[1], "http://nowhere.invalid/"):
        stream.submit(Request("POST", url), None)
        while not (done := stream.poll(1.0)):
            pass
        print(done[0][1].error)
"""


def test_what_this_process_is_short_of_is_told_from_what_the_endpoint_does() -> None:
    url = f"http://127.0.0.1:{unused_port()}/"
    done = subprocess.run([sys.executable, "-c", SHORT, url], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.split() == ["connect", "dns"] + ["local"] * 4, done.stderr[-2_000:]


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOBUFS, "local"), (errno.ENFILE, "local"), (errno.EACCES, "local"), (errno.EAFNOSUPPORT, "connect")],
)
def test_a_socket_that_the_kernel_refuses_us_is_our_own_fault(
    monkeypatch: pytest.MonkeyPatch, number: int, error: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(outbound, "socket", SimpleNamespace(socket=refuse))
    assert get("http://127.0.0.1:9/").error == error


def test_a_family_of_which_we_have_no_address_is_out_of_reach_as_any_that_is() -> None:
    transfer = outbound._Transfer()
    for family, short in ((socket.AF_INET, True), (socket.AF_INET6, False)):
        transfer._family = family
        assert transfer._short(errno.EADDRNOTAVAIL) == short
        assert transfer._short(errno.ENOBUFS)


def test_without_a_free_port_of_ours_no_connection_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    port = 0

    def of_that_port(*kind: int) -> socket.socket:
        made = socket.socket(*kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        return made

    with receiver() as server, of_that_port() as taken:
        port = taken.getsockname()[1]
        taken.connect(("127.0.0.1", server.port))
        monkeypatch.setattr(outbound, "socket", SimpleNamespace(socket=of_that_port))
        assert get(server.url).error == "local"


def test_certificates_that_cannot_be_read_are_our_own_fault(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    with receiver(tls=server_context(trustme.CA(), "127.0.0.1")) as server:
        for name in ("missing.pem", "empty.pem"):
            settings.OUTBOUND_CA_FILE = str(tmp_path / name)
            assert get(server.url).error == "local"


#: Asks several URLs at once; status and error of each, in their order.
ASK = """
import sys
import django
django.setup()
from core.outbound import Request, Stream
stream = Stream()
for url in sys.argv[1:]:
    stream.submit(Request("POST", url, deadline=2.0), url)
done = {}
while stream.in_flight:
    done.update(stream.poll(0.2))
for url in sys.argv[1:]:
    print(done[url].status, done[url].error or "-")
"""


def test_what_came_while_this_process_stood_still_came_in_time() -> None:
    with receiver(receivers.slowly(OK, 0.01)) as server, receiver(receivers.hang) as silent:
        command = [sys.executable, "-c", ASK, server.url, silent.url]
        asking = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        server.wait(1)
        silent.wait(1)
        asking.send_signal(signal.SIGSTOP)
        time.sleep(STANDSTILL + 1.5)
        asking.send_signal(signal.SIGCONT)
        said, _ = asking.communicate(timeout=10)
    # Nobody was there to see whether the second would have answered.
    assert said.splitlines() == ["200 -", "None local"]


def test_what_was_not_sent_before_this_process_stood_still_is_not_sent_any_more(
    trusted: trustme.CA, stream: Stream
) -> None:
    came: list[bytes] = []

    def greet_late(listener: socket.socket) -> None:
        with listener.accept()[0] as taken:
            time.sleep(0.5)
            # The greeting is there when it goes on, and the request would follow.
            with (
                contextlib.suppress(OSError),
                server_context(trusted, "127.0.0.1").wrap_socket(taken, server_side=True) as secure,
            ):
                came.append(secure.recv(100))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeting = threading.Thread(target=greet_late, args=(listener,))
        greeting.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        stream.submit(Request("POST", url, deadline=1.0), None)
        assert stream.poll(0.2) == []
        time.sleep(STANDSTILL + 0.5)
        assert drain(stream, 1)[None].error == "local"
        greeting.join()
    assert came in ([], [b""])


def test_a_stream_that_rested_takes_nobodys_time(stream: Stream) -> None:
    time.sleep(STANDSTILL + 0.1)
    with receiver(receivers.hang) as silent:
        stream.submit(Request("POST", silent.url, deadline=0.3), None)
        assert drain(stream, 1)[None].error == "timeout"


# TLS


def test_a_valid_certificate_is_accepted(trusted: trustme.CA) -> None:
    with receiver(tls=server_context(trusted, "127.0.0.1")) as server:
        outcome = get(server.url)
    assert outcome.ok
    assert outcome.timings["tls"] >= outcome.timings["connect"]


def test_a_bad_certificate_is_a_tls_error(trusted: trustme.CA) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for context in (
        server_context(trusted, "other.example"),
        server_context(trusted, "127.0.0.1", not_before=yesterday - timedelta(days=9), not_after=yesterday),
        server_context(trustme.CA(), "127.0.0.1"),
    ):
        with receiver(tls=context) as server:
            outcome = get(server.url)
        assert (outcome.status, outcome.error) == (None, "tls")
        assert server.requests == []


def test_a_server_without_tls_is_a_tls_error(trusted: trustme.CA) -> None:
    for behaviour in (answer(), receivers.hang):
        with receiver(behaviour) as server:
            assert get(server.url.replace("http:", "https:"), 0.5).error in ("tls", "timeout")


def test_the_name_of_the_url_is_what_the_certificate_must_show(trusted: trustme.CA) -> None:
    context = server_context(trusted, "customer.example")
    with receiver(tls=context, host="customer.example") as server:
        assert get(server.url, resolve=[f"customer.example:{server.port}:127.0.0.1"]).ok
        assert server.requests[0].headers["host"] == f"customer.example:{server.port}"


def test_tls_connections_are_kept_too(trusted: trustme.CA, stream: Stream) -> None:
    with receiver(tls=server_context(trusted, "127.0.0.1")) as server:
        for number in range(5):
            stream.submit(Request("POST", server.url, body=b"x"), number)
            assert drain(stream, 1)[number].reused == (number > 0)
    assert server.connections == 1


# The stream


def test_requests_run_side_by_side_and_connections_are_used_again(stream: Stream) -> None:
    with receiver() as server:
        for turn in range(5):
            for number in range(20):
                stream.submit(Request("POST", server.url, body=b"%d" % number), (turn, number))
            assert stream.in_flight == 20
            done = drain(stream, 20)
            assert all(outcome.ok and outcome.reused == (turn > 0) for outcome in done.values())
    assert len(server.requests) == 100
    assert server.connections == 20


def test_one_that_hangs_holds_up_no_other(stream: Stream) -> None:
    with receiver(receivers.hang) as hanging, receiver() as good:
        for number in range(30):
            stream.submit(Request("POST", hanging.url, deadline=1.0), ("hanging", number))
        began = time.monotonic()
        for number in range(200):
            stream.submit(Request("POST", good.url), ("good", number))
            while stream.in_flight > 30:
                stream.poll(1.0)
        assert time.monotonic() - began < 1.0
        done = drain(stream, 30)
        assert all(outcome.error == "timeout" for outcome in done.values())
        assert time.monotonic() - began < 2.0


def test_a_connection_the_server_closed_is_opened_anew(stream: Stream) -> None:
    with receiver(in_turn(answer(keep=True), raw(b""), answer())) as server:
        for number in range(2):
            # The second request meets a server that closes the kept connection without an answer.
            stream.submit(Request("POST", server.url, body=b"x"), number)
            assert drain(stream, 1)[number].ok
    assert [request.body for request in server.requests] == [b"x", b"x", b"x"]
    assert server.connections == 2


#: An answer after which `raw` closes the connection, though nothing in it says so.
CLOSES_UNSAID = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok"


def test_a_connection_that_ends_while_nobody_uses_it_keeps_nobody_awake(stream: Stream) -> None:
    with receiver(raw(CLOSES_UNSAID)) as server:
        for number in range(3):
            stream.submit(Request("POST", server.url), number)
            assert drain(stream, 1)[number].ok
            time.sleep(0.05)
            began, used = time.monotonic(), time.process_time()
            assert stream.poll(0.5) == []
            assert time.monotonic() - began >= 0.45
            assert time.process_time() - used < 0.2
    assert server.connections == 3


def test_kept_connections_that_all_die_are_no_fault_of_the_endpoint(stream: Stream) -> None:
    served: set[int] = set()

    def once(connection: socket.socket, request: Received) -> bool:
        first = request.connection not in served
        served.add(request.connection)
        return first and answer()(connection, request)

    with receiver(once) as server:
        for number in range(10):
            stream.submit(Request("POST", server.url), number)
        assert all(outcome.ok for outcome in drain(stream, 10).values())
        assert server.connections == 10
        # libcurl gives up after five of them.
        stream.submit(Request("POST", server.url, body=b"after"), "after")
        assert drain(stream, 1)["after"].ok
        assert server.connections == 11


def test_a_renewed_request_keeps_its_deadline_and_tells_all_of_its_time(stream: Stream) -> None:
    served: set[int] = set()

    def first_only(connection: socket.socket, request: Received) -> bool:
        if request.body == b"first":
            served.add(request.connection)
            return answer()(connection, request)
        if request.connection in served:
            time.sleep(0.08)
            return False
        return receivers.hang(connection, request)

    with receiver(first_only) as server:
        for number in range(8):
            stream.submit(Request("POST", server.url, body=b"first"), number)
        drain(stream, 8)
        began = time.monotonic()
        stream.submit(Request("POST", server.url, body=b"second", deadline=1.5), "second")
        outcome = drain(stream, 1)["second"]
        assert 1.4 <= time.monotonic() - began < 2.0
    assert outcome.error == "timeout"
    assert outcome.duration_ms >= 1400
    assert outcome.timings["firstByte"] == 0


def test_an_endpoint_that_hangs_up_late_has_failed(stream: Stream) -> None:
    def late(connection: socket.socket, request: Received) -> bool:
        if request.body == b"first":
            return answer()(connection, request)
        time.sleep(0.3)
        return False

    with receiver(late) as server:
        for number in range(8):
            stream.submit(Request("POST", server.url, body=b"first"), number)
        drain(stream, 8)
        stream.submit(Request("POST", server.url, body=b"second"), "second")
        assert drain(stream, 1)["second"].error == "reset"
        # libcurl's own tries, and no further one.
        assert server.connections == 8


def test_a_descriptor_whose_number_was_another_ones_is_waited_for(stream: Stream) -> None:
    # Names are looked up by way of descriptors, which take the numbers of the first server's closed sockets.
    with receiver(raw(CLOSES_UNSAID)) as server, receiver() as other:
        for number in range(20):
            host = f"http://name-{number}.localhost:{other.port}/"
            for url in (server.url, host):
                began = time.monotonic()
                stream.submit(Request("POST", url), url)
                assert drain(stream, 1)[url].ok
                assert time.monotonic() - began < 2.0


def test_what_is_left_of_an_answer_does_not_reach_the_next(stream: Stream) -> None:
    with receiver(in_turn(answer(body=b"first", headers="x-first: 1\r\n"), answer(204, b""))) as server:
        stream.submit(Request("GET", server.url), 1)
        assert drain(stream, 1)[1].body == b"first"
        stream.submit(Request("GET", server.url), 2)
        second = drain(stream, 1)[2]
    assert (second.status, second.body, second.headers) == (204, b"", (("content-length", "0"),))


def test_poll_returns_when_a_watched_descriptor_is_ready(stream: Stream) -> None:
    reader, writer = os.pipe()
    stream.watch(reader)
    began = time.monotonic()
    os.write(writer, b"x")
    assert stream.poll(5.0) == []
    assert time.monotonic() - began < 1.0
    os.read(reader, 1)
    began = time.monotonic()
    assert stream.poll(0.05) == []
    assert time.monotonic() - began >= 0.05
    os.close(writer)
    os.close(reader)


def test_a_stream_closes_with_requests_under_way() -> None:
    running = Stream()
    with receiver(receivers.hang) as server:
        for number in range(10):
            running.submit(Request("POST", server.url), number)
        running.poll(0.1)
        server.wait(10)
        began = time.monotonic()
        running.close()
        assert time.monotonic() - began < 0.5


def test_descriptors_and_threads_are_given_back() -> None:
    with receiver() as server:
        get(server.url)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(30):
            assert get(server.url).ok
        limit = time.monotonic() + 5
        while len(os.listdir("/proc/self/fd")) > before + 5 and time.monotonic() < limit:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before + 5
