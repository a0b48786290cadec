"""Locks, always in the same order: organisation → contact → conversation → message."""

from __future__ import annotations

from conversations.models import Channel, Contact, Conversation
from core.errors import NotFound
from organisations.models import Organisation


def locked_conversation(organisation: Organisation, pk: int) -> Conversation:
    """The organisation's conversation under a row lock, with the rows its events name. Raises `NotFound`."""
    rows = Conversation.objects.filter(organisation=organisation).with_names()
    conversation = rows.select_for_update(no_key=True, of=("self",)).filter(pk=pk).first()
    if conversation is None:
        raise NotFound("conversation")
    conversation.organisation = organisation
    return conversation


def locked_contact(organisation: Organisation, address: str) -> Contact:
    """The contact of an address under a row lock, made when new. Two first messages meet here."""
    contact, _ = Contact.objects.get_or_create(organisation=organisation, address=address)
    return Contact.objects.select_for_update(no_key=True).get(pk=contact.pk)


def open_conversation(channel: Channel, contact: Contact) -> Conversation | None:
    """The open conversation of a contact on a channel under a row lock, if there is one."""
    rows = Conversation.objects.with_names().select_for_update(no_key=True, of=("self",))
    return rows.filter(channel=channel, contact=contact, state=Conversation.State.OPEN).first()
