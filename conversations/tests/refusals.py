"""What the tests of the verbs share: a refusal changes nothing, and what a conversation's history tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.models import Model

from conversations.models import Channel, Contact, Conversation, Event, Message, Note, Queue, Status
from core.errors import Refusal
from organisations.models import AuditEntry

MODELS: tuple[type[Model], ...] = (Channel, Contact, Queue, Status, Conversation, Message, Note, Event, AuditEntry)


def everything() -> dict[str, list[dict[str, Any]]]:
    """Every row that a verb of conversations can write, by model."""
    return {model.__name__: list(model._base_manager.order_by("pk").values()) for model in MODELS}


@contextmanager
def refused(kind: type[Refusal], code: str | None = None) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block is refused with `kind` and `code`, and not a row differs afterwards."""
    before = everything()
    with pytest.raises(kind) as refusal:
        yield refusal
    if code is not None:
        assert refusal.value.code == code
    assert everything() == before


@contextmanager
def unchanged() -> Iterator[None]:
    """The block succeeds and not a row differs afterwards."""
    before = everything()
    yield
    assert everything() == before


def types(conversation: Conversation, after: int = 0) -> list[str]:
    """Types of the conversation's events with a number past `after`, in order."""
    rows = Event.objects.filter(conversation=conversation.pk, seq__gt=after).order_by("seq")
    return list(rows.values_list("type", flat=True))


def newest(conversation: Conversation) -> Event:
    """The conversation's last event."""
    return Event.objects.filter(conversation=conversation.pk).latest("seq")
