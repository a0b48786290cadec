"""Verbs on messages: send, receive, report an outcome."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.utils.translation import gettext as _

from conversations.actions.locks import locked, locked_contact, locked_conversation, open_conversation
from conversations.actions.transitions import set_closed, set_open
from conversations.models import Channel, Conversation, Message
from conversations.outcomes import OUTCOMES, advances
from core.actors import SYSTEM, Actor, acting_as
from core.clock import now
from core.errors import Conflict, Invalid
from core.text import BODY_MAX, NAME_MAX, clean_address, clean_text
from organisations.models import Organisation


def send_message(*, organisation: Organisation, actor: Actor, conversation_id: int, body: str) -> Message:
    """Send a text in an open conversation: saved as pending, taken by the channel's gateway.

    Raises `NotFound` for the conversation, `Invalid` for the body, `Conflict` `conversation_closed`.
    """
    clean_text("body", body, minimum=1, maximum=BODY_MAX)
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        if conversation.state != Conversation.State.OPEN:
            raise Conflict("conversation_closed", _("The conversation is not open."))
        return new_outbound(conversation, body, actor)


def new_outbound(conversation: Conversation, body: str, actor: Actor) -> Message:
    """Save a pending message of a locked conversation. A gateway may have moved it on when this returns."""
    message = Message(
        organisation_id=conversation.organisation_id,
        conversation=conversation,
        channel=conversation.channel,
        direction=Message.Direction.OUTBOUND,
        state=Message.State.PENDING,
        body=body,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
    )
    message.save(force_insert=True)
    return message


def receive_message(
    *,
    channel: Channel,
    address: str,
    body: str,
    external_id: str | None = None,
    occurred_at: datetime | None = None,
) -> Message:
    """Take in a contact's message and find or make its conversation.

    An open conversation of the same contact and channel within its validity period continues. Otherwise, by the
    channel's `inbound_rule`, the newest one is reopened or a new one starts; an open one past its validity is
    closed by the system first. A message whose `external_id` is known is returned as it is, once stored.
    Raises `Invalid` for the address or body.
    """
    address = clean_address("outboundChannelAddress", address)
    clean_text("body", body, minimum=1, maximum=BODY_MAX)
    if external_id is not None:
        clean_text("externalId", external_id, minimum=1, maximum=NAME_MAX)
    organisation = channel.organisation
    with transaction.atomic():
        contact = locked_contact(organisation, address)
        if external_id is not None:
            # The contact's lock makes the carrier's second delivery wait for the first.
            known = Message.objects.filter(channel=channel, external_id=external_id).first()
            if known is not None:
                return known
        actor = Actor("contact", str(contact.pk), contact.name or contact.address)
        with acting_as(actor):
            conversation = open_conversation(channel, contact)
            if conversation is not None:
                conversation.organisation = organisation
                expires = conversation.last_message_at + timedelta(hours=channel.validity_hours)
                if channel.inbound_rule == Channel.InboundRule.NEW and now() >= expires:
                    with acting_as(SYSTEM):
                        set_closed(conversation)
                    conversation = None
            elif channel.inbound_rule == Channel.InboundRule.REOPEN:
                conversation = _reopen_newest(channel, contact.pk)
            if conversation is None:
                moment = now()
                conversation = Conversation(
                    organisation=organisation,
                    channel=channel,
                    contact=contact,
                    customer_uid=contact.customer_uid,
                    last_event_at=moment,
                    last_message_at=moment,
                    created_at=moment,
                    updated_at=moment,
                )
                conversation.save(force_insert=True)
            message = Message(
                organisation=organisation,
                conversation=conversation,
                channel=channel,
                direction=Message.Direction.INBOUND,
                state=Message.State.RECEIVED,
                body=body,
                external_id=external_id,
                occurred_at=occurred_at,
                actor_kind=actor.kind,
                actor_id=actor.id,
                actor_label=actor.label,
            )
            message.save(force_insert=True)
    return message


def report_outcome(
    *,
    channel: Channel,
    status_code: int,
    message_id: int | None = None,
    external_id: str | None = None,
    occurred_at: datetime | None = None,
) -> Message | None:
    """A carrier's report about one of the channel's messages, named by our id or by the carrier's.

    Reports come late, twice, out of order and for messages we never sent: those change nothing. Returns the
    message, or None when it is unknown. Raises `Invalid` for an unknown status code.
    """
    outcome = OUTCOMES.get(status_code)
    if outcome is None:
        raise Invalid.field("statusCode", _("There is no such status code."))
    by = {"pk": message_id} if message_id is not None else {"external_id": external_id}
    if None in by.values():
        raise Invalid.field("communicationActionId", _("A report must name its message."))
    rows = Message.objects.filter(channel=channel, direction=Message.Direction.OUTBOUND, **by)
    with transaction.atomic(), acting_as(SYSTEM):
        conversation_id = rows.values_list("conversation_id", flat=True).first()
        if conversation_id is None:
            return None
        conversation = locked_conversation(channel.organisation, conversation_id)
        message = rows.select_for_update(no_key=True).get()
        message.conversation = conversation
        if not advances(message.state, outcome.state):
            return message
        set_outcome(message, status_code, occurred_at)
    return message


def set_outcome(message: Message, status_code: int, occurred_at: datetime | None = None) -> None:
    """Write the outcome of a message whose conversation is locked and which it advances."""
    at = (occurred_at or now()).isoformat(timespec="milliseconds")
    message.state = OUTCOMES[status_code].state
    message.status_code = status_code
    message.outcomes = [*message.outcomes, {"statusCode": str(status_code), "at": at}]
    message.save(update_fields=["state", "status_code", "outcomes"])


def _reopen_newest(channel: Channel, contact_id: int) -> Conversation | None:
    closed = Conversation.objects.filter(channel=channel, contact_id=contact_id, state=Conversation.State.CLOSED)
    conversation = locked(closed.order_by("-id"))
    if conversation is not None:
        set_open(conversation)
    return conversation
