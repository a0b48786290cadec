"""The two writes that change whether a conversation is open. The caller holds its lock."""

from __future__ import annotations

from conversations.models import Conversation
from core.clock import now


def set_closed(conversation: Conversation) -> None:
    """Write the closed state of a locked conversation."""
    conversation.state = Conversation.State.CLOSED
    conversation.closed_at = now()
    conversation.save(update_fields=["state", "closed_at"])


def set_open(conversation: Conversation) -> None:
    """Write the open state of a locked conversation."""
    conversation.state = Conversation.State.OPEN
    conversation.closed_at = None
    conversation.save(update_fields=["state", "closed_at"])
