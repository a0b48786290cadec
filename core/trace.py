"""W3C trace context: the trace that a caller says its call belongs to, carried beside the call.

https://www.w3.org/TR/trace-context/. What cannot be understood is as if nothing had been said.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Later versions may say more behind a further dash.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
#: The flags of version 00 and its level 2: sampled, random.
_KNOWN_FLAGS = 0b11

_current: ContextVar[str] = ContextVar("webio_trace", default="")


def current_trace() -> str:
    """The trace of the code that is running, as `trace_of` tells it; "" for none."""
    return _current.get()


@contextmanager
def tracing(traceparent: str | None) -> Iterator[None]:
    """Everything recorded inside the block belongs to the trace that a `traceparent` header names."""
    token = _current.set(trace_of(traceparent or ""))
    try:
        yield
    finally:
        _current.reset(token)


def trace_of(traceparent: str) -> str:
    """The trace id and flags of a `traceparent` header, such as "4bf92f3577b34da6a3ce929d0e0e4736-01"; "" if bad."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return ""
    if not int(found["trace"], 16) or not int(found["parent"], 16):
        return ""
    return f"{found['trace']}-{int(found['flags'], 16) & _KNOWN_FLAGS:02x}"


def new_traceparent(trace: str) -> str:
    """A `traceparent` of the same trace with a parent id of its own."""
    trace_id, _dash, flags = trace.partition("-")
    # Never zero, which would mean none.
    return f"00-{trace_id}-{secrets.randbits(63) + 1:016x}-{flags}"
