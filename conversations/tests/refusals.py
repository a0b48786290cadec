"""What the tests of the verbs share: a refusal changes nothing, and what a conversation's history tells."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
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


def first_holding(first: Callable[[], Any], second: Callable[[], Any]) -> Refusal | None:
    """Run `first` and, before it commits, `second`. Returns the refusal of `second`, if it was refused."""
    done, results = threading.Event(), []

    def run() -> None:
        try:
            results.append(second())
        except Refusal as refusal:
            results.append(refusal)
        finally:
            done.set()
            connections.close_all()

    thread = threading.Thread(target=run)
    with transaction.atomic():
        first()
        thread.start()
        # Time enough to come to the lock; what needs none is done by then.
        done.wait(0.3)
    thread.join(30)
    assert results
    return results[0] if isinstance(results[0], Refusal) else None
