"""Channels, queues, statuses and contacts through the API, and reading conversations without the scope."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations import actions
from conversations.tests.refusals import everything
from core.actors import SYSTEM
from organisations.models import AuditEntry
from organisations.tests.calls import call, pages, with_scopes

PLURALS = ("channels", "queues", "statuses", "contacts")
ATTRIBUTES = {"channels": "channel", "queues": "queue", "statuses": "status", "contacts": "contact"}
#: A body that makes a new one, what it answers beside the id, and a change with what it answers.
GOOD: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "channels": (
        {"type": "sandbox", "label": "SMS"},
        {"type": "sandbox", "label": "SMS", "address": "", "inboundRule": "new", "validityHours": 24},
        {"label": "Texts", "address": "353871234567", "inboundRule": "reopen", "validityHours": 8760},
    ),
    "queues": ({"name": "Sales"}, {"name": "Sales", "active": True}, {"name": "Sold", "active": False}),
    "statuses": ({"name": "Paid"}, {"name": "Paid"}, {"name": "Settled"}),
    "contacts": (
        {"address": "+353 87 123-4567"},
        {"address": "353871234567", "customerUID": "", "name": ""},
        {"customerUID": "BW-1", "name": "Ada"},
    ),
}


def own(cast: Cast, plural: str) -> str:
    """The path of the cast's one of a kind."""
    return f"{plural}/{getattr(cast, ATTRIBUTES[plural]).pk}"


def ids(answer: Any) -> list[str]:
    """The ids of a list, in order."""
    return [row["id"] for row in answer.json()["results"]]


@pytest.mark.parametrize("plural", PLURALS)
def test_one_is_added_read_listed_and_changed(client: Client, acme: Cast, plural: str) -> None:
    body, shape, change = GOOD[plural]
    made = call(client, acme, "POST", plural, body)
    assert made.status_code == 201
    pk = made.json()["id"]
    assert made.json() == {"id": pk, **shape}
    assert call(client, acme, "GET", f"{plural}/{pk}").json() == made.json()
    listed = call(client, acme, "GET", plural).json()
    assert set(listed) == {"next", "previous", "results"}
    assert listed["results"][-1] == made.json()
    changed = call(client, acme, "PATCH", f"{plural}/{pk}", change)
    assert changed.status_code == 200
    assert changed.json() == {**made.json(), **change}
    assert call(client, acme, "GET", f"{plural}/{pk}").json() == changed.json()


@pytest.mark.parametrize("plural", PLURALS)
def test_each_key_is_changed_alone(client: Client, acme: Cast, plural: str) -> None:
    before = call(client, acme, "GET", own(acme, plural)).json()
    for name, value in GOOD[plural][2].items():
        before[name] = value
        assert call(client, acme, "PATCH", own(acme, plural), {name: value}).json() == before


@pytest.mark.parametrize("plural", PLURALS)
def test_an_empty_change_changes_nothing(client: Client, acme: Cast, plural: str) -> None:
    before = everything()
    assert call(client, acme, "PATCH", own(acme, plural), {}).status_code == 200
    assert everything() == before


def test_a_change_is_audited_with_the_key(client: Client, acme: Cast) -> None:
    call(client, acme, "PATCH", own(acme, "queues"), {"name": "Renamed"})
    entry = AuditEntry.objects.get(action="queue.update")
    assert (entry.actor_kind, entry.actor_id) == ("api", str(acme.api_key.pk))


def test_a_new_queue_may_be_inactive(client: Client, acme: Cast) -> None:
    assert call(client, acme, "POST", "queues", {"name": "Night", "active": False}).json()["active"] is False


