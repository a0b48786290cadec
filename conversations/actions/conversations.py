"""Verbs on whole conversations: start, label, route, assign, note, close, reopen."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from conversations.actions.locks import locked_contact, locked_conversation, open_conversation, staying
from conversations.actions.messages import new_outbound
from conversations.actions.transitions import set_closed, set_open
from conversations.models import Channel, Conversation, Message, Note, Queue, Status
from core.actors import Actor, acting_as
from core.clock import now
from core.errors import Conflict, Invalid
from core.text import BODY_MAX, clean_address, clean_fields, clean_text
from organisations.models import Organisation, User
from organisations.roles import Permission, may, role_of


def start_conversation(
    *,
    organisation: Organisation,
    actor: Actor,
    channel_id: int,
    address: str,
    customer_uid: str | None = None,
    body: str | None = None,
    queue_id: int | None = None,
    status_id: int | None = None,
    fields: dict[str, str] | None = None,
) -> tuple[Conversation, Message | None]:
    """Open a conversation with a contact, and send the first message when `body` is given.

    Raises `Invalid` for bad input, an unknown channel, queue or status and an inactive queue; `Conflict`
    `conversation_open` (with `conversationId`) while one of the same channel and contact is open.
    """
    address = clean_address("outboundChannelAddress", address)
    if customer_uid is not None:
        clean_text("customerUID", customer_uid)
    if body is not None:
        clean_text("body", body, minimum=1, maximum=BODY_MAX)
    clean_fields("fields", fields or {})
    with transaction.atomic(), acting_as(actor):
        channel = usable_channel(organisation, channel_id)
        queue = None if queue_id is None else usable_queue(organisation, queue_id)
        status = None if status_id is None else usable_status(organisation, status_id)
        contact = locked_contact(organisation, address)
        existing = open_conversation(channel, contact)
        if existing is not None:
            raise Conflict(
                "conversation_open",
                _("A conversation with this contact on this channel is already open."),
                conversationId=str(existing.pk),
            )
        if customer_uid and customer_uid != contact.customer_uid:
            contact.customer_uid = customer_uid
            contact.updated_at = now()
            contact.save(update_fields=["customer_uid", "updated_at"])
        moment = now()
        conversation = Conversation(
            organisation=organisation,
            channel=channel,
            contact=contact,
            queue=queue,
            status=status,
            customer_uid=contact.customer_uid if customer_uid is None else customer_uid,
            fields=fields or {},
            last_event_at=moment,
            last_message_at=moment,
            created_at=moment,
            updated_at=moment,
        )
        conversation.save(force_insert=True)
        message = None if body is None else new_outbound(conversation, body, actor)
    return conversation, message


def set_status(*, organisation: Organisation, actor: Actor, conversation_id: int, status_id: int) -> Conversation:
    """Label a conversation, open or closed. Setting the status it has changes nothing.

    Raises `NotFound` for the conversation, `Invalid` for the status.
    """
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        status = usable_status(organisation, status_id)
        if conversation.status_id != status.pk:
            conversation.status = status
            conversation.save(update_fields=["status"])
    return conversation


def move_to_queue(*, organisation: Organisation, actor: Actor, conversation_id: int, queue_id: int) -> Conversation:
    """Move an open conversation to an active queue. Moving it where it is changes nothing.

    Raises `NotFound` for the conversation, `Invalid` for an unknown or inactive queue, `Conflict` when closed.
    """
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        queue = usable_queue(organisation, queue_id)
        must_be_open(conversation)
        if conversation.queue_id != queue.pk:
            conversation.queue = queue
            conversation.save(update_fields=["queue"])
    return conversation


def assign_conversation(
    *, organisation: Organisation, actor: Actor, conversation_id: int, user_id: int
) -> Conversation:
    """Assign an open conversation to a member, whoever had it. Assigning it to its holder changes nothing.

    Raises `NotFound` for the conversation, `Invalid` when the user cannot work in the organisation, `Conflict`
    when closed.
    """
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        user = assignable_user(organisation, user_id)
        must_be_open(conversation)
        _give(conversation, user)
    return conversation


def take_conversation(*, organisation: Organisation, actor: Actor, conversation_id: int, user_id: int) -> Conversation:
    """An agent takes an open conversation that nobody has. Of two who try, one wins and the other is told.

    Raises as `assign_conversation`, and `Conflict` `already_assigned` (with `assignedToId`, `assignedTo`).
    """
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        user = assignable_user(organisation, user_id)
        must_be_open(conversation)
        holder = conversation.assigned_to
        if holder is not None and holder.pk != user.pk:
            raise Conflict(
                "already_assigned",
                _("%(name)s has already taken this conversation.") % {"name": holder.get_full_name()},
                assignedToId=str(holder.pk),
                assignedTo=holder.get_full_name(),
            )
        _give(conversation, user)
    return conversation


def unassign_conversation(*, organisation: Organisation, actor: Actor, conversation_id: int) -> Conversation:
    """Leave an open conversation to nobody. Raises `NotFound`, `Conflict` when closed."""
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        must_be_open(conversation)
        _give(conversation, None)
    return conversation


def add_note(*, organisation: Organisation, actor: Actor, conversation_id: int, body: str) -> Note:
    """Write an internal note. Raises `NotFound`, `Invalid` for the body."""
    clean_text("body", body, minimum=1, maximum=BODY_MAX)
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        return Note.objects.create(
            organisation=organisation,
            conversation=conversation,
            body=body,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_label=actor.label,
        )


def close_conversation(*, organisation: Organisation, actor: Actor, conversation_id: int) -> Conversation:
    """Close a conversation; it keeps its queue and holder for the day it is reopened.

    Raises `NotFound`, `Conflict` `conversation_closed` when it is closed already.
    """
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        if conversation.state == Conversation.State.CLOSED:
            raise Conflict("conversation_closed", _("The conversation is already closed."))
        set_closed(conversation)
    return conversation


def reopen_conversation(*, organisation: Organisation, actor: Actor, conversation_id: int) -> Conversation:
    """Open a closed conversation again, in the queue it had.

    Raises `NotFound`, and `Conflict` `conversation_open` (with `conversationId`) when it, or another one of the
    same channel and contact, is open.
    """
    with transaction.atomic(), acting_as(actor):
        found = Conversation.objects.filter(organisation=organisation, pk=conversation_id)
        address = found.values_list("contact__address", flat=True).first()
        if address is not None:
            locked_contact(organisation, address)
        conversation = locked_conversation(organisation, conversation_id)
        existing = open_conversation(conversation.channel, conversation.contact)
        if existing is not None:
            raise Conflict(
                "conversation_open",
                _("A conversation with this contact on this channel is already open."),
                conversationId=str(existing.pk),
            )
        set_open(conversation)
    return conversation


def must_be_open(conversation: Conversation) -> None:
    """Raises `Conflict` `conversation_closed` unless the conversation is open."""
    if conversation.state != Conversation.State.OPEN:
        raise Conflict("conversation_closed", _("The conversation is not open."))


def usable_channel(organisation: Organisation, pk: int) -> Channel:
    """A channel in use. Raises `Invalid` for `channelId`."""
    return _usable(Channel.objects.filter(organisation=organisation), pk, "channelId", _("There is no such channel."))


def usable_status(organisation: Organisation, pk: int) -> Status:
    """A status in use. Raises `Invalid` for `statusId`."""
    return _usable(Status.objects.filter(organisation=organisation), pk, "statusId", _("There is no such status."))


def usable_queue(organisation: Organisation, pk: int) -> Queue:
    """An active queue. Raises `Invalid` for `queueId`, with code `queue_inactive` for an inactive one."""
    rows = Queue.objects.filter(organisation=organisation)
    queue = _usable(rows, pk, "queueId", _("There is no such queue."))
    if not queue.active:
        raise Invalid.field("queueId", _("The queue is inactive."), code="queue_inactive")
    return queue


def assignable_user(organisation: Organisation, pk: int) -> User:
    """A user who may work on the organisation's conversations. Raises `Invalid` for `userId`."""
    user = User.objects.filter(pk=pk, is_active=True).first()
    if user is None or not may(role_of(user, organisation), Permission.CONVERSATIONS_WORK):
        raise Invalid.field("userId", _("There is no such member who works on conversations."))
    return user


def _usable(rows: Any, pk: int, field: str, message: str) -> Any:
    row = staying(rows.filter(pk=pk, archived_at=None))
    if row is None:
        raise Invalid.field(field, message, code="unknown_object")
    return row


def _give(conversation: Conversation, user: User | None) -> None:
    if conversation.assigned_to_id != (user.pk if user else None):
        conversation.assigned_to = user
        conversation.save(update_fields=["assigned_to"])
