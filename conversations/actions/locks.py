"""Locks, always in the same order: organisation → contact → conversation → message."""

from __future__ import annotations

from typing import TypeVar

from django.db import connections
from django.db.models import QuerySet

from conversations.models import Channel, Contact, Conversation, Queue, Status
from core.errors import NotFound
from organisations.models import Organisation

T = TypeVar("T", Channel, Queue, Status)


def locked(rows: QuerySet[Conversation]) -> Conversation | None:
    """The first of `rows` under a row lock, with the rows its events name.

    Two queries on purpose: PostgreSQL reads a row that it waited for anew, but not what it is joined with, so a
    holder or queue set meanwhile would come back as the old one or none.
    """
    pk = rows.select_for_update(no_key=True).values_list("pk", flat=True).first()
    return None if pk is None else Conversation.objects.with_names().get(pk=pk)


def locked_conversation(organisation: Organisation, pk: int) -> Conversation:
    """The organisation's conversation under a row lock, with the rows its events name. Raises `NotFound`."""
    conversation = locked(Conversation.objects.filter(organisation=organisation, pk=pk))
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
    return locked(Conversation.objects.filter(channel=channel, contact=contact, state=Conversation.State.OPEN))


def staying(rows: QuerySet[T]) -> T | None:
    """The first of `rows`, which nobody takes out of use before the transaction ends.

    FOR KEY SHARE makes only that wait: others give the same row to their conversations meanwhile. Foreign keys would
    take the lock too, but at the commit, when it is too late. SQLite has one writer anyway.
    """
    connection = connections[rows.db]
    sql, parameters = rows[:1].query.get_compiler(connection=connection).as_sql()
    lock = " FOR KEY SHARE" if connection.features.has_select_for_no_key_update else ""
    return next(iter(rows.model._default_manager.raw(sql + lock, parameters)), None)