@pytest.mark.parametrize("plural", ["queues", "statuses"])
def test_one_taken_out_of_use_is_gone_and_its_name_is_free(client: Client, acme: Cast, plural: str) -> None:
    path = own(acme, plural)
    name = call(client, acme, "GET", path).json()["name"]
    answer = call(client, acme, "DELETE", path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert path.split("/")[1] not in ids(call(client, acme, "GET", plural))
    for method in ("GET", "PATCH", "DELETE"):
        assert call(client, acme, method, path, {"name": "x"} if method == "PATCH" else None).status_code == 404
    assert call(client, acme, "POST", plural, {"name": name}).status_code == 201


def test_a_channel_is_taken_out_of_use_when_nothing_is_open_on_it(client: Client, acme: Cast) -> None:
    before = everything()
    refused = call(client, acme, "DELETE", own(acme, "channels"))
    assert (refused.status_code, refused.json()["code"]) == (409, "channel_in_use")
    assert everything() == before
    assert call(client, acme, "POST", f"conversations/{acme.conversation.pk}/close", {}).status_code == 200
    assert call(client, acme, "DELETE", own(acme, "channels")).status_code == 204
    assert ids(call(client, acme, "GET", "channels")) == []


def test_a_queue_with_open_conversations_stays(client: Client, acme: Cast) -> None:
    call(client, acme, "POST", f"conversations/{acme.conversation.pk}/queue", {"queueId": str(acme.queue.pk)})
    before = everything()
    refused = call(client, acme, "DELETE", own(acme, "queues"))
    assert (refused.status_code, refused.json()["code"]) == (409, "queue_in_use")
    assert everything() == before


@pytest.mark.parametrize("plural", ["channels", "queues", "statuses"])
def test_what_is_out_of_use_is_taken_by_no_call(client: Client, acme: Cast, plural: str) -> None:
    made = call(client, acme, "POST", plural, GOOD[plural][0]).json()["id"]
    assert call(client, acme, "DELETE", f"{plural}/{made}").status_code == 204
    field = f"{ATTRIBUTES[plural]}Id"
    start = {"channelId": str(acme.channel.pk), "outboundChannelAddress": "353870000000", field: made}
    tries = [("conversations", start)]
    if plural != "channels":
        tries.append((f"conversations/{acme.conversation.pk}/{ATTRIBUTES[plural]}", {field: made}))
    before = everything()
    for path, body in tries:
        answer = call(client, acme, "POST", path, body)
        assert answer.status_code == 400, path
        assert list(answer.json()["errors"]) == [field]
    assert everything() == before


def test_contacts_are_not_deleted(client: Client, acme: Cast) -> None:
    answer = call(client, acme, "DELETE", own(acme, "contacts"))
    assert answer.status_code == 405
    assert "DELETE" not in answer["Allow"]


@pytest.mark.parametrize(
    ("matching", "other"),
    [
        ("address=%2B44 7717 472695", "address=353870000000"),
        ("customerUID=BW-1", "customerUID=BW"),
        ("customerUID=BW-1&address=447717472695", "customerUID=BW-1&address=353870000000"),
    ],
)
def test_each_filter_of_contacts_keeps_what_matches(client: Client, acme: Cast, matching: str, other: str) -> None:
    call(client, acme, "PATCH", own(acme, "contacts"), {"customerUID": "BW-1"})
    call(client, acme, "POST", "contacts", {"address": "353871111111", "customerUID": "other"})
    assert ids(call(client, acme, "GET", f"contacts?{matching}")) == [str(acme.contact.pk)]
    assert ids(call(client, acme, "GET", f"contacts?{other}")) == []


def test_filters_never_find_another_organisations_contact(client: Client, acme: Cast, globex: Cast) -> None:
    their = call(client, globex, "POST", "contacts", {"address": "353871111111", "customerUID": "G-1"})
    assert their.status_code == 201
    for query in ("address=353871111111", "customerUID=G-1"):
        assert ids(call(client, acme, "GET", f"contacts?{query}")) == []


@pytest.mark.parametrize("plural", PLURALS)
def test_lists_hold_the_own_organisations_only(client: Client, acme: Cast, globex: Cast, plural: str) -> None:
    assert call(client, globex, "POST", plural, GOOD[plural][0]).status_code == 201
    mine, theirs = (set(ids(call(client, cast, "GET", plural))) for cast in (acme, globex))
    assert mine
    assert not mine & theirs


@pytest.mark.parametrize("plural", PLURALS)
def test_another_organisations_is_404_and_stays_as_it_is(client: Client, acme: Cast, globex: Cast, plural: str) -> None:
    before = everything()
    for method, body in (("GET", None), ("PATCH", GOOD[plural][2]), ("DELETE", None)):
        answer = call(client, acme, method, own(globex, plural), body)
        if (plural, method) == ("contacts", "DELETE"):
            continue
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), method
        absent = call(client, acme, method, f"{plural}/999999", body)
        assert absent.json() == answer.json()
    assert everything() == before


