"""Channels, contacts, queues and statuses: made, changed, put away; a name is taken once for each organisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import Cast
from conversations import actions
from conversations.models import Channel, Queue, Status
from conversations.tests.refusals import refused
from core.actors import SYSTEM
from core.errors import Conflict, Invalid

Make = Callable[..., Any]


def channel(cast: Cast, label: str, **values: Any) -> Channel:
    given = {"kind": "sandbox", **values}
    return actions.create_channel(organisation=cast.organisation, actor=SYSTEM, label=label, **given)


def queue(cast: Cast, name: str) -> Queue:
    return actions.create_queue(organisation=cast.organisation, actor=SYSTEM, name=name)


def status(cast: Cast, name: str) -> Status:
    return actions.create_status(organisation=cast.organisation, actor=SYSTEM, name=name)


ARCHIVE: dict[Make, Make] = {
    channel: actions.archive_channel,
    queue: actions.archive_queue,
    status: actions.archive_status,
}
MAKES = pytest.mark.parametrize("make", list(ARCHIVE), ids=lambda make: make.__name__)


@MAKES
def test_a_name_is_taken_once_until_it_is_put_away(acme: Cast, make: Make) -> None:
    first = make(acme, "Twice")
    with refused(Invalid, "taken"):
        make(acme, "Twice")
    ARCHIVE[make](**{make.__name__: first}, actor=SYSTEM)
    first.refresh_from_db()
    assert (first.archived_at is not None, make(acme, "Twice").pk != first.pk) == (True, True)


@MAKES
def test_organisations_share_no_names(acme: Cast, globex: Cast, make: Make) -> None:
    assert make(acme, "Same").organisation_id != make(globex, "Same").organisation_id


@MAKES
@pytest.mark.parametrize("name", ["", "  ", "n" * 256, "a\x00b", "\udfff"])
def test_a_bad_name_is_refused(acme: Cast, make: Make, name: str) -> None:
    with refused(Invalid):
        make(acme, name)


def test_renaming_to_a_taken_name_is_refused_and_the_row_in_hand_keeps_its_own(acme: Cast) -> None:
    queue(acme, "Taken")
    with refused(Invalid, "taken"):
        actions.update_queue(queue=acme.queue, actor=SYSTEM, name="Taken", active=False)
    assert (acme.queue.name, acme.queue.active) == ("Billing", True)
    status(acme, "Taken")
    with refused(Invalid, "taken"):
        actions.update_status(status=acme.status, actor=SYSTEM, name="Taken")
    channel(acme, "Taken")
    with refused(Invalid, "taken"):
        actions.update_channel(channel=acme.channel, actor=SYSTEM, label="Taken")


def test_only_what_is_given_changes(acme: Cast) -> None:
    actions.update_channel(channel=acme.channel, actor=SYSTEM, validity_hours=48)
    actions.update_queue(queue=acme.queue, actor=SYSTEM, active=False)
    actions.update_contact(contact=acme.contact, actor=SYSTEM, name="Mary")
    acme.channel.refresh_from_db()
    acme.queue.refresh_from_db()
    acme.contact.refresh_from_db()
    assert (acme.channel.label, acme.channel.validity_hours) == ("Sandbox", 48)
    assert (acme.queue.name, acme.queue.active) == ("Billing", False)
    assert (acme.contact.name, acme.contact.address) == ("Mary", "447717472695")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "pigeon"}, "type"),
        ({"inbound_rule": "ignore"}, "inboundRule"),
        ({"validity_hours": 0}, "validityHours"),
        ({"validity_hours": 8761}, "validityHours"),
        ({"address": "12"}, "address"),
    ],
)
def test_a_channel_that_could_not_work_is_refused(acme: Cast, values: dict[str, Any], field: str) -> None:
    with refused(Invalid) as refusal:
        channel(acme, "Odd", **values)
    assert list(refusal.value.errors) == [field]


def test_a_channels_address_is_kept_as_digits_and_shown_before_its_label(acme: Cast) -> None:
    made = channel(acme, "Line", address="+44 7700-900 500")
    assert (made.address, made.wire_address, acme.channel.wire_address) == ("447700900500", "447700900500", "Sandbox")


def test_a_contact_is_known_once_however_its_address_is_written(acme: Cast, globex: Cast) -> None:
    make = {"actor": SYSTEM, "address": "+44 7700 900 123"}
    assert actions.create_contact(organisation=acme.organisation, **make).address == "447700900123"
    with refused(Invalid, "taken") as refusal:
        actions.create_contact(organisation=acme.organisation, actor=SYSTEM, address="447700900123")
    assert list(refusal.value.errors) == ["address"]
    assert actions.create_contact(organisation=globex.organisation, **make).pk


def test_a_contacts_texts_have_limits(acme: Cast) -> None:
    for values, field in (({"customer_uid": "c" * 256}, "customerUID"), ({"name": "a\x00b"}, "name")):
        with refused(Invalid) as refusal:
            actions.update_contact(contact=acme.contact, actor=SYSTEM, **values)
        assert list(refusal.value.errors) == [field]


def test_what_open_conversations_use_is_not_put_away(acme: Cast) -> None:
    where: dict[str, Any] = {
        "organisation": acme.organisation,
        "actor": SYSTEM,
        "conversation_id": acme.conversation.pk,
    }
    actions.move_to_queue(**where, queue_id=acme.queue.pk)
    with refused(Conflict, "channel_in_use"):
        actions.archive_channel(channel=acme.channel, actor=SYSTEM)
    with refused(Conflict, "queue_in_use"):
        actions.archive_queue(queue=acme.queue, actor=SYSTEM)
    actions.close_conversation(**where)
    actions.archive_channel(channel=acme.channel, actor=SYSTEM)
    actions.archive_queue(queue=acme.queue, actor=SYSTEM)


def test_a_conversation_keeps_a_status_that_is_put_away(acme: Cast) -> None:
    actions.set_status(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, status_id=acme.status.pk
    )
    actions.archive_status(status=acme.status, actor=SYSTEM)
    acme.conversation.refresh_from_db()
    assert acme.conversation.status_id == acme.status.pk
