"""Every refusal of the API is a problem: unknown paths, methods, media types, sizes, broken JSON, our own faults."""

from __future__ import annotations

import io
import sqlite3
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from conftest import Cast, make_cast
from conversations.models import Conversation

URL = "/api/v1/conversations"


def assert_problem(answer: Any, status: int, code: str | None = None) -> dict[str, Any]:
    """The body of an answer that must be a problem."""
    assert answer.status_code == status, answer.content[:300]
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "code", "detail"} <= set(body)
    assert body["status"] == status
    if code is not None:
        assert body["code"] == code
    return body


@pytest.mark.parametrize("path", ["/api/", "/api/v1/", "/api/v1/nothing", "/api/v2/conversations", "/api/v1/queues/"])
def test_an_unknown_path_is_a_problem(db: None, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    assert_problem(client.get(path), 404, "not_found")
    assert_problem(client.post(path), 404, "not_found")


def test_a_method_that_a_path_does_not_have_is_405_and_names_those_it_has(client: Client, acme: Cast) -> None:
    for method in ("put", "patch", "delete", "options", "trace"):
        answer = getattr(client, method)(URL, headers=acme.auth)
        assert_problem(answer, 405, "method_not_allowed")
        assert {"GET", "POST"} <= {name.strip() for name in answer["Allow"].split(",")}


@pytest.mark.parametrize("path", ["", "?limit=1", "?nothing=1", "/{mine}", "/{theirs}", "/{mine}/messages?limit=1"])
def test_a_head_request_is_answered_like_a_get_without_a_body(
    client: Client, acme: Cast, globex: Cast, path: str
) -> None:
    url = URL + path.format(mine=acme.conversation.pk, theirs=globex.conversation.pk)
    answer = client.head(url, headers=acme.auth)
    assert answer.status_code == client.get(url, headers=acme.auth).status_code != 500
    assert answer.content == b""


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_another_media_type_is_415(client: Client, acme: Cast, kind: str) -> None:
    answer = client.post(URL, b'{"channelId":"1"}', content_type=kind, headers=acme.auth)
    assert_problem(answer, 415, "unsupported_media_type")


def test_a_body_over_the_limit_is_413(client: Client, acme: Cast) -> None:
    before = Conversation.objects.count()
    for size in (1_000_001, 10_000_000):
        answer = client.post(URL, b" " * size, content_type="application/json", headers=acme.auth)
        assert_problem(answer, 413)
    assert Conversation.objects.count() == before


def send(client: Client, cast: Cast, stream: Any, **environment: Any) -> Any:
    """A POST whose body the web server reads from `stream`."""
    server = {"wsgi.input": stream, "CONTENT_TYPE": "application/json", **environment}
    return client.generic("POST", "/api/v1/queues", headers=cast.auth, **server)


def test_a_chunked_body_is_read(client: Client, acme: Cast) -> None:
    chunked = {"wsgi.input_terminated": True}
    assert send(client, acme, io.BytesIO(b'{"name":"Chunks"}'), **chunked).json()["name"] == "Chunks"
    assert_problem(send(client, acme, io.BytesIO(b" " * 1_000_001), **chunked), 413, "body_too_large")


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_a_body_that_breaks_off_is_refused(client: Client, acme: Cast, error: type[Exception]) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise error

    body = b'{"name":"Half"}'
    for stream, environment in (
        (io.BytesIO(body), {"CONTENT_LENGTH": "500"}),
        (Broken(), {"CONTENT_LENGTH": "500"}),
        (Broken(), {"wsgi.input_terminated": True}),
    ):
        assert_problem(send(client, acme, stream, **environment), 400, "body_incomplete")
    assert send(client, acme, io.BytesIO(body), CONTENT_LENGTH=str(len(body))).status_code == 201


def test_an_unexpected_error_is_500_and_tells_nothing(
    client: Client, acme: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr("conversations.api.views.ConversationsView.get", fail)
    client.raise_request_exception = False
    answer = client.get(URL, headers=acme.auth)
    assert_problem(answer, 500)
    assert b"secret" not in answer.content


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite has one writer")
def test_a_database_that_stays_locked_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    acme = make_cast("acme")
    client = Client(raise_request_exception=False)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        answer = send(client, acme, io.BytesIO(b'{"name":"Late"}'), CONTENT_LENGTH="15")
        assert_problem(answer, 503, "unavailable")
        assert int(answer["Retry-After"]) > 0
    finally:
        other.close()
    assert send(client, acme, io.BytesIO(b'{"name":"Late"}'), CONTENT_LENGTH="15").status_code == 201
