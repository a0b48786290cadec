"""Only the public internet may be called, however an address is written."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from AntiSSRF.antissrf_policy import AntiSSRFPolicy, PolicyConfigOptions
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ssrfguard import Policy

from core.addresses import ascii_url, check_url, literal, refusal
from core.errors import Invalid
from core.tests.ranges import IPV4, IPV6, Range

pytestmark = pytest.mark.once

MICROSOFT = AntiSSRFPolicy(PolicyConfigOptions.EXTERNAL_ONLY_LATEST)
GUARD = Policy()

V4 = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
V6 = st.builds(IPv6Address, st.integers(0, 2**128 - 1))
#: Around the edges of every range that matters, where mistakes live.
EDGES = st.sampled_from(
    [
        IPv4Address((int(IPv4Address(edge)) + step) % 2**32)
        for one in IPV4
        for edge in (one.first, one.last)
        for step in (-1, 0, 1)
    ]
)
PREFIXES = [
    *(
        "2001::/23",
        "2620:4f:8000::/48",
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
    ),
    *("2001:20::/28", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10"),
    *("ff00::/8", "2000::/3", "2606:4700::/32"),
]


@st.composite
def within(draw: st.DrawFn) -> IPv6Address:
    """An address inside one of the ranges that matter, with any or a well known IPv4 address at its end."""
    network = ipaddress.IPv6Network(draw(st.sampled_from(PREFIXES)))
    tail = draw(st.integers(0, 2**32 - 1) | EDGES.map(int) | st.integers(0, 2**128 - 1))
    return IPv6Address(int(network.network_address) | (tail & int(network.hostmask)))


@settings(max_examples=600, deadline=None)
@given(V4 | EDGES | V6 | within())
@example(IPv4Address("168.63.129.16"))
@example(IPv6Address("::7f00:1"))
@example(IPv6Address("2001:4:112::1"))
def test_whatever_an_independent_guard_refuses_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not MICROSOFT._is_str_ip_address_connection_allowed(str(address)) or not GUARD.permits_address(address):
        assert refusal(address) is not None


@settings(max_examples=300, deadline=None)
@given(V4 | V6 | within())
def test_what_the_standard_library_calls_private_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert refusal(address) is not None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("0.0.0.0", "this_network"),
        ("10.1.2.3", "private"),
        ("100.100.100.200", "shared"),
        ("169.254.169.254", "link_local"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "special"),
        ("192.88.99.1", "special"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "special"),
        ("::1", "loopback"),
        ("::7f00:1", "special"),
        ("::ffff:127.0.0.1", "special"),
        ("::ffff:8.8.8.8", "special"),
        ("::ffff:0:7f00:1", "special"),
        ("64:ff9b::7f00:1", "special"),
        ("64:ff9b:1::7f00:1", "special"),
        ("2002:7f00:1::", "translated"),
        ("2606:4700::5efe:7f00:1", "translated"),
        ("2606:4700::200:5efe:a00:1", "translated"),
        ("fd00:ec2::254", "private"),
        ("fe80::1", "link_local"),
        ("fe80::1%eth0", "zone"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("3fff::1", "documentation"),
        ("5f00::1", "special"),
        ("2620:4f:8000::1", "special"),
        ("not an address", "malformed"),
        ("", "malformed"),
        ("127.1", "malformed"),
    ],
)
def test_a_refusal_says_why(address: str, reason: str) -> None:
    assert refusal(address) == reason


@pytest.mark.parametrize("one", [*IPV4, *IPV6], ids=lambda one: one.first)
def test_a_range_is_refused_from_its_first_address_to_its_last(one: Range) -> None:
    assert refusal(one.first) is not None
    assert refusal(one.last) is not None
    assert [refusal(address) for address in one.outside] == [None] * len(one.outside)


@pytest.mark.parametrize("one", [*IPV4, *IPV6], ids=lambda one: one.first)
def test_no_spelling_of_a_ranges_first_or_last_address_is_accepted_in_a_url(one: Range) -> None:
    for edge in (one.first, one.last):
        for host in spellings(IPv4Address(edge)) if one in IPV4 else spellings_6(IPv6Address(edge)):
            with pytest.raises(Invalid):
                check_url("callbackUrl", f"https://{host}/hook")
    for address in one.outside:
        url = f"https://{address if one in IPV4 else f'[{address}]'}/hook"
        assert check_url("callbackUrl", url) == url


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "168.63.129.15", "2606:4700:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address) is None


def test_allowed_networks_open_what_they_name_and_no_more(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8", "fd12::/16"]
    assert refusal("127.0.0.1") is None
    assert refusal("::ffff:127.0.0.1") is None
    assert refusal("fd12::7") is None
    assert refusal("10.0.0.1") == "private"
    assert refusal("::1") == "loopback"
    assert refusal("169.254.169.254") == "link_local"
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    assert refusal("127.0.0.1") == "loopback"


def test_behind_an_allowed_translator_the_last_address_is_judged(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["64:ff9b::/96"]
    assert refusal("64:ff9b::808:808") is None
    assert refusal("64:ff9b::7f00:1") == "loopback"
    assert refusal("64:ff9b::a9fe:a9fe") == "link_local"


def spellings(address: IPv4Address) -> list[str]:
    """Ways to write an IPv4 address that some resolver understands."""
    number = int(address)
    a, b, c, d = address.packed
    full_width = str.maketrans("0123456789", "０１２３４５６７８９")
    return [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"0x{a:x}.0{b:o}.{c}.{d}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"000{a:o}.{b}.{c}.{d}",
        f"0X{a:X}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"{address}.",
        str(address).translate(full_width),
        str(address).replace(".", "。"),
        str(address).replace(".", "．"),
        f"[::ffff:{address}]",
        f"[::ffff:{a:x}{b:02x}:{c:x}{d:02x}]",
        f"[::{address}]",
        f"[0:0:0:0:0:ffff:{address}]",
        f"[::ffff:{address}%25eth0]",
        f"[64:ff9b::{address}]",
        f"[2002:{a:x}{b:02x}:{c:x}{d:02x}::]",
    ]


def spellings_6(address: IPv6Address) -> list[str]:
    """Ways to write an IPv6 address."""
    start, tail = address.exploded[:30], IPv4Address(int(address) & 0xFFFF_FFFF)
    forms = [str(address), address.exploded, str(address).upper(), f"{start}{tail}", f"{address}%25eth0"]
    return [*(f"[{form}]" for form in forms), f"[{address}]."]


def addresses_of(one: Range) -> st.SearchStrategy[IPv4Address]:
    """Any address of a range."""
    return st.builds(IPv4Address, st.integers(int(IPv4Address(one.first)), int(IPv4Address(one.last))))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(IPV4).flatmap(addresses_of))
def test_no_spelling_of_a_refused_address_is_accepted_in_a_url(address: IPv4Address) -> None:
    for host in spellings(address):
        for url in (f"http://{host}/", f"https://{host}:8443/hook?x=1"):
            with pytest.raises(Invalid):
                check_url("callbackUrl", url)


@settings(max_examples=200, deadline=None)
@given(V4)
def test_a_literal_is_read_as_the_system_reads_it(address: IPv4Address) -> None:
    for host in spellings(address)[:11]:
        read = literal(host)
        if read is not None:
            assert str(read) == socket.inet_ntoa(socket.inet_aton(host.rstrip("."))) == str(address)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "at least"),
        ("https://example.com/" + "x" * 1_981, "at most 2000"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/a\tb", "spaces"),
        ("https://example.com/a\r\nx-evil: 1", "spaces"),
        ("https://example.com\u00a0/", "spaces"),
        ("https://exam\u00adple.com/", "spaces or control"),
        ("https://example.com/\x7f", "control"),
        ("https://example.com/\x00", "NUL"),
        ("https://example.com/\ud800", "surrogates"),
        ("http://127.0.0.1/\\@8.8.8.8/", "backslashes"),
        ("http://8.8.8.8%5c@127.0.0.1/", "backslashes"),
        ("ftp://example.com/", "http"),
        ("file:///etc/passwd", "http"),
        ("gopher://example.com/", "http"),
        ("javascript:alert(1)", "http"),
        ("//example.com/", "http"),
        ("example.com", "http"),
        ("https://", "host"),
        ("https:///path", "host"),
        ("https:example.com", "host"),
        ("https://:443/", "host"),
        ("https://user@example.com/", "user name"),
        ("https://user:pass@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://example.com:0/", "65535"),
        ("https://example.com:65536/", "valid URL"),
        ("https://example.com:x/", "valid URL"),
        ("https://example.com:+443/", "valid URL"),
        ("https://example.com:/", "valid URL"),
        ("https://[2606:4700::1]x/", "valid URL"),
        ("https://x[2606:4700::1]/", "valid URL"),
        ("https://[2606:4700::1/", "valid URL"),
        ("https://[example.com]/", "valid URL"),
        ("https://[fe80::1%25eth0]/", "percent"),
        ("https://ex%61mple.com/", "percent"),
        ("https://example..com/", "valid name"),
        ("https://-example.com/", "valid name"),
        ("https://exa$mple.com/", "valid name"),
        ("https://" + "a" * 64 + ".com/", "valid name"),
        ("https://" + "a." * 130 + "com/", "valid name"),
        ("https://1.2.3.4.5/", "valid name"),
        ("https://256.256.256.256/", "valid name"),
        ("https://localhost/", "public internet"),
        ("https://LOCALHOST.:8000/", "public internet"),
        ("https://ⓛocalhost/", "public internet"),
        ("https://app.localhost/", "public internet"),
        ("https://printer.local/", "public internet"),
        ("https://metadata.google.internal/", "public internet"),
        ("https://kubernetes.default.svc/", "public internet"),
        ("https://db.svc.cluster.local/", "public internet"),
        ("https://intranet/", "full name"),
        ("https://localhost。/", "public internet"),
    ],
)
def test_a_refused_url_names_the_field_and_the_rule(url: str, rule: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_url("callbackUrl", url)
    (message,) = caught.value.errors["callbackUrl"]
    assert rule in message


@pytest.mark.parametrize("value", [None, 7, ["https://example.com"], {"url": "https://example.com"}, True])
def test_what_is_no_text_is_no_url(value: Any) -> None:
    with pytest.raises(Invalid):
        check_url("callbackUrl", value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTPS://Example.COM:8443/hook?a=1&b=[x]&c=%20",
        "http://hooks.example.com./",
        "https://under_score.example.com/",
        "https://bücher.example/straße?q=é",
        "https://xn--bcher-kva.example/",
        "https://8.8.8.8/hook",
        "https://[2606:4700:4700::1111]:8443/",
        "https://example.com/" + "x" * 1_980,
    ],
)
def test_a_public_url_comes_back_unchanged(url: str) -> None:
    assert check_url("callbackUrl", url) == url


def test_the_demo_reaches_its_own_machine_and_nothing_else_inside(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.0/8", "::1/128"]
    for url in ("http://localhost:9000/", "http://app.localhost/", "http://127.0.0.1:9000/", "http://[::1]:9000/"):
        assert check_url("callbackUrl", url) == url
    for url in ("http://intranet/", "http://db.internal/", "http://10.0.0.1/", "http://169.254.169.254/"):
        with pytest.raises(Invalid):
            check_url("callbackUrl", url)


def test_a_self_hoster_may_use_the_names_inside_an_allowed_network(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["10.0.0.0/8"]
    for url in ("http://intranet/", "http://db.internal/", "http://10.0.0.1/"):
        assert check_url("callbackUrl", url) == url
    for url in ("http://localhost/", "http://192.168.0.1/"):
        with pytest.raises(Invalid):
            check_url("callbackUrl", url)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["", "http://", "https://", "http://[", "https://a.com:"]))
def test_any_text_is_accepted_or_refused_but_never_breaks(text: str, start: str) -> None:
    try:
        accepted = check_url("callbackUrl", start + text)
    except Invalid as error:
        assert list(error.errors) == ["callbackUrl"]  # noqa: PT017
    else:
        assert ascii_url(accepted).isascii()


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        (
            "https://bücher.example:8443/straße/ü?q=é&r=%20+",
            "https://xn--bcher-kva.example:8443/stra%C3%9Fe/%C3%BC?q=%C3%A9&r=%20+",
        ),
        ("https://Example.com/a[b]?c={d}", "https://Example.com/a[b]?c={d}"),
        ("https://[2606:4700::1]/ü", "https://[2606:4700::1]/%C3%BC"),
    ],
)
def test_on_the_wire_a_url_is_ascii(url: str, wire: str) -> None:
    assert ascii_url(url) == wire
