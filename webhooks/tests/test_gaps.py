"""What a delivery waits for, as its page says it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event
from core.actors import SYSTEM
from core.clock import now
from webhooks.actions import disable_webhook, pause_webhook
from webhooks.gaps import Reason, followers, waits_of
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.outstanding import of
from webhooks.tests.conftest import finish, make_webhook
from webhooks.tests.pages import at


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def lane(cast: Cast, webhook: Webhook, count: int) -> list[Delivery]:
    """Deliveries of the cast's conversation in order, each blocking those behind it, as fan-out makes them."""
    for number in range(count):
        conversation_actions.receive_message(channel=cast.channel, address=cast.contact.address, body=str(number))
    events = Event.objects.filter(
        organisation=cast.organisation, conversation=cast.conversation, type="inboundMessage"
    ).order_by("-seq")[:count]
    made = []
    for event in reversed(events):
        delivery = Delivery.objects.create(
            organisation=cast.organisation,
            webhook=webhook,
            event=event,
            event_type=event.type,
            conversation_id=event.conversation_id,
            seq=event.seq,
            format=webhook.format,
        )
        of(delivery, now() - timedelta(seconds=1), blocks=True).save(force_insert=True)
        made.append(delivery)
    return made


def reasons(delivery: Delivery) -> list[Reason]:
    fresh = Delivery.objects.select_related("webhook__organisation").get(pk=delivery.pk)
    return [wait.reason for wait in waits_of(fresh)]


def test_a_later_delivery_waits_for_the_first_and_the_pages_link(
    acme: Cast, webhook: Webhook, signed_in: Client
) -> None:
    first, second, third = lane(acme, webhook, 3)
    assert [reasons(one) for one in (first, second, third)] == [[], [Reason.EARLIER], [Reason.EARLIER]]
    assert [followers(one) for one in (first, second, third)] == [2, 1, 0]
    page = signed_in.get(at(acme, "delivery", third.pk)).content.decode()
    assert f'<a href="{at(acme, "delivery", first.pk)}">inboundMessage #{first.pk}</a>' in page
    page = signed_in.get(at(acme, "delivery", first.pk)).content.decode()
    assert "2 later deliveries of the conversation wait for this one" in page


def test_what_is_held_or_finished_or_of_another_webhook_is_not_waited_for(acme: Cast, webhook: Webhook) -> None:
    first, second = lane(acme, webhook, 2)
    other = make_webhook(acme, name="other")
    head = Outstanding.objects.filter(pk=first.pk)
    head.update(webhook=other)
    assert reasons(second) == []
    head.update(webhook=webhook, next_attempt_at=None)
    assert reasons(second) == []
    head.delete()
    assert reasons(second) == []


def test_a_resend_waits_for_nobody(acme: Cast, webhook: Webhook) -> None:
    _first, second = lane(acme, webhook, 2)
    Delivery.objects.filter(pk=second.pk).update(kind="resend")
    Outstanding.objects.filter(pk=second.pk).update(lane=None, blocks=False)
    assert reasons(second) == []


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"breaker_until": timedelta(minutes=5)}, Reason.BREAKER, "fails: nothing is sent to it until"),
        ({"rate_limit": 30, "rate_seconds": 60}, Reason.RATE, "takes at most 30 requests a minute"),
        ({"rate_limit": 5}, Reason.RATE, "takes at most 5 requests a second"),
    ],
)
def test_the_webhook_is_named_and_linked(
    acme: Cast, webhook: Webhook, signed_in: Client, changes: dict[str, Any], expected: Reason, words: str
) -> None:
    (delivery,) = lane(acme, webhook, 1)
    values = {name: now() + value if isinstance(value, timedelta) else value for name, value in changes.items()}
    Webhook.objects.filter(pk=webhook.pk).update(**values)
    assert reasons(delivery) == [expected]
    page = signed_in.get(at(acme, "delivery", delivery.pk)).content.decode()
    assert words in page
    assert f'<a href="{at(acme, "webhook", webhook.pk)}">orders</a>' in page


@pytest.mark.parametrize(("verb", "words"), [(pause_webhook, "is paused"), (disable_webhook, "is disabled")])
def test_a_held_delivery_says_why(acme: Cast, webhook: Webhook, signed_in: Client, verb: Any, words: str) -> None:
    (delivery,) = lane(acme, webhook, 1)
    verb(webhook=webhook, actor=SYSTEM)
    assert reasons(delivery) == [Reason.STOPPED]
    assert words in signed_in.get(at(acme, "delivery", delivery.pk)).content.decode()


def test_a_retry_tells_its_time_and_a_suspension_comes_before_all(acme: Cast, webhook: Webhook) -> None:
    (delivery,) = lane(acme, webhook, 1)
    Outstanding.objects.filter(pk=delivery.pk).update(next_attempt_at=now() + timedelta(minutes=5), attempt_count=1)
    assert reasons(delivery) == [Reason.RETRY]
    Webhook.objects.filter(pk=webhook.pk).update(breaker_until=now() + timedelta(minutes=1))
    assert reasons(delivery) == [Reason.BREAKER, Reason.RETRY]
    acme.organisation.suspended_at = now()
    acme.organisation.save(update_fields=["suspended_at"])
    assert reasons(delivery) == [Reason.SUSPENDED]


def test_a_finished_delivery_waits_for_nothing(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    (delivery,) = lane(acme, webhook, 1)
    finish(Delivery.objects.filter(pk=delivery.pk), state="delivered")
    assert reasons(delivery) == []
    assert "What it waits for" not in signed_in.get(at(acme, "delivery", delivery.pk)).content.decode()
