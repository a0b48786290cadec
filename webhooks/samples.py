"""Sample events: what the catalogue shows and what a test sends."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from conversations.events import EVENT_TYPES, SCHEMA_VERSION
from conversations.models import Event
from core.actors import SYSTEM, Actor
from organisations.models import Organisation
from webhooks.models import Webhook
from webhooks.payloads import render

SAMPLE_ID = 880_042
#: The moment of the sample in the catalogue.
SAMPLE_TIME = datetime(2021, 1, 28, 12, 22, 15, 397000, tzinfo=UTC)

_CONVERSATION: dict[str, Any] = {
    "conversationId": "97847",
    "outboundChannelAddress": "447717472695",
    "inboundChannelAddress": "WhatsApp QA Test",
    "customerUID": "",
    "state": "open",
    "handledBy": "people",
    "channel": {"id": "3", "type": "sandbox", "label": "WhatsApp QA Test"},
    "queue": {"id": "7", "name": "Billing"},
    "status": None,
    "assignedTo": None,
}


def sample_event(organisation: Organisation, name: str, moment: datetime = SAMPLE_TIME) -> Event:
    """An unsaved event of type `name` (a subscription name) with the catalogue's example facts.

    It belongs to no conversation of the organisation. Raises `KeyError` for an unknown type.
    """
    kind = EVENT_TYPES[name]
    facts = kind.example
    data = {**({} if kind.operational else _CONVERSATION), "timeZone": organisation.time_zone, "facts": facts}
    if name == "setStatus":
        data["status"] = {"id": facts["statusId"], "name": facts["status"]}
    elif name == "conversationAssignment":
        data["assignedTo"] = {"id": facts["assignedToId"], "name": facts["assignedTo"]}
    elif name == "conversationClosed":
        data["state"] = "closed"
    if kind.operational:
        actor = SYSTEM
    elif name in ("inboundMessage", "payment"):
        actor = Actor("contact", label=_CONVERSATION["outboundChannelAddress"])
    else:
        actor = Actor("user", "31", "ada@example.com")
    return Event(
        pk=SAMPLE_ID,
        organisation=organisation,
        conversation_id=None if kind.operational else int(_CONVERSATION["conversationId"]),
        type=name,
        seq=0 if kind.operational else 1,
        schema_version=SCHEMA_VERSION,
        data=data,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label,
        created_at=moment,
    )


@dataclass(frozen=True, slots=True)
class Sample:
    """The body of one event in both formats, with line breaks for people."""

    webio: str
    standard: str


def sample_bodies(organisation: Organisation, name: str) -> Sample:
    """What a webhook of `organisation` would get for the catalogue's example of `name`."""
    event = sample_event(organisation, name)
    webio, standard = (json.loads(render(event, format)) for format in (Webhook.Format.WEBIO, Webhook.Format.STANDARD))
    return Sample(*(json.dumps(body, indent=2, ensure_ascii=False) for body in (webio, standard)))
