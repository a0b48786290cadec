"""The ranges that a sender must refuse, written apart from `core.addresses`, so that none can go there unnoticed.

Sources: the IANA special-purpose address registries, RFC 5214 (ISATAP), and cloud providers' metadata addresses.
"""

from __future__ import annotations

from typing import NamedTuple


class Range(NamedTuple):
    """Addresses from `first` to `last`; `outside` are those next to them that are public."""

    first: str
    last: str
    outside: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """Its first address as a URL has it."""
        return f"[{self.first}]" if ":" in self.first else self.first


IPV4 = (
    Range("0.0.0.0", "0.255.255.255", ("1.0.0.0",)),
    Range("10.0.0.0", "10.255.255.255", ("9.255.255.255", "11.0.0.0")),
    Range("100.64.0.0", "100.127.255.255", ("100.63.255.255", "100.128.0.0")),
    Range("127.0.0.0", "127.255.255.255", ("126.255.255.255", "128.0.0.0")),
    Range("168.63.129.16", "168.63.129.16", ("168.63.129.15", "168.63.129.17")),
    Range("169.254.0.0", "169.254.255.255", ("169.253.255.255", "169.255.0.0")),
    Range("172.16.0.0", "172.31.255.255", ("172.15.255.255", "172.32.0.0")),
    Range("192.0.0.0", "192.0.0.255", ("191.255.255.255", "192.0.1.0")),
    Range("192.0.2.0", "192.0.2.255", ("192.0.1.255", "192.0.3.0")),
    Range("192.31.196.0", "192.31.196.255", ("192.31.195.255", "192.31.197.0")),
    Range("192.52.193.0", "192.52.193.255", ("192.52.192.255", "192.52.194.0")),
    Range("192.88.99.0", "192.88.99.255", ("192.88.98.255", "192.88.100.0")),
    Range("192.168.0.0", "192.168.255.255", ("192.167.255.255", "192.169.0.0")),
    Range("192.175.48.0", "192.175.48.255", ("192.175.47.255", "192.175.49.0")),
    Range("198.18.0.0", "198.19.255.255", ("198.17.255.255", "198.20.0.0")),
    Range("198.51.100.0", "198.51.100.255", ("198.51.99.255", "198.51.101.0")),
    Range("203.0.113.0", "203.0.113.255", ("203.0.112.255", "203.0.114.0")),
    Range("224.0.0.0", "239.255.255.255", ("223.255.255.255",)),
    Range("240.0.0.0", "255.255.255.255"),
    Range("255.255.255.255", "255.255.255.255"),
)
_REST = ":ffff:ffff:ffff:ffff:ffff"
IPV6 = (
    Range("::", f"ff:ffff:ffff{_REST}"),
    Range("::1", "::1"),
    Range("::2", "::ffff:ffff"),
    Range("::ffff:0:0", "::ffff:ffff:ffff"),
    Range("::ffff:0:0:0", "::ffff:0:ffff:ffff"),
    Range("64:ff9b::", "64:ff9b::ffff:ffff"),
    Range("64:ff9b:1::", f"64:ff9b:1{_REST}"),
    Range("100::", "100::ffff:ffff:ffff:ffff"),
    Range("100:0:0:1::", "100::1:ffff:ffff:ffff:ffff"),
    Range("200::", f"1fff:ffff:ffff{_REST}", ("2000::",)),
    Range("2001::", f"2001:1ff:ffff{_REST}", (f"2000:ffff:ffff{_REST}", "2001:200::")),
    Range("2001:db8::", f"2001:db8:ffff{_REST}", (f"2001:db7:ffff{_REST}", "2001:db9::")),
    Range("2002::", f"2002:ffff:ffff{_REST}", (f"2001:ffff:ffff{_REST}", "2003::")),
    Range("2620:4f:8000::", f"2620:4f:8000{_REST}", (f"2620:4f:7fff{_REST}", "2620:4f:8001::")),
    Range("2606:4700::5efe:0:0", "2606:4700::5efe:ffff:ffff", ("2606:4700::5efd:ffff:ffff", "2606:4700::5eff:0:0")),
    Range(
        "2606:4700::200:5efe:0:0",
        "2606:4700::200:5efe:ffff:ffff",
        ("2606:4700::200:5efd:ffff:ffff", "2606:4700::200:5eff:0:0"),
    ),
    Range("3fff::", f"3fff:fff:ffff{_REST}", (f"3ffe:ffff:ffff{_REST}", "3fff:1000::")),
    Range("4000::", f"fbff:ffff:ffff{_REST}", (f"3fff:ffff:ffff{_REST}",)),
    Range("5f00::", f"5f00:ffff:ffff{_REST}"),
    Range("fc00::", f"fdff:ffff:ffff{_REST}"),
    Range("fd00:ec2::254", "fd00:ec2::254"),
    Range("fd20:ce::254", "fd20:ce::254"),
    Range("fe80::", f"febf:ffff:ffff{_REST}"),
    Range("fec0::", f"feff:ffff:ffff{_REST}"),
    Range("ff00::", f"ffff:ffff:ffff{_REST}"),
)
