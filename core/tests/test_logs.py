"""Log lines carry ids and no secrets."""

from __future__ import annotations

import json
import logging

import pytest
from django.test import Client

from core.logs import ContextFilter, JsonFormatter, TextFormatter, log_context


def line(formatter: logging.Formatter, message: str, *args: object) -> str:
    """A record as it would be printed."""
    record = logging.LogRecord("webio.test", logging.INFO, __file__, 1, message, args, None)
    ContextFilter().filter(record)
    return formatter.format(record)


def test_a_line_carries_the_ids_around_it() -> None:
    with log_context(organisation=3), log_context(delivery=17, event=5):
        found = json.loads(line(JsonFormatter(), "sent %s", "it"))
    assert found["message"] == "sent it"
    assert (found["organisation"], found["delivery"], found["event"]) == ("3", "17", "5")
    assert "delivery" not in json.loads(line(JsonFormatter(), "later"))


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@pytest.mark.parametrize(
    "secret",
    ["wk_live_abcdefghijkl_" + "s" * 43, "whsec_" + "A" * 44, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"],
)
def test_secrets_are_taken_out(formatter: logging.Formatter, secret: str) -> None:
    shown = line(formatter, "got %s from them", secret)
    assert secret not in shown
    assert "from them" in shown


def test_a_request_is_one_line_with_the_id_of_its_answer(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "webio.requests"):
        answer = client.get("/api/v1/nowhere")
    records = [record for record in caplog.records if record.name == "webio.requests"]
    assert len(records) == 1
    assert records[0].facts["status"] == 404  # type: ignore[attr-defined]
    assert len(answer["X-Request-Id"]) == 16
