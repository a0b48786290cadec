"""Which addresses the platform may talk to for a customer: the public internet, and nothing else.

Two looks are taken. `check_url` refuses at create and update what is wrong to the naked eye. `refusal` judges the
address that is really dialled, at the moment it is dialled: no spelling, DNS answer or redirect gets around it.
Sources: the IANA special-purpose address registries (IPv4, IPv6), RFC 6890, and cloud providers' metadata addresses.
"""

from __future__ import annotations

import functools
import ipaddress
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import idna
from django.conf import settings
from django.utils.translation import gettext as _

from core.errors import Invalid
from core.text import clean_text

URL_MAX = 2_000

Network = IPv4Network | IPv6Network

#: (network, reason). Reasons are codes for logs and tests.
IPV4_REFUSED: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this_network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata"),
        ("169.254.0.0/16", "link_local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "special"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "special"),
        ("192.52.193.0/24", "special"),
        ("192.88.99.0/24", "special"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "special"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
#: Outside it nothing is public; inside it these are not.
IPV6_PUBLIC = IPv6Network("2000::/3")
IPV6_REFUSED: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("2001::/23", "special"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "translated"),
        ("2620:4f:8000::/48", "special"),
        ("3fff::/20", "documentation"),
    )
)
IPV6_REASONS: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link_local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
#: Interface identifiers of ISATAP (RFC 5214), which carry an IPv4 address.
ISATAP = (0x0000_5EFE, 0x0200_5EFE)

#: Names of the machine itself, and names that only mean something inside a network.
LOOPBACK_NAMES = ("localhost", "localdomain")
INSIDE_NAMES = ("local", "internal", "intranet", "lan", "home", "corp", "home.arpa", "svc", "onion", "metadata.goog")
#: What may stand between `//` and the path: a name or an IPv6 literal, and a port.
NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:[0-9]{1,5})?")
#: NAT64 (RFC 6052): the last four bytes are the address that is reached in the end.
NAT64 = IPv6Network("64:ff9b::/96")
HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")


@functools.lru_cache(maxsize=8)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def allowed_networks() -> tuple[Network, ...]:
    """What OUTBOUND_ALLOWED_NETWORKS lets a self-hoster reach besides the public internet."""
    return _networks(tuple(settings.OUTBOUND_ALLOWED_NETWORKS))


def refusal(address: str | IPv4Address | IPv6Address) -> str | None:
    """Why `address` must not be dialled, as a code, or None when it may be. A text that is no address: "malformed"."""
    return _refusal(str(address), tuple(settings.OUTBOUND_ALLOWED_NETWORKS))


@functools.lru_cache(maxsize=4096)
def _refusal(address: str, allowed: tuple[str, ...]) -> str | None:
    if "%" in address:
        return "zone"
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "malformed"
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    if any(candidate in network for candidate in (ip, mapped) if candidate for network in _networks(allowed)):
        # Whoever allows the translator has not allowed everything behind it.
        return _refusal(str(IPv4Address(int(ip) & 0xFFFF_FFFF)), allowed) if ip in NAT64 else None
    if isinstance(ip, IPv4Address):
        return next((reason for network, reason in IPV4_REFUSED if ip in network), None)
    if ip not in IPV6_PUBLIC:
        return next((reason for network, reason in IPV6_REASONS if ip in network), "special")
    if (int(ip) >> 32) & 0xFFFF_FFFF in ISATAP:
        return "translated"
    return next((reason for network, reason in IPV6_REFUSED if ip in network), None)


def literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that `host` is a spelling of, if any: decimal, hex, octal, short, full-width, bracketed forms.

    The system's own parser decides, since it is the one that would be fooled.
    """
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(ascii_host(bare).rstrip(".")))
    except (OSError, ValueError):
        return None


def ascii_host(host: str) -> str:
    """A host name's form in the DNS: Punycode labels (RFC 5891 after UTS 46). Raises `UnicodeError` without one."""
    return host if host.isascii() else idna.encode(host, uts46=True).decode()


def check_url(field: str, value: Any) -> str:
    """`value` as a URL that may be called for a customer, unchanged. Raises `Invalid` naming `field` and the rule.

    http or https, at most 2,000 characters, a host, no user information, fragment, backslash, space or control
    character; no literal of a refused address in any spelling; no name that only means something inside a network.
    """
    clean_text(field, value, minimum=1, maximum=URL_MAX)

    def refuse(message: str) -> Invalid:
        return Invalid.field(field, message)

    if any(character.isspace() or not character.isprintable() for character in value):
        raise refuse(_("Must not contain spaces or control characters."))
    if "\\" in value or "%5c" in value.lower():
        raise refuse(_("Must not contain backslashes."))
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refuse(_("Is not a valid URL.")) from None
    if parts.scheme.lower() not in ("http", "https"):
        raise refuse(_("Must begin with http:// or https://."))
    if "@" in parts.netloc:
        raise refuse(_("Must not contain a user name or password."))
    if "#" in value:
        raise refuse(_("Must not contain a fragment (#)."))
    if not host:
        raise refuse(_("Must name a host."))
    if port == 0:
        raise refuse(_("The port must be from 1 to 65535."))
    if "%" in parts.netloc:
        raise refuse(_("The host must not contain a percent sign."))
    if not NETLOC.fullmatch(parts.netloc):
        raise refuse(_("Is not a valid URL."))
    address = literal(host)
    if address is not None:
        if refusal(address) is not None:
            raise refuse(_("The address is not on the public internet."))
        return str(value)
    if ":" in host:
        raise refuse(_("Is not a valid URL."))
    error = _name_error(host)
    if error:
        raise refuse(error)
    return str(value)


def _name_error(host: str) -> str | None:
    """What is wrong with a host name. Where networks besides the internet may be reached, so may names inside them."""
    try:
        name = ascii_host(host).lower()
    except UnicodeError:
        return _("The host is not a valid name.")
    if len(name) > 253 or not HOST_NAME.fullmatch(name):
        return _("The host is not a valid name.")
    name = name.rstrip(".")
    if name.rsplit(".", 1)[-1].isdigit():
        return _("The host is not a valid name.")
    allowed = allowed_networks()
    if _ends_in(name, LOOPBACK_NAMES):
        known = any(network.is_loopback for network in allowed)
    elif _ends_in(name, INSIDE_NAMES) or "." not in name:
        known = any(not network.is_loopback for network in allowed)
    else:
        known = True
    if known:
        return None
    if "." not in name and name not in LOOPBACK_NAMES:
        return _("The host must be a full name with a dot, such as hooks.example.com.")
    return _("The host is not on the public internet.")


def _ends_in(name: str, domains: tuple[str, ...]) -> bool:
    return any(name == domain or name.endswith("." + domain) for domain in domains)


#: All of printable ASCII: only other characters are encoded.
_SAFE = "".join(map(chr, range(0x21, 0x7F)))


@functools.lru_cache(maxsize=1024)
def ascii_url(url: str) -> str:
    """`url` as it goes over the wire: the host's labels in Punycode, the rest percent-encoded UTF-8 (RFC 3987 §3.1).

    What is percent-encoded already stays as it is. Raises `UnicodeError` for a host that has no such form.
    """
    parts = urlsplit(url)
    host, colon, port = parts.netloc.partition(":") if not parts.netloc.startswith("[") else (parts.netloc, "", "")
    return urlunsplit(
        (parts.scheme, ascii_host(host) + colon + port, *(quote(part, safe=_SAFE) for part in parts[2:4]), "")
    )
