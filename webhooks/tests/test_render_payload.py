"""The bytes that are posted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from conversations.events import EVENT_TYPES
from conversations.models import Event
from organisations.models import Organisation
from webhooks.payloads import message_id, render
from webhooks.samples import sample_event

DOCUMENTED = {
    "deliveryReport": (
        datetime(2021, 1, 28, 12, 22, 15, 397000, tzinfo=UTC),
        b'{"type":"messageStatusUpdate","conversationId":"97847","communicationActionId":"220860",'
        b'"outboundChannelAddress":"447717472695","inboundChannelAddress":"WhatsApp QA Test","customerUID":"",'
        b'"dateCreated":"2021-01-28 12:22:15.397","statusCode":"2"}',
    ),
    "inboundMessage": (
        datetime(2021, 1, 28, 12, 21, 28, 373000, tzinfo=UTC),
        b'{"type":"inboundMessage","conversationId":"97847","communicationActionId":"220859",'
        b'"outboundChannelAddress":"447717472695","inboundChannelAddress":"WhatsApp QA Test","customerUID":"",'
        b'"body":"No I don\'t","dateCreated":"2021-01-28 12:21:28.373"}',
    ),
    "messageSend": (
        datetime(2021, 1, 28, 12, 22, 8, 377000, tzinfo=UTC),
        b'{"type":"messageSend","conversationId":"97847","communicationActionId":"220860",'
        b'"outboundChannelAddress":"447717472695","inboundChannelAddress":"WhatsApp QA Test","customerUID":"",'
        b'"body":"yes","dateCreated":"2021-01-28 12:22:08.377","statusCode":"1"}',
    ),
}


def sample(name: str, moment: datetime, zone: str = "UTC") -> Event:
    """The catalogue's event of an organisation in `zone`."""
    return sample_event(Organisation(pk=1, name="Acme", time_zone=zone), name, moment)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_three_documented_bodies_are_equal_byte_for_byte(name: str) -> None:
    moment, expected = DOCUMENTED[name]
    assert render(sample(name, moment), "webio") == expected


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_value_of_the_webio_format_is_a_string(name: str) -> None:
    body: dict[str, Any] = json.loads(render(sample(name, datetime(2024, 5, 1, tzinfo=UTC)), "webio"))
    assert body["type"] == EVENT_TYPES[name].wire_type
    assert all(isinstance(value, str) for value in body.values())
    common = {
        "type",
        "conversationId",
        "outboundChannelAddress",
        "inboundChannelAddress",
        "customerUID",
        "dateCreated",
    }
    if EVENT_TYPES[name].operational:
        common = {"type", "dateCreated"}
    assert set(body) == common | set(EVENT_TYPES[name].facts)


def test_an_operational_event_has_a_flat_body_without_a_conversation() -> None:
    event = sample("webhookDisabled", datetime(2024, 7, 1, 12, 0, 0, 1000, tzinfo=UTC))
    assert render(event, "webio") == (
        b'{"type":"webhookDisabled","dateCreated":"2024-07-01 12:00:00.001","webhookId":"12","webhookName":"Orders",'
        b'"callbackUrl":"https://example.com/hooks/orders","reason":"failing"}'
    )
    assert render(event, "standard") == (
        b'{"id":"evt_880042","type":"webhookDisabled","timestamp":"2024-07-01T12:00:00.001Z","data":{"webhookId":"12",'
        b'"webhookName":"Orders","callbackUrl":"https://example.com/hooks/orders","reason":"failing",'
        b'"actor":{"kind":"system","id":null,"name":"system"}}}'
    )


def test_date_created_is_in_the_organisations_time_zone_with_milliseconds() -> None:
    event = sample("setStatus", datetime(2024, 7, 1, 23, 30, 0, 5999, tzinfo=UTC), "Europe/Dublin")
    assert json.loads(render(event, "webio"))["dateCreated"] == "2024-07-02 00:30:00.005"


def test_the_standard_format_has_the_envelope_and_typed_facts() -> None:
    event = sample("conversationAssignment", datetime(2024, 7, 1, 12, 0, 0, 1000, tzinfo=UTC))
    body = json.loads(render(event, "standard"))
    assert list(body) == ["id", "type", "timestamp", "data"]
    assert (body["type"], body["timestamp"]) == ("conversationAssignment", "2024-07-01T12:00:00.001Z")
    assert body["data"]["assigned"] is True
    assert {"actor", "state", "currentQueue", "currentStatus", "channel"} <= set(body["data"])


def test_text_outside_ascii_stays_as_it_is() -> None:
    event = sample("inboundMessage", datetime(2024, 7, 1, tzinfo=UTC))
    event.data["facts"] = {**event.data["facts"], "body": "¿Qué? 👍"}
    assert "¿Qué? 👍".encode() in render(event, "webio")


def test_an_unknown_format_or_version_is_refused() -> None:
    event = sample("inboundMessage", datetime(2024, 7, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="no format"):
        render(event, "xml")
    with pytest.raises(ValueError, match="no version"):
        render(event, "webio", 2)


def test_the_message_id_belongs_to_event_and_webhook() -> None:
    assert message_id(7, 3) == message_id(7, 3) != message_id(3, 7)
