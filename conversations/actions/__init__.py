"""The verbs of conversations. Each is atomic, takes an actor, and refuses with `core.errors`."""

from conversations.actions.conversations import (
    add_note,
    assign_conversation,
    close_conversation,
    move_to_queue,
    reopen_conversation,
    set_status,
    start_conversation,
    take_conversation,
    unassign_conversation,
)
from conversations.actions.directory import (
    archive_channel,
    archive_queue,
    archive_status,
    create_channel,
    create_contact,
    create_queue,
    create_status,
    update_channel,
    update_contact,
    update_queue,
    update_status,
)
from conversations.actions.messages import receive_message, report_outcome, send_message

__all__ = [
    "add_note",
    "archive_channel",
    "archive_queue",
    "archive_status",
    "assign_conversation",
    "close_conversation",
    "create_channel",
    "create_contact",
    "create_queue",
    "create_status",
    "move_to_queue",
    "receive_message",
    "reopen_conversation",
    "report_outcome",
    "send_message",
    "set_status",
    "start_conversation",
    "take_conversation",
    "unassign_conversation",
    "update_channel",
    "update_contact",
    "update_queue",
    "update_status",
]