@pytest.mark.parametrize("plural", PLURALS)
@pytest.mark.parametrize("pk", ["0", "01", "-1", "x", "1" * 30, "1.0", "%00", "٣"])
def test_what_is_no_id_is_404(client: Client, acme: Cast, plural: str, pk: str) -> None:
    assert call(client, acme, "GET", f"{plural}/{pk}").status_code == 404


@pytest.mark.parametrize("plural", PLURALS)
def test_names_of_another_organisation_are_not_taken(client: Client, acme: Cast, globex: Cast, plural: str) -> None:
    for cast in (acme, globex):
        assert call(client, cast, "POST", plural, GOOD[plural][0]).status_code == 201


@pytest.mark.parametrize("plural", PLURALS)
def test_reading_and_writing_take_a_scope_each(client: Client, acme: Cast, plural: str) -> None:
    reader = with_scopes(acme, f"{plural}:read", "conversations:write")
    writer = with_scopes(acme, f"{plural}:write", "conversations:read")
    body, _shape, change = GOOD[plural]
    before = everything()
    methods = [(plural, "POST", body), (own(acme, plural), "PATCH", change)]
    if plural != "contacts":
        methods.append((own(acme, plural), "DELETE", None))
    for path, method, sent in methods:
        answer = call(client, acme, method, path, sent, reader)
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
        assert answer.json()["scope"] == f"{plural}:write"
    for path in (plural, own(acme, plural), f"{plural}/999999"):
        answer = call(client, acme, "GET", path, headers=writer)
        assert (answer.status_code, answer.json()["scope"]) == (403, f"{plural}:read")
    assert everything() == before
    assert call(client, acme, "GET", plural, headers=reader).status_code == 200
    assert call(client, acme, "POST", plural, body, writer).status_code == 201


