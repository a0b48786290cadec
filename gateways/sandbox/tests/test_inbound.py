"""POST /sandbox/inbound."""

import json

import pytest

from conftest import make_cast
from conversations.actions import archive_channel, close_conversation, create_channel, update_channel
from conversations.models import Channel, Conversation, Message
from conversations.tests.refusals import everything, first_holding
from core.actors import SYSTEM
from core.errors import Invalid
from gateways.sandbox.actions import play_inbound
from organisations.tests.calls import call, with_scopes
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import running_endpoint
from webhooks.tests.engine import bodies, deliver

PATH = "/api/v1/sandbox/inbound"


def post(client, cast, headers=None, **changes):
    body = {"channelId": str(cast.channel.pk), "outboundChannelAddress": "+44 7700 900123", "body": "yes"}
    return client.post(PATH, {**body, **changes}, content_type="application/json", headers=headers or cast.auth)


def test_a_contact_writes(client, acme):
    answer = post(client, acme)
    assert answer.status_code == 201
    assert set(answer.json()) == {"conversationId", "communicationActionId"}
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
        {"channelId": None},
        {"channelId": "9" * 40},
        {"outboundChannelAddress": "12"},
        {"outboundChannelAddress": 447700900123},
        {"outboundChannelAddress": ""},
        {"body": ""},
        {"body": "   "},
        {"body": "x" * 10_001},
        {"body": 5},
        {"body": None},
        {"extra": "x"},
        {"channelId": 1, "outboundChannelAddress": 2, "body": 3},
    ],
)
def test_a_bad_call_is_refused_and_changes_nothing(client, acme, changes):
    before = everything()
    refused = post(client, acme, **changes)
    assert refused.status_code == 400
    assert list(refused.json()["errors"]) == list(changes)
    assert everything() == before


def test_what_is_needed_is_asked_for(client, acme):
    refused = call(client, acme, "POST", PATH, {})
    assert (refused.status_code, set(refused.json()["errors"])) == (
        400,
        {"channelId", "outboundChannelAddress", "body"},
    )


def test_a_text_of_the_longest_kind_arrives_whole(client, acme):
    body = "é" * 9_999 + "\n"
    assert Message.objects.get(pk=post(client, acme, body=body).json()["communicationActionId"]).body == body


def test_after_the_end_a_new_conversation_begins_or_the_old_one_is_reopened(client, acme):
    where = {"organisation": acme.organisation, "actor": SYSTEM}
    close_conversation(**where, conversation_id=acme.conversation.pk)
    fresh = post(client, acme, outboundChannelAddress=acme.contact.address).json()["conversationId"]
    assert fresh != str(acme.conversation.pk)
    close_conversation(**where, conversation_id=int(fresh))
    update_channel(channel=acme.channel, actor=SYSTEM, inbound_rule="reopen")
    again = post(client, acme, outboundChannelAddress=acme.contact.address).json()["conversationId"]
    assert again == fresh
    assert Conversation.objects.get(pk=again).state == "open"


def test_it_is_an_event_like_any_contacts_message(client, acme, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with running_endpoint() as endpoint:
        make_webhook(acme, callback_url=endpoint.url)
        found = post(client, acme).json()
        deliver()
        sent = [json.loads(body) for body in bodies(endpoint)]
    assert [body["type"] for body in sent] == ["inboundMessage"]
    assert {name: sent[0][name] for name in found} == found


def test_the_same_idempotency_key_writes_once(client, acme):
    headers = {**acme.auth, "Idempotency-Key": "hello"}
    first, second = (post(client, acme, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert Message.objects.count() == 2


def test_another_organisations_channel_is_as_unknown_as_an_absent_one(client, acme, globex):
    before = everything()
    foreign, absent = (post(client, acme, channelId=pk) for pk in (str(globex.channel.pk), "999999"))
    assert foreign.json() == absent.json()
    assert everything() == before


def test_only_sandbox_channels_in_use_of_the_own_organisation(client, acme, globex):
    other = create_channel(organisation=acme.organisation, actor=SYSTEM, kind="sandbox", label="Old")
    archive_channel(channel=other, actor=SYSTEM)
    foreign_kind = Channel.objects.create(organisation=acme.organisation, kind="smoke", label="Smoke signals")
    for channel in (other, foreign_kind, globex.channel):
        assert post(client, acme, channelId=str(channel.pk)).status_code == 400
    assert Message.objects.count() == 2


def test_the_scope_and_a_key_are_needed(client, acme):
    few = with_scopes(acme, "messages:write", "conversations:write")
    before = everything()
    refused = post(client, acme, headers=few)
    assert (refused.status_code, refused.json()["scope"]) == (403, "sandbox:write")
    assert post(client, acme, headers={"Authorization": "Bearer no"}).status_code == 401
    assert call(client, acme, "POST", PATH, {}, headers={}).status_code == 401
    assert call(client, acme, "GET", PATH).status_code == 405
    assert everything() == before


@pytest.mark.django_db(transaction=True)
def test_a_channel_that_is_just_taken_out_of_use_takes_no_message():
    cast = make_cast("acme")
    channel = create_channel(organisation=cast.organisation, actor=SYSTEM, kind="sandbox", label="Other")
    refusal = first_holding(
        lambda: archive_channel(channel=channel, actor=SYSTEM),
        lambda: play_inbound(
            organisation=cast.organisation, channel_id=channel.pk, address="353870000000", body="Hello?"
        ),
    )
    assert isinstance(refusal, Invalid)
    assert not Conversation.objects.filter(channel=channel).exists()
