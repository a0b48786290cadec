"""The sandbox's pages: start a conversation, play both sides of it, see what it recorded and who was told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from conftest import Cast
from conversations.actions import archive_channel, close_conversation, create_channel, receive_message
from conversations.channels import KINDS, ChannelKind
from conversations.models import Channel, Conversation, Event, Message
from core.actors import SYSTEM
from core.clock import held_at, now
from gateways.sandbox import carrier
from gateways.sandbox.models import SandboxReport
from gateways.sandbox.panel.forms import SAMPLES
from gateways.sandbox.panel.views import RECENT, SETTLING, SHOWN
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.engine import deliver

pytestmark = pytest.mark.once


def at(cast: Cast, name: str, *args: Any) -> str:
    """The address of a page of the sandbox."""
    return reverse(f"sandbox:{name}", args=[cast.organisation.slug, *args])


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.owner)
    return client


@pytest.fixture
def elsewhere(acme: Cast, monkeypatch: pytest.MonkeyPatch) -> Conversation:
    """A conversation of acme on a channel that is no sandbox."""
    monkeypatch.setitem(KINDS, "pigeon", ChannelKind("pigeon", "Pigeon"))
    channel = create_channel(organisation=acme.organisation, actor=SYSTEM, kind="pigeon", label="Loft")
    return receive_message(channel=channel, address="447700900777", body="Coo").conversation


def text(answer: Any) -> str:
    """The body of a page."""
    return answer.content.decode()


def start(client: Client, cast: Cast, **changes: Any) -> Any:
    values = {"outbound_channel_address": "447700900123", "customer_uid": "", "body": "Hello", **changes}
    return client.post(at(cast, "start"), values)


def counts() -> tuple[int, int, int]:
    """What a refusal must leave alone."""
    return Conversation.objects.count(), Message.objects.count(), Event.objects.count()


def due_now() -> None:
    """Let the carrier report everything at once."""
    SandboxReport.objects.update(due_at=now())
    while carrier.report_due():
        pass


# --- start ---------------------------------------------------------------------------------------------------


def test_a_conversation_is_started_with_its_first_message(acme: Cast, signed_in: Client) -> None:
    answer = start(signed_in, acme, outbound_channel_address="+44 7700 900 123", customer_uid="C-7")
    conversation = Conversation.objects.latest("pk")
    assert answer["Location"] == at(acme, "conversation", conversation.pk)
    assert (conversation.channel, conversation.contact.address) == (acme.channel, "447700900123")
    assert conversation.customer_uid == "C-7"
    message = conversation.messages.get()
    assert (message.body, message.direction, message.state) == ("Hello", "outbound", "sent")
    assert (message.actor_kind, message.actor_id) == ("user", str(acme.owner.pk))


def test_a_conversation_can_start_without_a_message(acme: Cast, signed_in: Client) -> None:
    start(signed_in, acme, body="")
    conversation = Conversation.objects.latest("pk")
    assert conversation.messages.count() == 0
    assert "Nothing was said yet" in text(signed_in.get(at(acme, "conversation", conversation.pk)))


def test_the_channel_is_asked_for_only_when_there_is_a_choice(
    acme: Cast, signed_in: Client, elsewhere: Conversation
) -> None:
    assert "channel_id" not in signed_in.get(at(acme, "index")).context["form"].fields
    second = create_channel(organisation=acme.organisation, actor=SYSTEM, kind="sandbox", label="Second")
    offered = signed_in.get(at(acme, "index")).context["form"].fields["channel_id"].choices
    assert [pk for pk, _label in offered] == [acme.channel.pk, second.pk]
    start(signed_in, acme, channel_id=second.pk)
    assert Conversation.objects.latest("pk").channel == second
    before = counts()
    for channel_id in ("", elsewhere.channel_id, "x", 10**30):
        answer = start(signed_in, acme, channel_id=channel_id)
        assert answer.status_code == 400
        assert list(answer.context["form"].errors) == ["channel_id"]
    assert counts() == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"outbound_channel_address": ""}, "outbound_channel_address"),
        ({"outbound_channel_address": "123"}, "outbound_channel_address"),
        ({"outbound_channel_address": "nobody"}, "outbound_channel_address"),
        ({"customer_uid": "x" * 256}, "customer_uid"),
        ({"customer_uid": "a\x00b"}, "customer_uid"),
        ({"body": "x" * 10_001}, "body"),
        ({"body": "a\x00b"}, "body"),
    ],
)
def test_bad_input_is_named_at_its_field_and_starts_nothing(
    acme: Cast, signed_in: Client, changes: dict[str, str], field: str
) -> None:
    before = counts()
    answer = start(signed_in, acme, **changes)
    assert answer.status_code == 400
    assert list(answer.context["form"].errors) == [field]
    assert counts() == before


def test_a_contact_who_is_talking_already_is_linked(acme: Cast, signed_in: Client) -> None:
    before = counts()
    answer = start(signed_in, acme, outbound_channel_address=acme.contact.address)
    assert answer.status_code == 400
    assert list(answer.context["form"].errors) == ["outbound_channel_address"]
    assert f'<a href="{at(acme, "conversation", acme.conversation.pk)}">Go to it</a>' in text(answer)
    assert counts() == before


def test_the_suggested_address_is_free_and_delivers(acme: Cast, signed_in: Client) -> None:
    suggested = []
    for _ in range(2):
        form = signed_in.get(at(acme, "index")).context["form"]
        suggested.append(form["outbound_channel_address"].value())
        start(signed_in, acme, outbound_channel_address=suggested[-1])
    assert suggested == SAMPLES[:2]
    assert {carrier.verdict(sample) for sample in SAMPLES} == {2}


def test_the_magic_addresses_do_what_the_table_says(acme: Cast, signed_in: Client) -> None:
    endings = signed_in.get(at(acme, "index")).context["endings"]
    assert ("0021", "447700900021") in [(ending, example) for ending, example, _outcome in endings]
    for _ending, example, outcome in endings:
        page = signed_in.get(f"{at(acme, 'index')}?address={example}")
        assert page.context["form"]["outbound_channel_address"].value() == example
        start(signed_in, acme, outbound_channel_address=example)
        due_now()
        assert Message.objects.latest("pk").status_code == outcome.code
    assert text(signed_in.get(at(acme, "conversation", Conversation.objects.latest("pk").pk))).count("Unavailable") == 1


# --- both sides ----------------------------------------------------------------------------------------------


def test_both_sides_speak_in_one_conversation(acme: Cast, signed_in: Client) -> None:
    page = at(acme, "conversation", acme.conversation.pk)
    assert signed_in.post(at(acme, "send", acme.conversation.pk), {"send-body": "Hi"})["Location"] == page
    assert signed_in.post(at(acme, "answer", acme.conversation.pk), {"answer-body": "Bye"})["Location"] == page
    due_now()
    said = [
        (message.direction, message.body, message.state, outcome.code if outcome else None)
        for message, outcome in signed_in.get(page).context["talk"]
    ]
    assert said == [
        ("inbound", "Hello acme", "received", None),
        ("outbound", "Hi", "delivered", 2),
        ("inbound", "Bye", "received", None),
    ]


@pytest.mark.parametrize("name", ["send", "answer"])
@pytest.mark.parametrize("body", ["", "  \n ", "x" * 10_001, "a\x00b"])
def test_a_refused_message_is_named_and_not_said(acme: Cast, signed_in: Client, name: str, body: str) -> None:
    before = counts()
    answer = signed_in.post(at(acme, name, acme.conversation.pk), {f"{name}-body": body})
    assert answer.status_code == 400
    assert list(answer.context[name].errors) == ["body"]
    other = "answer" if name == "send" else "send"
    assert not answer.context[other].is_bound
    assert counts() == before


def test_a_closed_conversation_takes_no_message_of_ours(acme: Cast, signed_in: Client) -> None:
    assert signed_in.post(at(acme, "close", acme.conversation.pk)).status_code == 302
    assert "Send as the organisation" not in text(signed_in.get(at(acme, "conversation", acme.conversation.pk)))
    before = counts()
    answer = signed_in.post(at(acme, "send", acme.conversation.pk), {"send-body": "Hi"})
    assert answer.status_code == 400
    assert answer.context["send"].errors == {"body": ["The conversation is not open."]}
    assert counts() == before


def test_an_answer_to_a_closed_conversation_leads_to_the_new_one(acme: Cast, signed_in: Client) -> None:
    signed_in.post(at(acme, "close", acme.conversation.pk))
    answer = signed_in.post(at(acme, "answer", acme.conversation.pk), {"answer-body": "Me again"}, follow=True)
    new = Conversation.objects.latest("pk")
    assert answer.redirect_chain == [(at(acme, "conversation", new.pk), 302)]
    assert "the message went to this one" in text(answer)
    refused = signed_in.post(at(acme, "reopen", acme.conversation.pk), follow=True)
    assert f'<a href="{at(acme, "conversation", new.pk)}">Go to it</a>' in text(refused)
    acme.conversation.refresh_from_db()
    assert acme.conversation.state == "closed"


def test_close_and_reopen(acme: Cast, signed_in: Client) -> None:
    page = at(acme, "conversation", acme.conversation.pk)
    for verb, state in (("close", "closed"), ("reopen", "open")):
        assert at(acme, verb, acme.conversation.pk) in text(signed_in.get(page))
        assert signed_in.post(at(acme, verb, acme.conversation.pk))["Location"] == page
        acme.conversation.refresh_from_db()
        assert acme.conversation.state == state
    again = signed_in.post(at(acme, "reopen", acme.conversation.pk), follow=True)
    assert "already open" in text(again)


def test_a_channel_out_of_use_hears_no_answer(acme: Cast, signed_in: Client) -> None:
    where = {"organisation": acme.organisation, "actor": SYSTEM}
    close_conversation(**where, conversation_id=acme.conversation.pk)
    archive_channel(channel=acme.channel, actor=SYSTEM)
    before = counts()
    answer = signed_in.post(at(acme, "answer", acme.conversation.pk), {"answer-body": "Hi"})
    assert answer.status_code == 400
    assert "There is no such sandbox channel." in text(answer)
    assert counts() == before


# --- what was recorded, and who was told -----------------------------------------------------------------------


def test_events_link_to_their_deliveries(acme: Cast, globex: Cast, signed_in: Client) -> None:
    theirs = make_delivery(globex, make_webhook(globex), state="failed")
    delivery = make_delivery(acme, make_webhook(acme), state="delivered", last_status_code=204)
    page = signed_in.get(at(acme, "conversation", acme.conversation.pk))
    shown = [(event.type, [one.pk for one in event.sent]) for event, _entry, _history in page.context["events"]]
    assert shown == [("inboundMessage", [delivery.pk]), ("conversationStarted", [])]
    assert reverse("integrations:delivery", args=["acme", delivery.pk]) in text(page)
    assert f"{reverse('integrations:log', args=['acme'])}?conversation={acme.conversation.pk}" in text(page)
    assert f"#{theirs.pk}<" not in text(page)


def test_deliveries_show_only_to_those_who_may_read_the_log(acme: Cast, client: Client) -> None:
    delivery = make_delivery(acme, make_webhook(acme))
    client.force_login(acme.agent)
    page = client.get(at(acme, "conversation", acme.conversation.pk))
    assert "inboundMessage" in text(page)
    assert reverse("integrations:delivery", args=["acme", delivery.pk]) not in text(page)
    assert reverse("integrations:log", args=["acme"]) not in text(page)


def test_the_page_looks_for_news_only_while_some_are_due(acme: Cast, signed_in: Client) -> None:
    start(signed_in, acme)
    page = at(acme, "conversation", Conversation.objects.latest("pk").pk)
    assert "hx-get" in text(signed_in.get(page))
    with held_at(now() + 2 * SETTLING):
        assert "hx-get" not in text(signed_in.get(page))
    due_now()
    assert "hx-get" in text(signed_in.get(page))
    deliver()
    assert "hx-get" not in text(signed_in.get(page))


def test_a_long_conversation_shows_its_newest_part(acme: Cast, signed_in: Client) -> None:
    for number in range(SHOWN):
        receive_message(channel=acme.channel, address=acme.contact.address, body=f"<b>{number}</b>")
    page = signed_in.get(at(acme, "conversation", acme.conversation.pk))
    assert [message.body for message, _outcome in page.context["talk"]] == [f"<b>{one}</b>" for one in range(SHOWN)]
    assert f"These are the newest {SHOWN}." in text(page)
    assert "&lt;b&gt;0&lt;/b&gt;" in text(page)


# --- the list --------------------------------------------------------------------------------------------------


def test_the_most_recently_active_come_first_in_few_queries(
    acme: Cast, globex: Cast, signed_in: Client, elsewhere: Conversation, django_assert_max_num_queries: Any
) -> None:
    for number in range(RECENT + 5):
        receive_message(channel=acme.channel, address=f"4477009002{number:02}", body="Hello")
    with held_at(now() + timedelta(minutes=1)):
        receive_message(channel=acme.channel, address=acme.contact.address, body="Still here")
    with django_assert_max_num_queries(12):
        page = signed_in.get(at(acme, "index"))
    shown = page.context["conversations"]
    assert shown[0] == acme.conversation
    assert len(shown) == RECENT
    assert [one.pk for one in shown[1:]] == sorted((one.pk for one in shown[1:]), reverse=True)
    assert {one.organisation_id for one in shown} == {acme.organisation.pk}
    assert elsewhere not in shown


def test_a_conversation_costs_the_same_queries_however_long_it_is(
    acme: Cast, signed_in: Client, django_assert_max_num_queries: Any
) -> None:
    webhook = make_webhook(acme)
    for _ in range(10):
        receive_message(channel=acme.channel, address=acme.contact.address, body="More")
        make_delivery(acme, webhook)
    with django_assert_max_num_queries(14):
        assert signed_in.get(at(acme, "conversation", acme.conversation.pk)).status_code == 200


def test_without_channel_webhook_or_conversation_it_says_what_to_do(acme: Cast, signed_in: Client) -> None:
    page = signed_in.get(at(acme, "index"))
    assert reverse("integrations:webhook_add", args=["acme"]) in text(page)
    Conversation.objects.filter(organisation=acme.organisation).delete()
    assert "Start one above" in text(signed_in.get(at(acme, "index")))
    Channel.objects.filter(organisation=acme.organisation).update(archived_at=now())
    make_webhook(acme)
    page = text(signed_in.get(at(acme, "index")))
    assert "No sandbox channel" in page
    assert "/api/v1/channels" in page
    assert reverse("keys:list", args=["acme"]) in page
    assert reverse("integrations:webhook_add", args=["acme"]) not in page
    before = counts()
    assert start(signed_in, acme).status_code == 400
    assert counts() == before


# --- who may ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["send", "answer", "close", "reopen"])
def test_viewers_change_nothing(acme: Cast, client: Client, name: str) -> None:
    before = counts()
    client.force_login(acme.viewer)
    assert client.post(at(acme, name, acme.conversation.pk), {f"{name}-body": "Hi"}).status_code == 403
    assert start(client, acme).status_code == 403
    page = text(client.get(at(acme, "conversation", acme.conversation.pk)))
    assert at(acme, name, acme.conversation.pk) not in page
    assert at(acme, "start") not in text(client.get(at(acme, "index")))
    assert counts() == before


def test_other_organisations_and_other_channels_conversations_do_not_exist(
    acme: Cast, globex: Cast, signed_in: Client, elsewhere: Conversation
) -> None:
    before = counts()
    for pk in (globex.conversation.pk, elsewhere.pk, 999_999, 10**30):
        assert signed_in.get(at(acme, "conversation", pk)).status_code == 404
        for name in ("send", "answer", "close", "reopen"):
            assert signed_in.post(at(acme, name, pk), {f"{name}-body": "Hi"}).status_code == 404
    assert counts() == before
