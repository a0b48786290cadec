"""Replays through the API: counted, started, followed, held and ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.wire import moment
from organisations.models import AuditEntry
from organisations.tests.calls import call, pages, with_scopes
from webhooks.models import Replay, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.replays import begin, past, work_off

KEYS = {
    "id", "webhookId", "state", "states", "events", "since", "until", "conversationId", "rate", "total", "made",
    "createdAt", "finishedAt",
}  # fmt: skip


def ask(client: Client, cast: Cast, webhook: Webhook, **body: Any) -> Any:
    return call(client, cast, "POST", f"webhooks/{webhook.pk}/replay", body)


class TestStarting:
    """POST /webhooks/{id}/replay."""

    def test_a_replay_is_started_and_followed_to_its_end(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 3)
        since = moment(rows[0].event.created_at - timedelta(hours=1))
        answer = ask(client, acme, webhook, states=["failed"], events=["inboundMessage"], since=since, rate=7)
        assert answer.status_code == 201
        started = answer.json()
        assert set(started) == KEYS
        replay = Replay.objects.get()
        assert started == {
            "id": str(replay.pk),
            "webhookId": str(webhook.pk),
            "state": "running",
            "states": ["failed"],
            "events": ["inboundMessage"],
            "since": since,
            "until": moment(replay.until),
            "conversationId": None,
            "rate": 7,
            "total": 3,
            "made": 0,
            "createdAt": moment(replay.created_at),
            "finishedAt": None,
        }
        assert (replay.actor_kind, replay.actor_id) == ("api", str(acme.api_key.pk))
        work_off(replay)
        found = call(client, acme, "GET", f"replays/{replay.pk}").json()
        assert replay.finished_at is not None
        assert found == {**started, "state": "done", "made": 3, "finishedAt": moment(replay.finished_at)}

    def test_a_preview_counts_and_sends_nothing(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        rows = past(acme, webhook, 4)
        for body, total in (
            ({}, 4),
            ({"states": ["delivered"]}, 0),
            ({"conversationId": str(rows[0].conversation_id), "rate": 5}, 2),
        ):
            answer = ask(client, acme, webhook, preview=True, **body)
            assert (answer.status_code, answer.json()) == (200, {"total": total})
        assert not Replay.objects.exists()
        assert not AuditEntry.objects.filter(action__startswith="replay.").exists()

    def test_a_second_one_is_refused_with_the_id_of_the_first(
        self, client: Client, acme: Cast, webhook: Webhook
    ) -> None:
        past(acme, webhook, 1)
        first = ask(client, acme, webhook).json()["id"]
        answer = ask(client, acme, webhook)
        assert answer.status_code == 409
        assert (answer.json()["code"], answer.json()["replayId"]) == ("replay_running", first)

    def test_sent_again_with_its_key_it_is_started_once(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 1)
        headers = {**acme.auth, "Idempotency-Key": "one"}
        answers = [call(client, acme, "POST", f"webhooks/{webhook.pk}/replay", {}, headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()
        assert Replay.objects.count() == 1

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"states": ["held"]}, "states"),
            ({"states": "failed"}, "states"),
            ({"events": ["conversationStarted"]}, "events"),
            ({"since": "yesterday"}, "since"),
            ({"since": "2026-01-31T09:00:00"}, "since"),
            ({"since": "0001-01-01T00:00:00+14:00"}, "since"),
            ({"until": 7}, "until"),
            ({"since": "9999-12-31T00:00:00Z"}, "since"),
            ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "since"),
            ({"conversationId": 7}, "conversationId"),
            ({"conversationId": "9" * 30}, "conversationId"),
            ({"rate": 0}, "rate"),
            ({"rate": 1001}, "rate"),
            ({"rate": "fast"}, "rate"),
            ({"rate": True}, "rate"),
            ({"preview": "yes"}, "preview"),
            ({"state": "failed"}, "state"),
        ],
    )
    def test_bad_input_names_its_field(
        self, client: Client, acme: Cast, webhook: Webhook, body: dict[str, Any], field: str
    ) -> None:
        for values in (body, {"preview": True, **body}):
            answer = ask(client, acme, webhook, **values)
            if field == "rate" and answer.status_code == 200:
                continue
            assert answer.status_code == 400
            assert list(answer.json()["errors"]) == [field]
        assert not Replay.objects.exists()


class TestMoving:
    """POST /replays/{id}/pause, resume, cancel."""

    def test_it_is_paused_resumed_and_cancelled(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 9)
        replay = begin(webhook, rate=10)
        path = f"replays/{replay.pk}"
        work_off(replay, steps=1)
        for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
            answer = call(client, acme, "POST", f"{path}/{verb}")
            assert (answer.status_code, answer.json()["state"], answer.json()["made"]) == (200, state, 2)
            assert call(client, acme, "GET", path).json() == answer.json()
        for verb in ("pause", "resume", "cancel"):
            answer = call(client, acme, "POST", f"{path}/{verb}")
            assert (answer.status_code, answer.json()["code"]) == (409, "replay_finished")
        entry = AuditEntry.objects.get(action="replay.cancel")
        assert (entry.actor_kind, entry.data["made"]) == ("api", 2)

    def test_a_body_is_refused(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 1)
        answer = call(client, acme, "POST", f"replays/{begin(webhook).pk}/pause", {"why": "x"})
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["why"])


class TestListing:
    """GET /webhooks/{id}/replays."""

    def test_newest_first_in_pages_and_only_its_own(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        made = [begin(webhook).pk for _ in range(5)]
        begin(make_webhook(acme))
        found = pages(client, acme, f"/api/v1/webhooks/{webhook.pk}/replays?limit=2")
        assert [[int(row["id"]) for row in page] for page in found] == [made[:2:-1], made[2:0:-1], made[:1]]

    def test_the_list_costs_the_same_however_long(
        self, client: Client, acme: Cast, webhook: Webhook, django_assert_max_num_queries: Any
    ) -> None:
        for _ in range(20):
            begin(webhook)
        with django_assert_max_num_queries(8):
            assert len(call(client, acme, "GET", f"webhooks/{webhook.pk}/replays").json()["results"]) == 20


class TestWho:
    """Scopes and tenants."""

    def test_each_call_asks_for_its_scope(self, client: Client, acme: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 2)
        replay = begin(webhook)
        reader, writer = with_scopes(acme, "deliveries:read"), with_scopes(acme, "deliveries:write")
        reads = (f"webhooks/{webhook.pk}/replays", f"replays/{replay.pk}")
        writes = (f"webhooks/{webhook.pk}/replay", *(f"replays/{replay.pk}/{verb}" for verb in ("pause", "cancel")))
        for path in reads:
            assert call(client, acme, "GET", path, headers=reader).status_code == 200
            assert call(client, acme, "GET", path, headers=writer).json()["scope"] == "deliveries:read"
        for path in writes:
            refused = call(client, acme, "POST", path, headers=reader)
            assert (refused.status_code, refused.json()["scope"]) == (403, "deliveries:write")

    def test_somebody_elses_is_not_there(self, client: Client, acme: Cast, globex: Cast, webhook: Webhook) -> None:
        past(acme, webhook, 1)
        replay = begin(webhook)
        for method, path in (
            ("GET", f"replays/{replay.pk}"),
            ("GET", f"webhooks/{webhook.pk}/replays"),
            ("POST", f"webhooks/{webhook.pk}/replay"),
            *(("POST", f"replays/{replay.pk}/{verb}") for verb in ("pause", "resume", "cancel")),
        ):
            assert call(client, globex, method, path).status_code == 404
        replay.refresh_from_db()
        assert replay.state == "running"
