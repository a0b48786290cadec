"""Conversations through the API: start, list, read, messages, and what is done to one."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.tests.refusals import everything
from core.actors import SYSTEM
from organisations.actions import create_api_key

URL = "/api/v1/conversations"


def post(client: Client, cast: Cast, path: str, body: dict[str, Any]) -> Any:
    """The answer to a POST of `body` with the cast's key."""
    return client.post(path, body, content_type="application/json", headers=cast.auth)


def one(cast: Cast, action: str = "") -> str:
    """The path of the cast's conversation, or of something done to it."""
    return f"{URL}/{cast.conversation.pk}{action}"


def test_a_start_with_every_option_answers_all_of_them(client: Client, acme: Cast) -> None:
    answer = post(
        client,
        acme,
        URL,
        {
            "channelId": str(acme.channel.pk),
            "outboundChannelAddress": "+353 87 123 4567",
            "customerUID": "BW-1",
            "body": "Your bill is ready.",
            "queueId": str(acme.queue.pk),
            "statusId": str(acme.status.pk),
            "fields": {"amount": "1.50"},
        },
    )
    assert answer.status_code == 201
    found = answer.json()
    assert found["outboundChannelAddress"] == "353871234567"
    assert (found["customerUID"], found["fields"]) == ("BW-1", {"amount": "1.50"})
    assert (found["queueId"], found["statusId"]) == (str(acme.queue.pk), str(acme.status.pk))
    messages = client.get(f"{URL}/{found['conversationId']}/messages", headers=acme.auth).json()["results"]
    assert [message["communicationActionId"] for message in messages] == [found["communicationActionId"]]


def test_a_second_start_names_the_open_conversation(client: Client, acme: Cast) -> None:
    before = everything()
    body = {"channelId": str(acme.channel.pk), "outboundChannelAddress": acme.contact.address}
    answer = post(client, acme, URL, body)
    assert answer.status_code == 409
    assert answer.json()["code"] == "conversation_open"
    assert answer.json()["conversationId"] == str(acme.conversation.pk)
    assert everything() == before


def test_a_start_in_an_inactive_queue_is_refused(client: Client, acme: Cast) -> None:
    before = everything()
    body = {
        "channelId": str(acme.channel.pk),
        "outboundChannelAddress": "353871234567",
        "queueId": str(acme.inactive_queue.pk),
    }
    answer = post(client, acme, URL, body)
    assert answer.status_code == 400
    assert "queueId" in answer.json()["errors"]
    assert everything() == before


@pytest.mark.parametrize(
    ("matching", "other"),
    [
        ("state=open", "state=closed"),
        ("address=%2B447717472695", "address=353870000000"),
        ("updatedSince=2000-01-01T00:00:00Z", "updatedSince=2999-01-01T00:00:00Z"),
        ("customerUID=", "customerUID=nobody"),
    ],
)
def test_each_filter_of_the_list_keeps_what_matches(client: Client, acme: Cast, matching: str, other: str) -> None:
    found = client.get(f"{URL}?{matching}", headers=acme.auth).json()["results"]
    assert [row["conversationId"] for row in found] == [str(acme.conversation.pk)]
    assert client.get(f"{URL}?{other}", headers=acme.auth).json()["results"] == []


def test_the_list_filters_by_queue_and_status(client: Client, acme: Cast) -> None:
    for name, action, pk in (("queueId", "/queue", acme.queue.pk), ("statusId", "/status", acme.status.pk)):
        assert client.get(f"{URL}?{name}={pk}", headers=acme.auth).json()["results"] == []
        assert post(client, acme, one(acme, action), {name: str(pk)}).status_code == 200
        assert len(client.get(f"{URL}?{name}={pk}", headers=acme.auth).json()["results"]) == 1


