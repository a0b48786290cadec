"""GET /conversations/{id}/transcript and GET /transcripts."""

import json

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations import actions
from conversations.transcripts import source
from core.actors import SYSTEM
from organisations.actions import create_api_key

ONE = "/api/v1/conversations/{}/transcript"


def read(answer):
    return b"".join(answer.streaming_content).decode()


def key(cast, *scopes):
    made = create_api_key(organisation=cast.organisation, actor=SYSTEM, name="some", scopes=scopes)[1]
    return {"Authorization": f"Bearer {made}"}


@pytest.mark.parametrize(
    ("code", "media_type"),
    [
        ("json", "application/json"),
        ("csv", "text/csv; charset=utf-8"),
        ("txt", "text/plain; charset=utf-8"),
        ("html", "text/html; charset=utf-8"),
        ("pdf", "application/pdf"),
    ],
)
def test_each_format_streams_with_its_type(client, acme, code, media_type):
    answer = client.get(ONE.format(acme.conversation.pk), {"format": code}, headers=acme.auth)
    assert answer.status_code == 200
    assert answer.streaming
    assert answer["Content-Type"] == media_type
    body = b"".join(answer.streaming_content)
    assert body.startswith(b"%PDF") if code == "pdf" else b"Hello acme" in body
    if code == "html":
        assert answer["Content-Security-Policy"].startswith("default-src 'none'")


def test_json_is_the_default(client, acme):
    told = json.loads(read(client.get(ONE.format(acme.conversation.pk), headers=acme.auth)))
    assert told["messages"][0]["communicationActionId"] == str(acme.message.pk)


def test_notes_need_their_scope_and_the_question(client, acme):
    actions.add_note(
        organisation=acme.organisation, actor=SYSTEM, conversation_id=acme.conversation.pk, body="A secret remark"
    )
    path = ONE.format(acme.conversation.pk)
    assert "A secret" not in read(client.get(path, headers=acme.auth))
    assert "A secret" in read(client.get(path, {"notes": "true"}, headers=acme.auth))
    without = key(acme, "transcripts:read")
    for address in (path, "/api/v1/transcripts"):
        refused = client.get(address, {"notes": "true"}, headers=without)
        assert refused.status_code == 403
        assert refused.json()["code"] == "missing_scope"
    assert "A secret" not in read(client.get("/api/v1/transcripts", headers=without))


def test_another_organisations_transcript_is_not_there(client, acme, globex):
    assert client.get(ONE.format(globex.conversation.pk), headers=acme.auth).status_code == 404
    lines = read(client.get("/api/v1/transcripts", headers=acme.auth)).splitlines()
    assert [json.loads(line)["conversationId"] for line in lines] == [str(acme.conversation.pk)]


def test_transcripts_need_their_scope(client, acme):
    weak = key(acme, "conversations:read")
    assert client.get(ONE.format(acme.conversation.pk), headers=weak).status_code == 403
    assert client.get("/api/v1/transcripts", headers=weak).status_code == 403
    assert client.get("/api/v1/transcripts").status_code == 401


@pytest.mark.parametrize(
    "query",
    [
        {"format": "xml"},
        {"notes": "yes"},
        {"from": "yesterday"},
        {"state": "asleep"},
        {"queueId": "x"},
        {"colour": "1"},
    ],
)
def test_a_bad_parameter_is_named(client, acme, query):
    refused = client.get("/api/v1/transcripts", query, headers=acme.auth)
    assert refused.status_code == 400
    assert list(refused.json()["errors"]) == list(query)


def test_a_period_in_csv(client, acme):
    query = {"format": "csv", "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00+01:00"}
    answer = client.get("/api/v1/transcripts", query, headers=acme.auth)
    assert answer["Content-Type"].startswith("text/csv")
    assert "Hello acme" in read(answer)
    query["to"] = "2020-01-02T00:00:00Z"
    assert len(read(client.get("/api/v1/transcripts", query, headers=acme.auth)).splitlines()) == 1


def test_nothing_of_another_organisation_is_found_by_any_filter(client, acme, globex):
    where = {"organisation": globex.organisation, "actor": SYSTEM, "conversation_id": globex.conversation.pk}
    actions.move_to_queue(**where, queue_id=globex.queue.pk)
    actions.set_status(**where, status_id=globex.status.pk)
    for query in (
        {"channelId": globex.channel.pk},
        {"queueId": globex.queue.pk},
        {"statusId": globex.status.pk},
        {"channelId": "999999"},
    ):
        assert read(client.get("/api/v1/transcripts", query, headers=acme.auth)) == ""


def test_many_short_conversations_take_few_queries_and_lose_nothing(client, acme, settings, monkeypatch):
    settings.API_RATE_LIMIT = "0"
    monkeypatch.setattr(source, "SHORT", 3)
    for number in range(30):
        for turn in range(1 + number % 4):
            actions.receive_message(channel=acme.channel, address=f"3538700000{number:02}", body=f"{number} {turn}")
    with CaptureQueriesContext(connection) as queries:
        lines = read(client.get("/api/v1/transcripts", headers=acme.auth)).splitlines()
    # The 7 with four messages are read one by one.
    assert len(queries) <= 8 + 7 * 2
    told = [[message["body"] for message in json.loads(line)["messages"]] for line in lines]
    assert told == [["Hello acme"], *([f"{number} {turn}" for turn in range(1 + number % 4)] for number in range(30))]


def test_many_transcripts_tell_what_each_alone_tells(client, acme):
    make = {"organisation": acme.organisation, "actor": SYSTEM}
    for number in range(3):
        one = actions.receive_message(channel=acme.channel, address=f"35387000000{number}", body="x").conversation_id
        actions.send_message(**make, conversation_id=one, body="Reply")
        actions.set_status(**make, conversation_id=one, status_id=acme.status.pk)
        actions.add_note(**make, conversation_id=one, body=f"Note {number}")
        actions.close_conversation(**make, conversation_id=one)
    for query in ({}, {"notes": "true"}):
        many = [
            json.loads(line) for line in read(client.get("/api/v1/transcripts", query, headers=acme.auth)).splitlines()
        ]
        alone = [
            json.loads(read(client.get(ONE.format(row["conversationId"]), query, headers=acme.auth))) for row in many
        ]
        assert len(many) == 4
        assert many == alone
