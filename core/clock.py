"""The one source of the present time, so that tests can hold it still and sample data can have a past."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from django.utils import timezone

_held: ContextVar[datetime | None] = ContextVar("webio_clock", default=None)


def now() -> datetime:
    """The present moment, aware, in UTC; or the moment it is held at."""
    return _held.get() or timezone.now()


@contextmanager
def held_at(moment: datetime) -> Iterator[None]:
    """Inside the block it is `moment` (aware), for this thread and context only."""
    token = _held.set(moment)
    try:
        yield
    finally:
        _held.reset(token)
