"""The only door out: every request to an address that a customer can influence goes through here.

Built on libcurl, because three things hold there: the deadline covers the whole request, a dripping body included;
the socket is opened by our own function, which judges the address really dialled (`core.addresses.refusal`); and
many transfers share one thread and their connections. Redirects are not followed, answers are not decompressed, the
proxy variables of the environment are ignored, TLS is always verified, and memory is bounded whatever comes back.

An answer whose status came and whose body merely is too long counts as that status: the receiver has the request.
A body that breaks off or does not end within the deadline is an error, whatever its status says.

With `OUTBOUND_PROXY` every connection goes to that proxy, which then is the one that judges addresses.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import certifi
import pycurl
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from core.addresses import ascii_url, refusal

# libcurl looks names up in at most twenty threads, which it cannot end. A name server that never answers would hold
# one for glibc's 10 s; so it gives up, with "dns", before `CONNECT_SECONDS` are over. Read once, by the first lookup.
os.environ.setdefault("RES_OPTIONS", "timeout:2 attempts:2")

#: What is kept of an answer's body, bytes. The rest is read and dropped.
BODY_KEPT = 16 * 1024
#: Past this many bytes of body the transfer is ended; the status that came counts.
BODY_READ = 1024 * 1024
#: More header bytes or lines than this make an answer "too_large"; libcurl ends a transfer at 300 KiB by itself.
HEADERS_READ = 64 * 1024
HEADER_LINES = 1000
#: So many heads of at most so many bytes are known: an endpoint's answers differ by their date, if at all.
HEADS_KNOWN, HEAD_KNOWN = 1024, 1024
CONNECT_SECONDS = 5.0
#: What up to twenty lookups at once may take, descriptors.
LOOKUPS = 64
#: Seconds an idle connection is kept.
KEEP_ALIVE_SECONDS = 60
#: Seconds after which even a busy connection is opened anew, so that a moved host is followed.
CONNECTION_SECONDS = 600
#: What a kept connection's death took longer than this to show was the endpoint's doing, seconds.
DIES_WITHIN = 1.0
#: Who looks so many seconds later than it meant to stood still: it was stopped, or the machine had no time for it.
STANDSTILL = 1.0

#: Error classes: the code that is stored and sent, and what people read. A closed port ("connect") is told from a
#: filtered one ("timeout"), as the time it takes tells them apart anyway. Of what is inside the log tells nothing: none
#: of it is dialled.
ERRORS: dict[str, str | Promise] = {
    "dns": _("The host name could not be resolved."),
    "refused_address": _("The host's address is not on the public internet."),
    "connect": _("No connection could be made."),
    "tls": _("The TLS connection could not be made or its certificate is not valid."),
    "timeout": _("There was no complete answer in time."),
    "reset": _("The connection ended before the answer was complete."),
    "too_large": _("The answer's headers were too large."),
    "protocol": _("The answer was not valid HTTP."),
    "proxy": _("The platform's own proxy could not be used."),
    "local": _("The platform itself was not able to make the request."),
    "invalid_url": _("The URL is not valid."),
    "auth": _("The authorization server gave no token."),
    "body_too_large": _("The body would be larger than webhooks may be."),
}

#: CURLE_PROXY and CURLE_TOO_LARGE, for which pycurl has no names.
_E_PROXY = 97
_E_TOO_LARGE = 100
_BY_CURL_CODE = {
    pycurl.E_URL_MALFORMAT: "invalid_url",
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_RESOLVE_PROXY: "proxy",
    _E_PROXY: "proxy",
    _E_TOO_LARGE: "too_large",
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_GOT_NOTHING: "reset",
    pycurl.E_SEND_ERROR: "reset",
    pycurl.E_RECV_ERROR: "reset",
    pycurl.E_PARTIAL_FILE: "reset",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_SSL_INVALIDCERTSTATUS: "tls",
    pycurl.E_FAILED_INIT: "local",
    pycurl.E_OUT_OF_MEMORY: "local",
    pycurl.E_SSL_CACERT_BADFILE: "local",
    pycurl.E_SSL_ENGINE_NOTFOUND: "local",
    pycurl.E_SSL_ENGINE_SETFAILED: "local",
    pycurl.E_SSL_ENGINE_INITFAILED: "local",
}
#: What this machine is short of when no connection can even be tried: descriptors and memory.
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_IPV4 = socket.AF_INET

#: How a kept connection ends that its server has closed meanwhile.
_DIED = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR})

#: Events of a socket as the kernel and as libcurl name them.
_POLL_EVENTS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_CURL_EVENTS = {select.EPOLLIN: pycurl.CSELECT_IN, select.EPOLLOUT: pycurl.CSELECT_OUT}


def header_line(name: str, value: str) -> str:
    """`name: value` for `Request.headers`. Raises `ValueError` for line breaks, NUL and non-Latin-1 characters."""
    line = f"{name}: {value}"
    if any(character in line for character in "\r\n\0"):
        raise ValueError(f"The header {name!r} contains a line break or NUL.")
    line.encode("latin-1")
    return line


def together(lines: Sequence[str]) -> str:
    """Several lines for `Request.headers` as one, which libcurl sends as it is and with less work.

    It passes them on verbatim (curl.se/libcurl/c/CURLOPT_HTTPHEADER.html) and sees the first name only. So they cannot
    hold what it treats in its own way, a length, host or connection; and of a POST a content-type comes first, or
    libcurl adds one of its own.
    """
    return "\r\n".join(lines)


@dataclass(slots=True)
class Request:
    """One HTTP request. `headers` are lines (`header_line`, `together`), `deadline` is seconds for everything."""

    method: str
    url: str
    headers: Sequence[str] = ()
    body: bytes = b""
    deadline: float = 15.0
    #: `host:port:address` entries that replace DNS, for tests of rebinding.
    resolve: Sequence[str] = ()
    #: PEM of a client certificate with its key, for servers that ask for one.
    certificate: str = ""


@dataclass(slots=True)
class Outcome:
    """What came of a request. Either `status` is set, or `error` is one of `ERRORS`; both when it broke off."""

    status: int | None
    error: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool
    #: Milliseconds from the start to the end of each phase: dns, connect, tls, firstByte, total. The first three are 0
    #: on a connection that was used before, firstByte where none came.
    timings: dict[str, int]
    #: Whether an open connection was used again.
    reused: bool = False

    @property
    def ok(self) -> bool:
        """A 2xx answer that came complete and in time."""
        return not self.error and self.status is not None and 200 <= self.status < 300

    @property
    def duration_ms(self) -> int:
        """Milliseconds the request took."""
        return self.timings["total"]

    @property
    def detail(self) -> str:
        """What people read about `error`, "" without one."""
        return str(ERRORS[self.error]) if self.error else ""


def no_answer(error: str) -> Outcome:
    """The outcome of a request that was not made at all."""
    return Outcome(None, error, (), b"", False, dict.fromkeys(("dns", "connect", "tls", "firstByte", "total"), 0))


class _Transfer:
    """A libcurl handle with its callbacks and buffers, used for one request after another."""

    __slots__ = (
        "_body",
        "_body_read",
        "_deadline",
        "_family",
        "_fresh",
        "_headers",
        "_method",
        "_resolve",
        "_spent",
        "_stop",
        "_url",
        "began",
        "curl",
        "reusable",
        "token",
    )

    def __init__(self) -> None:
        curl = self.curl = pycurl.Curl()
        curl.transfer = self
        self.token: Hashable = None
        #: When the request was submitted, by `time.monotonic`.
        self.began = 0.0
        self.reusable = True
        self._method = ""
        self._url = ""
        self._deadline = 0.0
        #: Of the address dialled last.
        self._family = 0
        self._fresh = False
        self._resolve: Sequence[str] = ()
        #: Lines of all answers to one request, 1xx and trailers included; of too many the first are lost.
        self._headers: deque[bytes] = deque(maxlen=HEADER_LINES + 1)
        self._reset()
        curl.setopt(pycurl.NOSIGNAL, 1)
        # Callers name themselves; pycurl's own name would tell which libraries run here.
        curl.setopt(pycurl.USERAGENT, "")
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.SSL_VERIFYPEER, 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 2)
        curl.setopt(pycurl.CAINFO, settings.OUTBOUND_CA_FILE or certifi.where())
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(CONNECT_SECONDS * 1000))
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.TCP_NODELAY, 1)
        # Each connection keeps a buffer of this size for what it sends; libcurl's own choice is four times the least.
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, 16 * 1024)
        curl.setopt(pycurl.MAXAGE_CONN, KEEP_ALIVE_SECONDS)
        curl.setopt(pycurl.MAXLIFETIME_CONN, CONNECTION_SECONDS)
        # Customers' paths go out as they were given, `..` and all.
        curl.setopt(pycurl.PATH_AS_IS, 1)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        # Called for every line of every answer: all that can wait is done in `_parse_head`.
        curl.setopt(pycurl.HEADERFUNCTION, self._headers.append)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)
        # An empty proxy also keeps libcurl from looking at the environment.
        curl.setopt(pycurl.PROXY, settings.OUTBOUND_PROXY)
        if settings.OUTBOUND_PROXY:
            curl.setopt(pycurl.NOPROXY, "")

    def _reset(self) -> None:
        self._headers.clear()
        self._body = bytearray()
        self._body_read = 0
        self._stop = ""
        #: Seconds that the first try took of a request that was renewed.
        self._spent = 0.0

    def prepare(self, request: Request, token: Hashable) -> None:
        """Load the next request."""
        self._reset()
        self.token = token
        curl = self.curl
        if request.method != self._method:
            self._method = request.method
            curl.setopt(pycurl.HTTPGET if request.method == "GET" else pycurl.POST, 1)
            # Set for GET and POST too, or the method of an earlier request would stay.
            curl.setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.method != "GET":
            curl.setopt(pycurl.POSTFIELDS, request.body)
        if request.url != self._url:
            self._url = request.url
            curl.setopt(pycurl.URL, request.url if request.url.isascii() else ascii_url(request.url))
        # Without the last two, libcurl adds an Accept of its own and waits for "100 Continue" on larger bodies.
        try:
            curl.setopt(pycurl.HTTPHEADER, [*request.headers, "Expect:", "Accept:"])
        except UnicodeError:
            lines = [line.encode("latin-1") for line in request.headers]
            curl.setopt(pycurl.HTTPHEADER, [*lines, "Expect:", "Accept:"])
        if request.deadline != self._deadline:
            self._deadline = request.deadline
            curl.setopt(pycurl.TIMEOUT_MS, max(1, int(request.deadline * 1000)))
        if self._fresh:
            self._fresh = False
            curl.setopt(pycurl.FRESH_CONNECT, 0)
        if request.resolve or self._resolve:
            self._resolve = request.resolve
            curl.setopt(pycurl.RESOLVE, list(request.resolve))
        if request.certificate:
            # Never taken back, so the handle is for this request alone. libcurl uses a connection again only for
            # the same certificate.
            self.reusable = False
            pem = request.certificate.encode()
            curl.setopt(pycurl.SSLCERT_BLOB, pem)
            curl.setopt(pycurl.SSLKEY_BLOB, pem)

    def overdue(self, moment: float) -> bool:
        """Whether its time was over at `moment`. Then libcurl no longer sees to that, and reads what has come."""
        if moment - self.began < self._deadline:
            return False
        self._deadline = 0.0
        self.curl.setopt(pycurl.TIMEOUT_MS, 0)
        return True

    def renew(self, code: int) -> bool:
        """Whether the request may be made again, on a fresh connection and within its deadline; then it is prepared.

        So it is when all it had were kept connections that died before any answer, which is no fault of the endpoint's.
        libcurl itself tries some of them (RFC 9112 §9.3.1), but those of a server that closes each may all be dying.
        """
        curl = self.curl
        over = not self._deadline
        if code not in _DIED or over or self._fresh or self._headers or curl.getinfo(pycurl.NUM_CONNECTS):
            return False
        self._spent = curl.getinfo(pycurl.TOTAL_TIME)
        if self._spent > DIES_WITHIN:
            self._spent = 0.0
            return False
        self._deadline = max(0.001, self._deadline - self._spent)
        self.began += self._spent
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(self._deadline * 1000)))
        self._fresh = True
        curl.setopt(pycurl.FRESH_CONNECT, 1)
        return True

    def _open(self, purpose: int, address: Any) -> Any:
        """Open the socket libcurl asks for, unless its address must not be dialled."""
        if not settings.OUTBOUND_PROXY and refusal(address.addr[0]) is not None:
            self._stop = self._stop or "refused_address"
            return pycurl.SOCKET_BAD
        # A host may have refused and public addresses; once one of these is dialled, what comes of that counts.
        self._stop = ""
        self._family = address.family
        try:
            opened = socket.socket(address.family, address.socktype, address.protocol)
            # pycurl takes a copy of it, and does not tell when there is no descriptor left for that.
            os.close(os.dup(opened.fileno()))
            return opened
        except OSError as problem:
            # Where there is no IPv6 it stays out of reach, however often it is tried.
            if problem.errno != errno.EAFNOSUPPORT:
                self._stop = "local"
            return pycurl.SOCKET_BAD

    def _short(self, number: int) -> bool:
        """Whether it is we who are short of something when a connection fails with this `errno`.

        That no address is available means that all ports are taken, but with IPv6 that this machine has no address.
        """
        return number in _SHORT or (number == errno.EADDRNOTAVAIL and self._family == _IPV4)

    def _on_body(self, data: bytes) -> int | None:
        room = BODY_KEPT - len(self._body)
        if room > 0:
            self._body += data[:room]
        self._body_read += len(data)
        if self._body_read > BODY_READ:
            self._stop = "enough"
            return -1
        return None

    def outcome(self, code: int) -> Outcome:
        """What came of the finished request; `code` is libcurl's, 0 for none."""
        curl = self.curl
        error = ""
        getinfo = curl.getinfo
        if code and self._stop != "enough":
            error = self._stop or _BY_CURL_CODE.get(code, "protocol")
            if (error == "connect" and self._short(getinfo(pycurl.OS_ERRNO))) or (
                error == "dns" and _no_room_for_lookups()
            ):
                error = "local"
            elif settings.OUTBOUND_PROXY and error != "local":
                error = _behind_proxy(error, code, getinfo(pycurl.HTTP_CONNECTCODE))
            if code == pycurl.E_UNSUPPORTED_PROTOCOL and not self._url.lower().startswith(("http:", "https:")):
                # With the right scheme, it is the server that speaks something else: HTTP/0.9.
                error = "invalid_url"
        head = b"".join(self._headers)
        headers, ended = (_known_head if len(head) <= HEAD_KNOWN else _parse_head)(head)
        if len(self._headers) > HEADER_LINES or len(head) > HEADERS_READ:
            error = "too_large"
        elif not code and not ended:
            # libcurl takes a connection that ends among the headers for the end of an answer without body.
            error = "reset"
        reused = not error and not getinfo(pycurl.NUM_CONNECTS)
        spent = self._spent
        first_byte = getinfo(pycurl.STARTTRANSFER_TIME)
        return Outcome(
            getinfo(pycurl.RESPONSE_CODE) or None,
            error,
            headers,
            bytes(self._body),
            self._body_read > BODY_KEPT,
            {
                "dns": 0 if reused else int(getinfo(pycurl.NAMELOOKUP_TIME) * 1000),
                "connect": 0 if reused else int(getinfo(pycurl.CONNECT_TIME) * 1000),
                "tls": 0 if reused else int(getinfo(pycurl.APPCONNECT_TIME) * 1000),
                "firstByte": int((first_byte + spent) * 1000) if first_byte else 0,
                "total": int((getinfo(pycurl.TOTAL_TIME) + spent) * 1000),
            },
            reused,
        )