@pytest.mark.parametrize("plural", PLURALS)
@pytest.mark.parametrize("authorization", [None, "Bearer nonsense", "Basic YTpi"])
def test_without_a_key_it_is_401_and_nothing_changes(
    client: Client, acme: Cast, plural: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    before = everything()
    for path, method, body in (
        (plural, "GET", None),
        (plural, "POST", GOOD[plural][0]),
        (own(acme, plural), "GET", None),
        (own(acme, plural), "PATCH", GOOD[plural][2]),
        (own(acme, plural), "DELETE", None),
    ):
        answer = call(client, acme, method, path, body, headers)
        assert answer.status_code == 401, (method, path)
        assert "Bearer" in answer["WWW-Authenticate"]
    assert everything() == before


#: path, change, field that must be named
BAD_CHANGES: list[tuple[str, Any, str]] = [
    ("channels", {"label": 1}, "label"),
    ("channels", {"label": ""}, "label"),
    ("channels", {"label": None}, "label"),
    ("channels", {"address": 353871234567}, "address"),
    ("channels", {"address": "123"}, "address"),
    ("channels", {"inboundRule": "any"}, "inboundRule"),
    ("channels", {"inboundRule": True}, "inboundRule"),
    ("channels", {"validityHours": "24"}, "validityHours"),
    ("channels", {"validityHours": 0}, "validityHours"),
    ("channels", {"validityHours": 8761}, "validityHours"),
    ("channels", {"type": "sandbox"}, "type"),
    ("queues", {"name": ["x"]}, "name"),
    ("queues", {"name": " "}, "name"),
    ("queues", {"name": "Support"}, "name"),
    ("queues", {"active": "false"}, "active"),
    ("queues", {"active": None}, "active"),
    ("queues", {"name": "New", "active": 0}, "active"),
    ("queues", {"id": "7"}, "id"),
    ("statuses", {"name": 5}, "name"),
    ("statuses", {"name": "x" * 256}, "name"),
    ("contacts", {"address": "353871234567"}, "address"),
    ("contacts", {"customerUID": 5}, "customerUID"),
    ("contacts", {"customerUID": "x" * 256}, "customerUID"),
    ("contacts", {"name": {"first": "Ada"}}, "name"),
    ("contacts", {"name": "Ada", "organisationId": "1"}, "organisationId"),
]


@pytest.mark.parametrize(("plural", "change", "field"), BAD_CHANGES)
def test_a_bad_change_is_refused_by_name_and_changes_nothing(
    client: Client, acme: Cast, plural: str, change: Any, field: str
) -> None:
    before = everything()
    answer = call(client, acme, "PATCH", own(acme, plural), change)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [field]
    assert everything() == before


def test_a_taken_name_is_told_as_such(client: Client, acme: Cast) -> None:
    for plural, body in (
        ("channels", {"type": "sandbox", "label": "Sandbox"}),
        ("queues", {"name": "Billing"}),
        ("statuses", {"name": "Promise"}),
        ("contacts", {"address": "+447717472695"}),
    ):
        answer = call(client, acme, "POST", plural, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "taken"), plural


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("queues?name=Billing", "name"),
        ("channels?address=447717472695", "address"),
        ("contacts?address=abc", "address"),
        ("contacts?address=", "address"),
        ("contacts?customerUID=a&customerUID=b", "customerUID"),
        ("contacts?customerUID=%00", "customerUID"),
        ("contacts?limit=201", "limit"),
        ("statuses?limit=0", "limit"),
        ("statuses?cursor=x", "cursor"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client: Client, acme: Cast, query: str, name: str) -> None:
    answer = call(client, acme, "GET", query)
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == [name]


@pytest.mark.parametrize("plural", PLURALS)
def test_a_cursor_is_of_one_organisation_and_list(client: Client, acme: Cast, globex: Cast, plural: str) -> None:
    for cast in (acme, globex):
        assert call(client, cast, "POST", plural, GOOD[plural][0]).status_code == 201
    theirs = call(client, globex, "GET", f"{plural}?limit=1").json()["next"]
    assert call(client, globex, "GET", theirs).status_code == 200
    answer = call(client, acme, "GET", theirs)
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["cursor"])
    mine = call(client, acme, "GET", f"{plural}?limit=1").json()["next"]
    other_list = next(other for other in PLURALS if other != plural)
    answer = call(client, acme, "GET", mine.replace(plural, other_list))
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["cursor"])


def test_pages_hold_each_row_once_oldest_first_and_keep_the_filter(client: Client, acme: Cast) -> None:
    for number in range(5):
        body = {"address": f"35387000000{number}", "customerUID": "many" if number else "one"}
        assert call(client, acme, "POST", "contacts", body).status_code == 201
    found = pages(client, acme, "contacts?limit=3&customerUID=many")
    assert [[row["address"] for row in page] for page in found] == [
        ["353870000001", "353870000002", "353870000003"],
        ["353870000004"],
    ]


@pytest.mark.parametrize("plural", PLURALS)
def test_a_list_takes_as_many_queries_for_many_rows_as_for_one(
    client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any, plural: str
) -> None:
    settings.API_RATE_LIMIT = "0"
    call(client, acme, "GET", plural)
    make: dict[str, Any] = {"organisation": acme.organisation, "actor": SYSTEM}
    for number in range(20):
        actions.create_queue(**make, name=f"q{number}")
        actions.create_status(**make, name=f"s{number}")
        actions.create_channel(**make, kind="sandbox", label=f"c{number}")
        actions.create_contact(**make, address=f"3538700000{number:02}")
    with django_assert_max_num_queries(2):
        assert len(ids(call(client, acme, "GET", plural))) >= 21


