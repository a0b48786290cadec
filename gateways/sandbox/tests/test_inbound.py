"""POST /sandbox/inbound."""

import pytest

from conversations.actions import archive_channel, create_channel
from conversations.models import Channel, Message
from core.actors import SYSTEM
from organisations.actions import create_api_key

PATH = "/api/v1/sandbox/inbound"


def post(client, cast, headers=None, **changes):
    body = {"channelId": str(cast.channel.pk), "outboundChannelAddress": "+44 7700 900123", "body": "yes"}
    return client.post(PATH, {**body, **changes}, content_type="application/json", headers=headers or cast.auth)


def test_a_contact_writes(client, acme):
    answer = post(client, acme)
    assert answer.status_code == 201
    message = Message.objects.get(pk=answer.json()["communicationActionId"])
    assert answer.json()["conversationId"] == str(message.conversation_id)
    assert (message.direction, message.state, message.body) == ("inbound", "received", "yes")
    assert message.conversation.contact.address == "447700900123"
    assert message.actor_kind == "contact"


def test_the_open_conversation_goes_on(client, acme):
    answer = post(client, acme, outboundChannelAddress=acme.contact.address)
    assert answer.json()["conversationId"] == str(acme.conversation.pk)


@pytest.mark.parametrize(
    "changes",
    [
        {"channelId": "999999"},
        {"channelId": 1},
        {"outboundChannelAddress": "12"},
        {"body": ""},
        {"body": "x" * 10_001},
        {"body": 5},
        {"extra": "x"},
    ],
)
def test_a_bad_call_is_refused_and_changes_nothing(client, acme, changes):
    refused = post(client, acme, **changes)
    assert refused.status_code == 400
    assert list(refused.json()["errors"]) == list(changes)
    assert Message.objects.count() == 1


def test_only_sandbox_channels_in_use_of_the_own_organisation(client, acme, globex):
    other = create_channel(organisation=acme.organisation, actor=SYSTEM, kind="sandbox", label="Old")
    archive_channel(channel=other, actor=SYSTEM)
    foreign_kind = Channel.objects.create(organisation=acme.organisation, kind="smoke", label="Smoke signals")
    for channel in (other, foreign_kind, globex.channel):
        assert post(client, acme, channelId=str(channel.pk)).status_code == 400
    assert Message.objects.count() == 2


def test_the_scope_is_needed(client, acme):
    key = create_api_key(organisation=acme.organisation, actor=SYSTEM, name="some", scopes=["messages:write"])[1]
    assert post(client, acme, headers={"Authorization": f"Bearer {key}"}).status_code == 403
    assert post(client, acme, headers={"Authorization": "Bearer no"}).status_code == 401
    assert Message.objects.count() == 1
