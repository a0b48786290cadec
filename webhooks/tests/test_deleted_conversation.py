"""What happened in a conversation is delivered, true and whole, also when the conversation has been deleted since."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import standardwebhooks
from django.db import transaction

from conftest import Cast
from conversations.actions import receive_message
from conversations.models import Contact, Conversation, Event, Message
from core.clock import now
from organisations.models import WebioToken
from webhooks.models import Webhook
from webhooks.payloads import message_id
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Asked, Endpoint
from webhooks.tests.engine import deliver

pytestmark = pytest.mark.django_db

ADDRESS = "447717472695"
TEXTS = ["¡Hola!", "It's me: \U0001f600"]


@pytest.fixture
def webhook(acme: Cast, endpoint: Endpoint) -> Webhook:
    """A webhook of an organisation with a token. Two messages wait for it."""
    WebioToken.objects.create(organisation=acme.organisation, token="the.jwt")
    made = make_webhook(acme, callback_url=endpoint.url, events=["inboundMessage"], headers={"X-Mine": "yes"})
    for text in TEXTS:
        receive_message(channel=acme.channel, address=ADDRESS, body=text)
    return made


def expected(acme: Cast, webhook: Webhook) -> list[tuple[str, dict[str, str]]]:
    """`webhook-id` and body of what waits, told from the rows while they are there."""
    zone = acme.organisation.time_zone
    assert zone == "UTC"
    events = Event.objects.filter(type="inboundMessage", undispatched__isnull=False).order_by("seq")
    messages = Message.objects.filter(conversation=acme.conversation, body__in=TEXTS).order_by("id")
    return [
        (
            message_id(event.pk, webhook.pk),
            {
                "type": "inboundMessage",
                "conversationId": str(acme.conversation.pk),
                "communicationActionId": str(message.pk),
                "outboundChannelAddress": ADDRESS,
                "inboundChannelAddress": acme.channel.label,
                "customerUID": acme.conversation.customer_uid,
                "body": text,
                "dateCreated": event.created_at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            },
        )
        for event, message, text in zip(list(events)[-2:], messages, TEXTS, strict=True)
    ]


def delete(acme: Cast) -> None:
    """The conversation, its messages and its contact, and the channel gets another name."""
    with transaction.atomic():
        acme.conversation.delete()
        acme.contact.delete()
        type(acme.channel).objects.filter(pk=acme.channel.pk).update(label="Renamed")
    assert not Conversation.objects.exists()
    assert not Message.objects.exists()
    assert not Contact.objects.exists()


def told(webhook: Webhook, asked: list[Asked]) -> list[tuple[str, dict[str, str]]]:
    """`webhook-id` and body of requests whose headers are right."""
    for one in asked:
        standardwebhooks.Webhook(webhook.secret).verify(one.body, one.headers)
        assert one.headers["x-webio-token"] == "the.jwt"
        assert one.headers["x-mine"] == "yes"
        assert one.headers["content-type"] == "application/json"
    return [(one.headers["webhook-id"], json.loads(one.body)) for one in asked]


def test_events_that_nobody_had_taken_yet(acme: Cast, webhook: Webhook, endpoint: Endpoint) -> None:
    right = expected(acme, webhook)
    delete(acme)
    deliver()
    assert told(webhook, endpoint.asked) == right


def test_a_retry_after_the_deletion_sends_the_same_bytes(acme: Cast, webhook: Webhook, endpoint: Endpoint) -> None:
    right = expected(acme, webhook)
    endpoint.status = 500
    deliver()
    failed = {one.headers["webhook-id"]: one.body for one in endpoint.asked}
    assert len(failed) >= 1
    delete(acme)
    endpoint.status = 200
    endpoint.asked.clear()
    deliver(at=now() + timedelta(hours=1))
    assert sorted(told(webhook, endpoint.asked), key=str) == sorted(right, key=str)
    again = {one.headers["webhook-id"]: one.body for one in endpoint.asked}
    assert {key: again[key] for key in failed} == failed
