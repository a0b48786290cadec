"""Two at once, with real threads and connections."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from conftest import Cast, make_cast
from conversations import actions
from conversations.models import Contact, Conversation, Event, Message
from core.actors import SYSTEM
from core.errors import Conflict, Refusal
from organisations.models import User

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # A database in memory has no lock that waits; one in a file has, and its writers queue.
    pytest.mark.skipif(
        connection.vendor == "sqlite" and "mode=memory" in str(connection.creation._get_test_db_name()),
        reason="needs a database that several connections can write to",
    ),
]


@pytest.fixture
def world(transactional_db: None) -> Cast:
    return make_cast("acme")


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """Results or exceptions of `calls`, each made in a thread and connection of its own, started together."""
    results: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=20)
            results[index] = call()
        except Exception as error:
            results[index] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    unforeseen = [result for result in results if isinstance(result, Exception) and not isinstance(result, Refusal)]
    assert unforeseen == []
    return results


def assert_gapless(conversation: Conversation) -> None:
    events = list(Event.objects.filter(conversation=conversation.pk).order_by("seq"))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.created_at for event in events] == sorted(event.created_at for event in events)


def test_of_two_agents_who_take_a_conversation_one_wins_and_the_other_is_told(world: Cast) -> None:
    def take(user: User) -> Callable[[], Any]:
        return lambda: actions.take_conversation(
            organisation=world.organisation, actor=SYSTEM, conversation_id=world.conversation.pk, user_id=user.pk
        )

    results = at_once(take(world.agent), take(world.admin))
    lost = [result for result in results if isinstance(result, Conflict)]
    assert [refusal.code for refusal in lost] == ["already_assigned"]
    world.conversation.refresh_from_db()
    assert lost[0].extra["assignedToId"] == str(world.conversation.assigned_to_id)
    assert Event.objects.filter(type="conversationAssignment").count() == 1
    assert_gapless(world.conversation)


def test_first_messages_of_one_contact_make_one_conversation(world: Cast) -> None:
    def receive(number: int) -> Callable[[], Any]:
        return lambda: actions.receive_message(channel=world.channel, address="447000000001", body=f"Hi {number}")

    results = at_once(*(receive(number) for number in range(4)))
    assert not any(isinstance(result, Exception) for result in results)
    contact = Contact.objects.get(address="447000000001")
    conversation = Conversation.objects.get(contact=contact)
    assert conversation.messages.count() == 4
    assert_gapless(conversation)


def test_a_start_and_a_first_message_make_one_conversation(world: Cast) -> None:
    results = at_once(
        lambda: actions.start_conversation(
            organisation=world.organisation, actor=SYSTEM, channel_id=world.channel.pk, address="447000000002"
        ),
        lambda: actions.receive_message(channel=world.channel, address="447000000002", body="Hi"),
    )
    refused = [result for result in results if isinstance(result, Refusal)]
    assert [refusal.code for refusal in refused] in ([], ["conversation_open"])
    conversation = Conversation.objects.get(contact__address="447000000002")
    assert conversation.messages.count() == 1
    assert_gapless(conversation)


def test_a_message_delivered_several_times_at_once_arrives_once(world: Cast) -> None:
    def receive() -> Message:
        return actions.receive_message(
            channel=world.channel, address="447000000003", body="Hi", external_id="carrier-1"
        )

    results = at_once(receive, receive, receive)
    assert len({message.pk for message in results}) == 1
    assert Message.objects.filter(external_id="carrier-1").count() == 1
    assert Event.objects.filter(type="inboundMessage", conversation=results[0].conversation_id).count() == 1


def test_reports_at_once_tell_each_step_once(world: Cast) -> None:
    message = actions.send_message(
        organisation=world.organisation, actor=SYSTEM, conversation_id=world.conversation.pk, body="Reply"
    )

    def report(code: int) -> Callable[[], Any]:
        return lambda: actions.report_outcome(channel=world.channel, message_id=message.pk, status_code=code)

    at_once(report(1), report(2), report(2), report(1))
    message.refresh_from_db()
    assert message.state == "delivered"
    assert Event.objects.filter(type="messageSend").count() == 1
    assert Event.objects.filter(type="deliveryReport").count() == 1
    assert_gapless(world.conversation)


def test_events_of_many_writers_are_numbered_without_gaps_and_nobody_deadlocks(world: Cast) -> None:
    target: dict[str, Any] = {
        "organisation": world.organisation,
        "actor": SYSTEM,
        "conversation_id": world.conversation.pk,
    }
    queues = [world.queue, world.other_queue]

    def work(number: int) -> None:
        for turn in range(4):
            actions.move_to_queue(**target, queue_id=queues[(number + turn) % 2].pk)
            actions.send_message(**target, body=f"{number} {turn}")
            actions.receive_message(channel=world.channel, address=world.contact.address, body="Again")

    results = at_once(*(lambda number=number: work(number) for number in range(4)))
    assert results == [None] * 4
    assert world.conversation.messages.count() == 1 + 4 * 4 * 2
    assert_gapless(world.conversation)
