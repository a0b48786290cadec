"""GET /conversations/{id}/transcript and GET /transcripts."""

import json

import pytest

from conversations import actions
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