def test_the_detail_is_what_the_list_shows(client: Client, acme: Cast) -> None:
    detail = client.get(one(acme), headers=acme.auth)
    assert detail.status_code == 200
    assert [detail.json()] == client.get(URL, headers=acme.auth).json()["results"]


def test_a_message_is_sent_and_listed_oldest_first(client: Client, acme: Cast) -> None:
    sent = post(client, acme, one(acme, "/messages"), {"body": "Thank you."})
    assert sent.status_code == 201
    assert (sent.json()["direction"], sent.json()["sentBy"]) == ("outbound", "api")
    listed = client.get(one(acme, "/messages"), headers=acme.auth).json()["results"]
    assert [row["body"] for row in listed] == ["Hello acme", "Thank you."]


def test_an_inactive_queue_is_400_and_changes_nothing(client: Client, acme: Cast) -> None:
    before = everything()
    answer = post(client, acme, one(acme, "/queue"), {"queueId": str(acme.inactive_queue.pk)})
    assert answer.status_code == 400
    assert "queueId" in answer.json()["errors"]
    assert everything() == before


def test_it_is_assigned_and_unassigned(client: Client, acme: Cast) -> None:
    assigned = post(client, acme, one(acme, "/assignment"), {"userId": str(acme.agent.pk)})
    assert assigned.json()["assignedToId"] == str(acme.agent.pk)
    assert post(client, acme, one(acme, "/assignment"), {"userId": None}).json()["assignedToId"] is None


def test_closed_it_takes_no_message_until_it_is_reopened(client: Client, acme: Cast) -> None:
    assert post(client, acme, one(acme, "/close"), {}).json()["state"] == "closed"
    before = everything()
    refused = post(client, acme, one(acme, "/messages"), {"body": "Late"})
    assert (refused.status_code, refused.json()["code"]) == (409, "conversation_closed")
    assert everything() == before
    assert post(client, acme, one(acme, "/reopen"), {}).json()["state"] == "open"
    assert post(client, acme, one(acme, "/messages"), {"body": "Now"}).status_code == 201


@pytest.mark.parametrize("action", ["/messages", "/status", "/queue", "/assignment", "/close", "/reopen"])
def test_without_its_scope_a_call_is_403_and_changes_nothing(client: Client, acme: Cast, action: str) -> None:
    _row, key = create_api_key(organisation=acme.organisation, actor=SYSTEM, name="few", scopes=["payments:read"])
    before = everything()
    headers = {"Authorization": f"Bearer {key}"}
    answer = client.post(one(acme, action), {}, content_type="application/json", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert everything() == before


def test_pages_neither_skip_nor_repeat_under_inserts_in_both_directions(client: Client, acme: Cast) -> None:
    def start(number: int) -> str:
        body = {"channelId": str(acme.channel.pk), "outboundChannelAddress": f"35387000000{number}"}
        found: str = post(client, acme, URL, body).json()["conversationId"]
        return found

    def ids(page: Any) -> list[str]:
        return [row["conversationId"] for row in page["results"]]

    old = [str(acme.conversation.pk), *(start(number) for number in range(3))]
    first = client.get(f"{URL}?limit=2", headers=acme.auth).json()
    new = start(4)
    second = client.get(first["next"], headers=acme.auth).json()
    assert ids(first) + ids(second) == old[::-1]
    back = client.get(second["previous"], headers=acme.auth).json()
    assert ids(back) == ids(first)
    assert ids(client.get(back["previous"], headers=acme.auth).json()) == [new]


def test_the_list_takes_a_fixed_number_of_queries(
    client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "0"
    for number in range(5):
        body = {"channelId": str(acme.channel.pk), "outboundChannelAddress": f"35387000000{number}"}
        assert post(client, acme, URL, body).status_code == 201
    with django_assert_max_num_queries(4):
        assert len(client.get(URL, headers=acme.auth).json()["results"]) == 6
    with django_assert_max_num_queries(4):
        client.get(one(acme, "/messages"), headers=acme.auth)