def _no_room_for_lookups() -> bool:
    """Whether a name may not have been found for want of descriptors. The kernel gives the lowest one that is free."""
    try:
        lowest = os.eventfd(0)
    except OSError:
        return True
    os.close(lowest)
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - lowest < LOOKUPS


def _behind_proxy(error: str, code: int, connect_status: int) -> str:
    """Whose fault it is where a proxy stands between: it answers 502 to 504 when the host behind it does not answer."""
    if connect_status in (502, 503, 504):
        return "connect"
    return "proxy" if connect_status >= 300 or code == pycurl.E_COULDNT_CONNECT else error


def _parse_head(head: bytes) -> tuple[tuple[tuple[str, str], ...], bool]:
    """(lower-case name, value) pairs of the last answer in `head`, and whether its headers came to their end.

    Answers before it were informational (1xx). Lines that are no headers are left out, trailers are not.
    """
    found: list[tuple[str, str]] = []
    ended = False
    *lines, rest = head.decode("latin-1").split("\n")
    for line in [*lines, rest] if rest else lines:
        if line.startswith("HTTP/"):
            found, ended = [], False
            continue
        name, colon, value = line.partition(":")
        if colon:
            found.append((name.strip().lower(), value.strip()))
        else:
            ended = ended or line in ("\r", "")
    return tuple(found), ended


