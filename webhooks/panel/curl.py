"""A request as a line for a terminal, without its secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from core.addresses import ascii_url

#: Headers whose values prove who sends them.
SECRET_HEADERS = frozenset({"x-webio-token", "webhook-signature"})
MASK = "…"
#: Options for what curl does to a URL and we do not: it reads brackets as many URLs, and takes dots out of a path.
OPTIONS = {
    "--globoff": re.compile(r"[\[\]{}]"),
    "--path-as-is": re.compile(r"/(\.|%2e){1,2}([/?]|$)", re.IGNORECASE),
}


def mask_headers(headers: Iterable[tuple[str, str]], own: Iterable[str]) -> list[tuple[str, str]]:
    """`headers` with the values of proofs and of the customer's `own` headers masked."""
    hidden = SECRET_HEADERS | {name.lower() for name in own}
    return [(name, MASK if name.lower() in hidden else value) for name, value in headers]


def mask_query(url: str) -> str:
    """`url` with its query masked, if it has one."""
    address, mark, query = url.partition("?")
    return f"{address}{mark}{MASK}" if query else url


def as_curl(
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]],
    body: str,
    *,
    client_certificate: bool = False,
    query: bool = True,
) -> str:
    """A curl command for a POSIX shell that makes the request. What is masked is left for the reader to fill in.

    Without `query` that of the URL is masked, too.
    """
    url = url if url.isascii() else ascii_url(url)
    needed = [option for option, pattern in OPTIONS.items() if pattern.search(url)]
    parts = ["curl", *needed, "--request", method, shlex.quote(url if query else mask_query(url))]
    lines = [" ".join(parts)]
    lines += [f"  --header {shlex.quote(f'{name}: {value}')}" for name, value in headers]
    if client_certificate:
        lines.append(f"  --cert {MASK}")
    if body:
        lines.append(f"  --data-raw {shlex.quote(body)}")
    return " \\\n".join(lines)
