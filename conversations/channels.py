"""The kinds of channels there are. Gateways, which live above, fill this in `ready()`."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise


@dataclass(frozen=True, slots=True)
class ChannelKind:
    """A way to the world: its code on the wire and its name for people."""

    code: str
    label: str | Promise


KINDS: dict[str, ChannelKind] = {}


def register(kind: ChannelKind) -> None:
    """Offer a kind of channel. Raises `ValueError` when the code is taken."""
    if KINDS.setdefault(kind.code, kind) != kind:
        raise ValueError(f"There is already a channel kind {kind.code}.")
