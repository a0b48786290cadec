"""What an engine reads: everything that is due, each once, and nothing that has to wait for something else."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from conftest import Cast
from conversations.models import Event, Undispatched
from core.clock import held_at, now
from webhooks.engine import dispatch, due
from webhooks.engine.lane import CAP_START
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain, step

#: The id of the first of conversations that do not exist, far from those that do.
FIRST = 1_000_000_000

pytestmark = pytest.mark.django_db


def record_events(cast: Cast, count: int, conversations: int) -> None:
    """So many events in turn over so many conversations, dispatched."""
    sample = Event.objects.filter(organisation=cast.organisation, type="inboundMessage").earliest("id")
    made = Event.objects.bulk_create(
        Event(
            organisation=cast.organisation,
            conversation_id=FIRST + number % conversations,
            type="inboundMessage",
            seq=number,
            data=sample.data | {"conversationId": str(FIRST + number % conversations)},
            actor_kind="contact",
            created_at=now(),
        )
        for number in range(1, count + 1)
    )
    Undispatched.objects.bulk_create(Undispatched(event=one, organisation=cast.organisation) for one in made)
    while dispatch.dispatch().events:
        pass


def arrived(endpoint: Endpoint) -> list[int]:
    """Ids of the events that arrived, in order."""
    return [int(asked.headers["webhook-id"].split("_")[1]) for asked in endpoint.asked]


def in_order(ids: list[int]) -> bool:
    """Whether the events of each conversation came in the order of recording."""
    lanes: dict[int | None, list[int]] = {}
    conversation = dict(Event.objects.values_list("id", "conversation_id"))
    for pk in dict.fromkeys(ids):
        lanes.setdefault(conversation[pk], []).append(pk)
    return all(own == sorted(own) for own in lanes.values())


def test_more_than_fits_in_one_reading_arrives_once_and_in_order(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    record_events(acme, 600, conversations=7)
    deliver()
    ids = arrived(endpoint)
    assert len(ids) == len(set(ids)) == 600
    assert in_order(ids)
    assert not Delivery.objects.filter(webhook=webhook).exclude(state="delivered", attempt_count=1).exists()


def test_what_is_held_hides_nothing_that_is_due(acme: Cast) -> None:
    webhook = make_webhook(acme)
    record_events(acme, 2, conversations=2)
    held, _due = Outstanding.objects.filter(webhook=webhook).order_by("pk")
    Outstanding.objects.filter(pk=held.pk).update(next_attempt_at=None)
    assert [one.webhook_id for one in due.webhooks_with_due_work()] == [webhook.pk]


def test_what_is_due_before_the_head_of_its_lane_follows_it_at_once(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    record_events(acme, 2, conversations=1)
    first, second = Delivery.objects.order_by("seq")
    Outstanding.objects.filter(pk=second.pk).update(next_attempt_at=first.next_attempt_at - timedelta(minutes=1))
    deliver()
    assert arrived(endpoint) == [first.event_id, second.event_id]


def test_order_does_not_rest_on_the_times_at_which_deliveries_are_due(acme: Cast, endpoint: Endpoint) -> None:
    """Clocks jump, and what was held is due later than what came after it."""
    make_webhook(acme, callback_url=endpoint.url)
    record_events(acme, 300, conversations=5)
    chance = random.Random(7)
    for delivery in Delivery.objects.all():
        at = now() - timedelta(seconds=chance.randrange(1000))
        Outstanding.objects.filter(pk=delivery.pk).update(next_attempt_at=at)
    deliver()
    ids = arrived(endpoint)
    assert len(ids) == len(set(ids)) == 300
    assert in_order(ids)


def test_a_lane_that_waits_hides_no_other_however_long_it_is(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, ordering="strict")
    record_events(acme, 150, conversations=1)
    head = Delivery.objects.filter(webhook=webhook).earliest("id")
    Outstanding.objects.filter(pk=head.pk).update(next_attempt_at=now() + timedelta(minutes=5), attempt_count=1)
    sample = Event.objects.filter(conversation_id=FIRST).latest("id")
    Event.objects.create(
        organisation=acme.organisation,
        conversation_id=2_000,
        type="inboundMessage",
        seq=1,
        data=sample.data,
        actor_kind="contact",
        created_at=now(),
    )
    dispatch.dispatch()
    deliver()
    assert len(endpoint.asked) == 1
    deliver(now() + timedelta(minutes=6))
    ids = arrived(endpoint)
    assert len(ids) == 151
    assert in_order(ids)


def test_an_event_that_comes_behind_one_under_way_waits_for_it(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.delay = 0.2
    make_webhook(acme, callback_url=endpoint.url)
    record_events(acme, 1, conversations=1)
    with running_drain() as engine:
        engine.look()
        engine.sender.start()
        assert engine.sender.stream.in_flight == 1
        Event.objects.create(
            organisation=acme.organisation,
            conversation_id=FIRST,
            type="inboundMessage",
            seq=2,
            data=Event.objects.latest("id").data,
            actor_kind="contact",
            created_at=now(),
        )
        dispatch.dispatch()
        engine.look()
        engine.sender.start()
        assert engine.sender.stream.in_flight == 1
        assert len(next(iter(engine.serving.lanes.values())).waiting) == 1
        step(engine)
    assert in_order(arrived(endpoint))
    assert len(endpoint.asked) == 2


def test_what_is_held_in_memory_is_not_read_again(acme: Cast, webhook: Webhook) -> None:
    record_events(acme, 50, conversations=50)
    with held_at(now()), running_drain() as engine:
        engine.look()
        lane = engine.serving.lanes[webhook.pk]
        assert len(lane.held) == len(lane.waiting) == CAP_START
        lane.pace = 0.001
        engine.look()
        assert len(lane.held) == len(lane.waiting) == 50
        engine.look()
        assert not engine.intake.found
