"""`Idempotency-Key`: done once, answered the same."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client

from conftest import Cast
from conversations.models import Message
from core.clock import held_at, now
from organisations.models import IdempotencyKey


def send(client: Client, cast: Cast, key: str, body: Any = None, conversation: Any = None) -> Any:
    """POST a message with an Idempotency-Key."""
    pk = conversation or cast.conversation.pk
    return client.post(
        f"/api/v1/conversations/{pk}/messages",
        json.dumps({"body": "Hello"} if body is None else body),
        content_type="application/json",
        headers={**cast.auth, "Idempotency-Key": key},
    )


def sent() -> int:
    """How many messages of ours there are."""
    return Message.objects.filter(direction="outbound").count()


def test_the_same_call_is_done_once_and_answered_the_same(client: Client, acme: Cast) -> None:
    first, second = send(client, acme, "a"), send(client, acme, "a")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert second["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert sent() == 1


def test_the_same_key_with_another_body_is_422(client: Client, acme: Cast) -> None:
    send(client, acme, "a")
    answer = send(client, acme, "a", {"body": "Another"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_mismatch"
    assert sent() == 1


def test_a_key_belongs_to_one_organisation_and_path(client: Client, acme: Cast, globex: Cast) -> None:
    assert send(client, acme, "a").status_code == 201
    assert send(client, globex, "a").status_code == 201
    answer = client.post(
        f"/api/v1/conversations/{acme.conversation.pk}/close",
        "{}",
        content_type="application/json",
        headers={**acme.auth, "Idempotency-Key": "a"},
    )
    assert answer.status_code == 200
    assert sent() == 2


def test_a_refused_call_keeps_nothing(client: Client, acme: Cast) -> None:
    assert send(client, acme, "a", {"body": ""}).status_code == 400
    assert not IdempotencyKey.objects.exists()
    assert send(client, acme, "a").status_code == 201


def test_while_the_first_call_runs_a_second_one_is_told_so(client: Client, acme: Cast) -> None:
    send(client, acme, "a")
    IdempotencyKey.objects.update(status_code=None, locked_until=now() + timedelta(seconds=30))
    answer = send(client, acme, "a")
    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency_running"
    assert sent() == 1


def test_a_first_call_that_died_frees_its_key(client: Client, acme: Cast) -> None:
    send(client, acme, "a")
    IdempotencyKey.objects.update(status_code=None, locked_until=now() - timedelta(seconds=1))
    assert send(client, acme, "a").status_code == 201
    assert sent() == 2
    assert send(client, acme, "a")["Idempotency-Replayed"] == "true"


def test_an_answer_is_kept_for_a_day(client: Client, acme: Cast) -> None:
    send(client, acme, "a")
    with held_at(now() + timedelta(hours=23, minutes=59)):
        assert "Idempotency-Replayed" in send(client, acme, "a")
    with held_at(now() + timedelta(hours=24, seconds=1)):
        assert "Idempotency-Replayed" not in send(client, acme, "a")
    assert sent() == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "smørrebrød"])
def test_a_malformed_key_is_refused(client: Client, acme: Cast, key: str) -> None:
    answer = send(client, acme, key)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["errors"]
    assert sent() == 0


def test_the_kept_answer_is_encrypted(client: Client, acme: Cast) -> None:
    answer = client.post(
        "/api/v1/webhooks",
        json.dumps({"name": "in", "callbackUrl": "https://hooks.example.com/in", "events": ["inboundMessage"]}),
        content_type="application/json",
        headers={**acme.auth, "Idempotency-Key": "w"},
    )
    assert answer.status_code == 201, answer.content
    with connection.cursor() as cursor:
        cursor.execute("SELECT answer FROM organisations_idempotencykey")
        stored = cursor.fetchone()[0]
    assert answer.json()["secret"] not in stored
    assert "whsec_" not in stored


@pytest.mark.django_db(transaction=True)
def test_of_many_same_calls_at_once_one_is_done() -> None:
    if connection.vendor == "sqlite":
        pytest.skip("threads share SQLite's connection in tests; PostgreSQL shows the race")
    from conftest import make_cast

    cast = make_cast("race")
    barrier = threading.Barrier(8)

    def call(_number: int) -> int:
        try:
            barrier.wait(10)
            return send(Client(), cast, "race").status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(call, range(8)))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert sent() == 1
    assert send(Client(), cast, "race")["Idempotency-Replayed"] == "true"
