"""Who asks: the address of the client, also behind proxies. Audit entries, throttles and logs take it from here.

`X-Forwarded-For` is what a client likes to claim, except for the part that proxies of ours have added at its end. So
it is read from the end, as long as each address that said the next one is a proxy named in TRUSTED_PROXIES.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from django.conf import settings
from django.http import HttpRequest

#: In TRUSTED_PROXIES: whoever connects over a Unix socket, which has no address.
UNIX = "unix"

_current: ContextVar[str] = ContextVar("webio_client", default="")


@contextmanager
def serving(request: HttpRequest) -> Iterator[str]:
    """Inside the block `current_client` is the client of `request`, whose address is also the block's value."""
    address = client_address(request)
    token = _current.set(address)
    try:
        yield address
    finally:
        _current.reset(token)


def current_client() -> str:
    """The address of the client whose request is being answered; "" outside of requests."""
    return _current.get()


def client_address(request: HttpRequest) -> str:
    """The client's IP address, "" when nothing trustworthy tells it (a Unix socket)."""
    return _client(
        request.META.get("REMOTE_ADDR", ""),
        request.META.get("HTTP_X_FORWARDED_FOR", ""),
        tuple(settings.TRUSTED_PROXIES),
    )


def _client(peer: str, forwarded: str, trusted: tuple[str, ...]) -> str:
    found = _parsed(peer)
    if not _trusts(found, trusted):
        return str(found or "")
    for claimed in reversed(forwarded.split(",")):
        address = _parsed(claimed)
        if address is None:
            break
        found = address
        if not _trusts(found, trusted):
            break
    return str(found or "")


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it, some with a port; IPv4 inside IPv6 is IPv4, zones are left out."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _trusts(address: IPv4Address | IPv6Address | None, trusted: tuple[str, ...]) -> bool:
    if address is None:
        return UNIX in trusted
    return any(address in network for network in _networks(trusted))


@functools.lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts if text != UNIX)