_known_head = lru_cache(HEADS_KNOWN)(_parse_head)


def fetch(request: Request) -> Outcome:
    """Make one request over a connection of its own and wait for it. Never raises for what the network does.

    Blocks up to the deadline and no longer.
    """
    # Not libcurl's own blocking call: that one waits for a name lookup however late it is.
    stream = Stream(connections=1)
    try:
        stream.submit(request, None)
        while True:
            for _token, outcome in stream.poll(request.deadline):
                return outcome
    finally:
        stream.close()


class Stream:
    """Many requests at once in one thread, with connections kept open: submit, then poll for what is done.

    `connections` is how many idle connections are kept, `in_flight` how many requests are under way. Not
    thread-safe, and not to be carried over a fork.
    """

    def __init__(self, connections: int = 512) -> None:
        self.in_flight = 0
        self._idle: list[_Transfer] = []
        self._active: set[_Transfer] = set()
        self._poller = select.epoll()
        #: Sockets that libcurl waits for, and for what; those that the poller may still hold though nobody does.
        self._watched: dict[int, int] = {}
        self._resting: set[int] = set()
        self._extra: set[int] = set()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._refused: list[tuple[Hashable, Outcome]] = []
        self._closed = False
        #: When it looked last, and whether it had stood still then.
        self._looked = time.monotonic()
        self._stood = False

    def watch(self, descriptor: int) -> None:
        """Also end `poll` when `descriptor` becomes readable, such as the pipe of a wake-up."""
        self._extra.add(descriptor)
        self._poller.register(descriptor, select.EPOLLIN)

    def submit(self, request: Request, token: Hashable) -> None:
        """Start a request. `poll` gives `token` back with its outcome."""
        transfer = self._idle.pop() if self._idle else _Transfer()
        self.in_flight += 1
        try:
            transfer.prepare(request, token)
        except (pycurl.error, UnicodeError):
            # One URL that cannot even be written down must not end the stream of all the others.
            self._refused.append((token, transfer.outcome(pycurl.E_URL_MALFORMAT)))
            return
        transfer.began = time.monotonic()
        self._active.add(transfer)
        self._multi.add_handle(transfer.curl)

    def poll(self, timeout: float) -> list[tuple[Hashable, Outcome]]:
        """Work until something is done, a watched descriptor is readable, or `timeout` seconds are over.

        When this process stood still for long, a request whose time went by meanwhile has what came for it read: an
        answer counts as one in time, and without one it is "local", as nobody knows what the endpoint would have done.
        What was not sent before is not sent any more.
        """
        deadline = time.monotonic() + timeout
        multi = self._multi
        while True:
            # Asked once a round: by a callback libcurl would tell it twice for each request.
            due = multi.timeout()
            wait = 0.0 if self._refused else deadline - time.monotonic()
            if due >= 0:
                wait = min(wait, due / 1000)
            wait = max(0.0, wait)
            extra = False
            ready = self._poller.poll(wait)
            moment = time.monotonic()
            self._stood = moment - self._looked - wait > STANDSTILL
            self._looked = moment
            late: list[_Transfer] = []
            if self._stood:
                late = [transfer for transfer in self._active if transfer.overdue(moment)]
                over = [transfer.curl for transfer in late if not transfer.curl.getinfo(pycurl.REQUEST_SIZE)]
                self._refused += [self._finish(curl, pycurl.E_OPERATION_TIMEDOUT) for curl in over]
                # A wait that was stopped ends without a look at what has come.
                ready = self._poller.poll(0.0)
            for descriptor, events in ready:
                if descriptor in self._watched:
                    # Errors and hang-ups are both: libcurl finds out which by reading.
                    action = _CURL_EVENTS.get(events, pycurl.CSELECT_IN | pycurl.CSELECT_OUT)
                    multi.socket_action(descriptor, action)
                elif descriptor in self._extra:
                    extra = True
                else:
                    self._forget(descriptor)
            if due == 0:
                multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            done = self._collect(late)
            if done or extra or moment >= deadline:
                return done

    def close(self) -> None:
        """Drop everything that is under way and close all connections. Does not wait for name lookups."""
        for transfer in self._active:
            self._multi.remove_handle(transfer.curl)
        self._active.clear()
        self._idle.clear()
        self._closed = True
        self._poller.close()
        # libcurl's clean-up joins the threads of lookups that nobody waits for any more.
        threading.Thread(target=self._multi.close, name="outbound-close", daemon=True).start()

    def _collect(self, late: Collection[_Transfer]) -> list[tuple[Hashable, Outcome]]:
        done, self._refused = self._refused, []
        while True:
            queued, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                done.append(self._finish(curl, 0))
            for curl, code, _message in failed:
                if curl.transfer.renew(code):
                    self._multi.remove_handle(curl)
                    self._multi.add_handle(curl)
                else:
                    done.append(self._finish(curl, code))
            if not queued:
                break
        for transfer in late:
            if transfer in self._active:
                done.append(self._finish(transfer.curl, pycurl.E_OPERATION_TIMEDOUT))
        self.in_flight -= len(done)
        return done

    def _finish(self, curl: pycurl.Curl, code: int) -> tuple[Hashable, Outcome]:
        transfer: _Transfer = curl.transfer
        self._multi.remove_handle(curl)
        self._active.discard(transfer)
        outcome = transfer.outcome(code)
        if outcome.error == "timeout" and (self._stood or time.monotonic() - self._looked > STANDSTILL):
            outcome.error = "local"
        if transfer.reusable:
            self._idle.append(transfer)
        return transfer.token, outcome

    def _on_socket(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        if self._closed:
            return
        if what == pycurl.POLL_REMOVE:
            # The connection most likely stays open and is soon used again, so it stays in the poller.
            if self._watched.pop(descriptor, None) is not None:
                self._resting.add(descriptor)
            return
        events = _POLL_EVENTS[what]
        before = self._watched.get(descriptor)
        if before == events:
            return
        self._watched[descriptor] = events
        if before is None and descriptor not in self._resting:
            self._poller.register(descriptor, events)
            return
        self._resting.discard(descriptor)
        try:
            self._poller.modify(descriptor, events)
        except FileNotFoundError:
            # It was closed meanwhile, which the kernel does not tell, and its number is another's now.
            self._poller.register(descriptor, events)

    def _forget(self, descriptor: int) -> None:
        """Wait no longer for a socket that nobody uses: its other end has closed it or sent what nobody asked for."""
        self._resting.discard(descriptor)
        with contextlib.suppress(OSError):
            self._poller.unregister(descriptor)
