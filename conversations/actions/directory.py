"""Verbs on what conversations need: channels, contacts, queues, statuses."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext as _

from conversations.channels import KINDS
from conversations.models import Channel, Contact, Conversation, Queue, Status
from core.actors import Actor
from core.clock import now
from core.errors import Conflict, Invalid
from core.text import clean_address, clean_text
from organisations.audit import record_audit
from organisations.models import Organisation

M = TypeVar("M", bound=models.Model)


def create_channel(
    *,
    organisation: Organisation,
    actor: Actor,
    kind: str,
    label: str,
    address: str = "",
    inbound_rule: str = Channel.InboundRule.NEW,
    validity_hours: int = 24,
) -> Channel:
    """Add a channel. Raises `Invalid` for an unknown kind or rule, a taken label, a bad address."""
    if kind not in KINDS:
        raise Invalid.field("type", _("Must be one of: %(kinds)s.") % {"kinds": ", ".join(sorted(KINDS))})
    values = _channel_values(label=label, address=address, inbound_rule=inbound_rule, validity_hours=validity_hours)
    channel = Channel(organisation=organisation, kind=kind, **values)
    return _save(channel, actor, "label")


def update_channel(*, channel: Channel, actor: Actor, **changes: Any) -> Channel:
    """Change `label`, `address`, `inbound_rule` or `validity_hours`. Raises `Invalid`."""
    return _save(channel, actor, "label", _channel_values(**changes))


def archive_channel(*, channel: Channel, actor: Actor) -> None:
    """Take a channel out of use. Raises `Conflict` `channel_in_use` while it has open conversations."""
    _archive(channel, actor, "channel")


def create_contact(
    *, organisation: Organisation, actor: Actor, address: str, customer_uid: str = "", name: str = ""
) -> Contact:
    """Add a contact. Raises `Invalid`, also when the address is taken."""
    values = _contact_values(customer_uid=customer_uid, name=name)
    contact = Contact(organisation=organisation, address=clean_address("address", address), **values)
    return _save(contact, actor, "address")


def update_contact(*, contact: Contact, actor: Actor, **changes: Any) -> Contact:
    """Change `customer_uid` or `name`. Raises `Invalid`."""
    return _save(contact, actor, "address", {**_contact_values(**changes), "updated_at": now()})


def create_queue(*, organisation: Organisation, actor: Actor, name: str, active: bool = True) -> Queue:
    """Add a queue. Raises `Invalid`, also when the name is taken."""
    name = clean_text("name", name, minimum=1)
    return _save(Queue(organisation=organisation, name=name, active=active), actor, "name")


def update_queue(*, queue: Queue, actor: Actor, **changes: Any) -> Queue:
    """Change `name` or `active`. Conversations stay in a queue that becomes inactive. Raises `Invalid`."""
    if "name" in changes:
        clean_text("name", changes["name"], minimum=1)
    return _save(queue, actor, "name", changes)


def archive_queue(*, queue: Queue, actor: Actor) -> None:
    """Take a queue out of use. Raises `Conflict` `queue_in_use` while it has open conversations."""
    _archive(queue, actor, "queue")


def create_status(*, organisation: Organisation, actor: Actor, name: str) -> Status:
    """Add a status. Raises `Invalid`, also when the name is taken."""
    return _save(Status(organisation=organisation, name=clean_text("name", name, minimum=1)), actor, "name")


def update_status(*, status: Status, actor: Actor, name: str) -> Status:
    """Rename a status. Events already recorded keep the old name. Raises `Invalid`."""
    return _save(status, actor, "name", {"name": clean_text("name", name, minimum=1)})


def archive_status(*, status: Status, actor: Actor) -> None:
    """Take a status out of use; conversations that carry it keep it."""
    _archive(status, actor, None)


def _channel_values(**values: Any) -> dict[str, Any]:
    if "label" in values:
        clean_text("label", values["label"], minimum=1)
    if values.get("address"):
        values["address"] = clean_address("address", values["address"])
    if "inbound_rule" in values and values["inbound_rule"] not in Channel.InboundRule.values:
        raise Invalid.field("inboundRule", _("Must be new or reopen."))
    if "validity_hours" in values and not 1 <= values["validity_hours"] <= 8760:
        raise Invalid.field("validityHours", _("Must be from 1 to 8760."))
    return values


def _contact_values(**values: Any) -> dict[str, Any]:
    for attribute, field in (("customer_uid", "customerUID"), ("name", "name")):
        if attribute in values:
            clean_text(field, values[attribute])
    return values


def _save(row: M, actor: Actor, unique_field: str, changes: dict[str, Any] | None = None) -> M:
    """Insert `row`, or write `changes` to it; a taken name is told as the field's error."""
    verb = "create" if changes is None else "update"
    old = {name: getattr(row, name) for name in changes or {}}
    for name, value in (changes or {}).items():
        setattr(row, name, value)
    try:
        with transaction.atomic():
            if changes is None:
                row.save(force_insert=True)
            elif changes:
                row.save(update_fields=list(changes))
            record_audit(actor, f"{row._meta.model_name}.{verb}", row, data={"fields": sorted(changes or {})})
    except IntegrityError as error:
        for name, value in old.items():
            setattr(row, name, value)
        raise Invalid.field(unique_field, _("Is already taken."), code="taken") from error
    return row


def _archive(row: Channel | Queue | Status, actor: Actor, relation: str | None) -> None:
    with transaction.atomic():
        # The row's lock makes a conversation that is just being moved here visible, or makes it wait.
        type(row).objects.select_for_update().get(pk=row.pk)
        if relation is not None:
            open_ones = Conversation.objects.filter(state=Conversation.State.OPEN, **{relation: row})
            if open_ones.exists():
                raise Conflict(f"{relation}_in_use", _("It still has open conversations: close or move them first."))
        row.archived_at = now()
        row.save(update_fields=["archived_at"])
        record_audit(actor, f"{row._meta.model_name}.archive", row)
