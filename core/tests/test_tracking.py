"""Whoever saves, and however: each change is heard once, in the save's own transaction."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.db import transaction
from django.db.models import F, Value

from conftest import Cast
from conversations.models import Conversation, Event, Message
from core.actors import Actor, acting_as
from core.tracking import TrackedWriteRefused


def types(cast: Cast, after: int) -> list[str]:
    rows = Event.objects.filter(conversation=cast.conversation.pk, seq__gt=after).order_by("seq")
    return list(rows.values_list("type", flat=True))


@pytest.fixture
def seen(acme: Cast) -> int:
    acme.conversation.refresh_from_db()
    return acme.conversation.event_seq


def test_several_changes_of_one_save_are_told_in_a_fixed_order(acme: Cast, seen: int) -> None:
    conversation = acme.conversation
    conversation.queue, conversation.status, conversation.assigned_to = acme.queue, acme.status, acme.agent
    conversation.save()
    assert types(acme, seen) == ["setStatus", "moveToQueue", "conversationAssignment"]


def test_only_written_fields_count(acme: Cast, seen: int) -> None:
    acme.conversation.queue, acme.conversation.status = acme.queue, acme.status
    acme.conversation.save(update_fields=["status"])
    assert types(acme, seen) == ["setStatus"]


def test_a_save_without_change_tells_nothing(acme: Cast, seen: int) -> None:
    acme.conversation.save()
    acme.conversation.save(update_fields=["customer_uid"])
    assert types(acme, seen) == []


def test_an_expression_is_told_with_what_it_came_to(acme: Cast, seen: int) -> None:
    acme.conversation.queue_id = Value(acme.queue.pk)
    acme.conversation.save(update_fields=["queue"])
    acme.conversation.status_id = F("status_id")
    acme.conversation.save(update_fields=["status"])
    assert types(acme, seen) == ["moveToQueue"]
    event = Event.objects.get(type="moveToQueue")
    assert event.data["facts"]["queueId"] == str(acme.queue.pk)


def test_a_stale_instance_tells_what_it_really_changes(acme: Cast, seen: int) -> None:
    stale = Conversation.objects.get(pk=acme.conversation.pk)
    acme.conversation.queue = acme.queue
    acme.conversation.save()
    stale.queue = acme.queue
    stale.save(update_fields=["queue"])
    assert types(acme, seen) == ["moveToQueue"]


def test_a_deferred_instance_tells_its_change(acme: Cast, seen: int) -> None:
    deferred = Conversation.objects.only("pk").get(pk=acme.conversation.pk)
    deferred.queue = acme.queue
    deferred.save()
    assert types(acme, seen) == ["moveToQueue"]


@pytest.mark.django_db(transaction=True)
def test_an_asynchronous_save_tells_its_change(acme: Cast, seen: int) -> None:
    acme.conversation.queue = acme.queue
    async_to_sync(acme.conversation.asave)()
    assert types(acme, seen) == ["moveToQueue"]


def test_a_rolled_back_save_leaves_no_event(acme: Cast, seen: int) -> None:
    acme.conversation.queue = acme.queue
    with transaction.atomic():
        acme.conversation.save()
        transaction.set_rollback(True)
    assert types(acme, seen) == []
    acme.conversation.refresh_from_db()
    assert acme.conversation.event_seq == seen


def test_bulk_writes_of_tracked_fields_are_refused(acme: Cast, seen: int) -> None:
    with pytest.raises(TrackedWriteRefused):
        Conversation.objects.update(queue=acme.queue)
    with pytest.raises(TrackedWriteRefused):
        Conversation.objects.filter(pk=acme.conversation.pk).update(state="closed")
    with pytest.raises(TrackedWriteRefused):
        Conversation.objects.bulk_update([acme.conversation], ["status"])
    with pytest.raises(TrackedWriteRefused):
        Message.objects.bulk_create([acme.message])
    acme.conversation.refresh_from_db()
    assert (acme.conversation.queue, acme.conversation.state) == (None, "open")
    assert types(acme, seen) == []


def test_a_raw_fixture_is_loaded_in_silence(acme: Cast, seen: int) -> None:
    acme.conversation.queue = acme.queue
    dump = serializers.serialize("json", [acme.conversation])
    for row in serializers.deserialize("json", dump):
        row.save()
    acme.conversation.refresh_from_db()
    assert acme.conversation.queue == acme.queue
    assert types(acme, seen) == []


@pytest.mark.parametrize(
    ("kind", "wire"), [("user", "agent"), ("api", "api"), ("bot", "bot"), ("system", "system"), ("staff", "system")]
)
def test_closed_by_names_who_closed(acme: Cast, kind: str, wire: str) -> None:
    with acting_as(Actor(kind)):  # type: ignore[arg-type]
        acme.conversation.state = "closed"
        acme.conversation.closed_at = acme.conversation.created_at
        acme.conversation.save()
    assert Event.objects.get(type="conversationClosed").data["facts"] == {"closedBy": wire}
