"""Who did it: the actor of a change, carried beside the call so that signals know it too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

ActorKind = Literal["user", "api", "bot", "system", "contact", "staff"]


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change.

    `kind` says what it is, `id` is its primary key as text ("" when it has none), `label` is what people
    are shown: an e-mail address, an API key's prefix, a bot's name.
    """

    kind: ActorKind
    id: str = ""
    label: str = ""


SYSTEM = Actor("system", label="system")

_current: ContextVar[Actor] = ContextVar("webio_actor", default=SYSTEM)


def current_actor() -> Actor:
    """The actor of the code that is running; `SYSTEM` when nobody said otherwise."""
    return _current.get()


@contextmanager
def acting_as(actor: Actor) -> Iterator[Actor]:
    """Everything recorded inside the block is recorded as done by `actor`."""
    token = _current.set(actor)
    try:
        yield actor
    finally:
        _current.reset(token)
