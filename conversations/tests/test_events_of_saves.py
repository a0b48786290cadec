"""What a plain save tells, whoever makes it: from a shell, inside another save, of rows that were renamed since."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.db.transaction import TransactionManagementError

from conftest import Cast
from conversations import actions
from conversations.events import Change, record
from conversations.models import Conversation, Event
from conversations.tests.refusals import newest, types, unchanged
from core.actors import SYSTEM
from core.clock import held_at
from core.errors import Conflict


@contextmanager
def after_saves(react: Any) -> Iterator[None]:
    """`react(conversation)` is called after each save of a conversation, inside the save."""

    def receiver(instance: Conversation, **_: Any) -> None:
        react(instance)

    post_save.connect(receiver, sender=Conversation)
    try:
        yield
    finally:
        post_save.disconnect(receiver, sender=Conversation)


def test_a_save_from_the_shell_is_told_as_the_systems(acme: Cast) -> None:
    acme.conversation.queue = acme.queue
    acme.conversation.save()
    event = newest(acme.conversation)
    assert (event.type, event.actor_kind, event.actor_label) == ("moveToQueue", "system", "system")
    assert event.data["queue"] == {"id": str(acme.queue.pk), "name": "Billing"}


def test_an_instance_that_is_behind_tells_what_stands_in_the_row(acme: Cast) -> None:
    behind = Conversation.objects.get(pk=acme.conversation.pk)
    acme.conversation.queue = acme.queue
    acme.conversation.save()
    assert behind.queue_id is None
    with transaction.atomic():
        told = record(behind, [Change("setStatus", {"status": name, "statusId": "1"}) for name in ("a", "b")])
    stored = list(Event.objects.filter(pk__in=[event.pk for event in told]).order_by("seq"))
    assert stored == told
    assert [event.seq for event in stored] == [newest(acme.conversation).seq - 1, newest(acme.conversation).seq]
    for event in (*stored, *told):
        assert event.data["queue"] == {"id": str(acme.queue.pk), "name": "Billing"}


def test_all_changes_of_one_save_share_a_moment_and_a_snapshot(acme: Cast) -> None:
    conversation = acme.conversation
    conversation.refresh_from_db()
    conversation.status, conversation.queue, conversation.assigned_to = acme.status, acme.queue, acme.agent
    conversation.state, conversation.closed_at = "closed", conversation.created_at
    conversation.save()
    assert types(conversation)[2:] == ["setStatus", "moveToQueue", "conversationAssignment", "conversationClosed"]
    events = list(Event.objects.filter(conversation=conversation.pk, seq__gt=2).order_by("seq"))
    assert [event.seq for event in events] == [3, 4, 5, 6]
    assert len({event.created_at for event in events}) == 1
    told = [{key: value for key, value in event.data.items() if key != "facts"} for event in events]
    assert told == [told[0]] * 4


def test_a_status_taken_off_is_told_as_none(acme: Cast) -> None:
    acme.conversation.status = acme.status
    acme.conversation.save()
    acme.conversation.status = None
    acme.conversation.save()
    event = newest(acme.conversation)
    assert (event.data["facts"], event.data["status"]) == ({"status": "", "statusId": ""}, None)


def test_an_expression_over_another_column_is_told_with_its_value(acme: Cast) -> None:
    acme.conversation.queue = acme.queue
    acme.conversation.save()
    with unchanged():
        acme.conversation.queue_id = F("queue_id")
        acme.conversation.save(update_fields=["queue"])


def test_a_save_inside_a_save_is_told_once_and_after_it(acme: Cast) -> None:
    def route(conversation: Conversation) -> None:
        if conversation.status_id == acme.status.pk and conversation.queue_id is None:
            conversation.queue = acme.queue
            conversation.save()

    with after_saves(route):
        acme.conversation.status = acme.status
        acme.conversation.save()
    assert types(acme.conversation)[2:] == ["setStatus", "moveToQueue"]


def test_a_save_that_fails_after_it_wrote_leaves_nothing(acme: Cast) -> None:
    def fail(conversation: Conversation) -> None:
        raise Conflict("no", "No.")

    acme.conversation.queue = acme.queue
    with unchanged(), after_saves(fail), pytest.raises(Conflict), transaction.atomic():
        acme.conversation.save()


def test_a_failed_part_of_a_transaction_takes_its_events_with_it(acme: Cast) -> None:
    conversation = acme.conversation
    with transaction.atomic():
        conversation.status = acme.status
        conversation.save()
        conversation.queue = acme.queue
        part = transaction.savepoint()
        conversation.save()
        transaction.savepoint_rollback(part)
    assert types(conversation)[2:] == ["setStatus"]
    fresh = Conversation.objects.get(pk=conversation.pk)
    fresh.assigned_to = acme.agent
    fresh.save()
    assert list(Event.objects.filter(conversation=conversation.pk).values_list("seq", flat=True)) == [4, 3, 2, 1]


def test_events_never_go_back_in_time(acme: Cast) -> None:
    before = newest(acme.conversation).created_at
    with held_at(before.replace(year=before.year - 1)):
        acme.conversation.queue = acme.queue
        acme.conversation.save()
    assert newest(acme.conversation).created_at == before


def test_what_was_told_stays_after_renaming_and_deleting(acme: Cast) -> None:
    conversation = acme.conversation
    conversation.status, conversation.queue, conversation.assigned_to = acme.status, acme.queue, acme.agent
    conversation.save()
    told = list(Event.objects.order_by("pk").values_list("pk", "data"))
    actions.update_status(status=acme.status, actor=SYSTEM, name="Renamed")
    actions.update_queue(queue=acme.queue, actor=SYSTEM, name="Renamed")
    actions.update_channel(channel=acme.channel, actor=SYSTEM, label="Renamed")
    acme.agent.name = "Renamed"
    acme.agent.save()
    conversation.delete()
    assert list(Event.objects.order_by("pk").values_list("pk", "data")) == told


def test_the_next_event_tells_the_new_name(acme: Cast) -> None:
    acme.conversation.queue = acme.queue
    acme.conversation.save()
    actions.update_queue(queue=acme.queue, actor=SYSTEM, name="Renamed")
    actions.set_status(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, status_id=acme.status.pk
    )
    assert newest(acme.conversation).data["queue"] == {"id": str(acme.queue.pk), "name": "Renamed"}


@pytest.mark.django_db(transaction=True)
def test_events_are_recorded_only_in_a_transaction(acme: Cast) -> None:
    with unchanged(), pytest.raises(TransactionManagementError):
        record(acme.conversation, [Change("setStatus", {})])


def test_an_event_is_never_saved_again(acme: Cast) -> None:
    event = newest(acme.conversation)
    event.actor_label = "somebody else"
    with unchanged(), pytest.raises(TypeError):
        event.save()