def test_messages_take_as_many_queries_for_many_as_for_one(
    client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "0"
    path = f"conversations/{acme.conversation.pk}/messages"
    call(client, acme, "GET", path)
    for number in range(20):
        actions.receive_message(channel=acme.channel, address=acme.contact.address, body=str(number))
    with django_assert_max_num_queries(3):
        assert len(call(client, acme, "GET", path).json()["results"]) == 21


@pytest.mark.parametrize("action", ["", "/messages", "/transcript"])
def test_a_conversation_is_not_read_without_the_scope(client: Client, acme: Cast, action: str) -> None:
    scopes = {"": "conversations:read", "/messages": "messages:read", "/transcript": "transcripts:read"}
    others = [scope for scope in scopes.values() if scope != scopes[action]]
    headers = with_scopes(acme, "conversations:write", "messages:write", *others)
    answer = call(client, acme, "GET", f"conversations/{acme.conversation.pk}{action}", headers=headers)
    assert (answer.status_code, answer.json()["scope"]) == (403, scopes[action])
    assert acme.message.body not in answer.content.decode()
    headers = with_scopes(acme, scopes[action])
    assert (
        call(client, acme, "GET", f"conversations/{acme.conversation.pk}{action}", headers=headers).status_code == 200
    )


def test_lists_of_conversations_and_transcripts_are_not_read_without_the_scope(client: Client, acme: Cast) -> None:
    headers = with_scopes(acme, "conversations:write", "messages:read")
    for path, scope in (("conversations", "conversations:read"), ("transcripts", "transcripts:read")):
        answer = call(client, acme, "GET", path, headers=headers)
        assert (answer.status_code, answer.json()["scope"]) == (403, scope)


@pytest.mark.parametrize("action", ["", "/messages", "/transcript"])
def test_another_organisations_conversation_is_404_to_read(
    client: Client, acme: Cast, globex: Cast, action: str
) -> None:
    answer = call(client, acme, "GET", f"conversations/{globex.conversation.pk}{action}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_filters_of_conversations_find_nothing_of_another_organisation(
    client: Client, acme: Cast, globex: Cast
) -> None:
    where: dict[str, Any] = {"actor": SYSTEM, "organisation": globex.organisation}
    actions.move_to_queue(**where, conversation_id=globex.conversation.pk, queue_id=globex.queue.pk)
    actions.set_status(**where, conversation_id=globex.conversation.pk, status_id=globex.status.pk)
    for query in (f"queueId={globex.queue.pk}", f"statusId={globex.status.pk}", "queueId=999999"):
        assert call(client, acme, "GET", f"conversations?{query}").json()["results"] == []
    answer = call(client, acme, "GET", f"conversations?channelId={globex.channel.pk}")
    assert list(answer.json()["errors"]) == ["channelId"]


def test_cursors_of_another_organisations_conversations_and_messages_are_refused(
    client: Client, acme: Cast, globex: Cast
) -> None:
    actions.receive_message(channel=globex.channel, address="353870000009", body="x")
    actions.receive_message(channel=globex.channel, address=globex.contact.address, body="x")
    for theirs, mine in (
        ("conversations", "conversations"),
        (f"conversations/{globex.conversation.pk}/messages", f"conversations/{acme.conversation.pk}/messages"),
    ):
        cursor = call(client, globex, "GET", f"{theirs}?limit=1").json()["next"].partition("?")[2]
        answer = call(client, acme, "GET", f"{mine}?{cursor}")
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["cursor"])


@pytest.mark.parametrize(
    ("action", "field", "attribute"),
    [("queue", "queueId", "queue"), ("status", "statusId", "status"), ("assignment", "userId", "agent")],
)
def test_another_organisations_id_in_a_body_is_as_unknown_as_an_absent_one(
    client: Client, acme: Cast, globex: Cast, action: str, field: str, attribute: str
) -> None:
    before = everything()
    path = f"conversations/{acme.conversation.pk}/{action}"
    foreign, absent = (
        call(client, acme, "POST", path, {field: pk}) for pk in (str(getattr(globex, attribute).pk), "999999")
    )
    assert foreign.status_code == 400
    assert foreign.json() == absent.json()
    assert list(foreign.json()["errors"]) == [field]
    start = {"channelId": str(acme.channel.pk), "outboundChannelAddress": "353870000000"}
    if action != "assignment":
        answer = call(client, acme, "POST", "conversations", {**start, field: str(getattr(globex, attribute).pk)})
        assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    answer = call(client, acme, "POST", "conversations", {**start, "channelId": str(globex.channel.pk)})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["channelId"])
    assert everything() == before
