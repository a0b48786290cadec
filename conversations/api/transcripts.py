"""Transcripts: of one conversation in five formats, of many as JSON Lines or CSV. Long ones stream."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.http import StreamingHttpResponse
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.request import Request

from conversations import transcripts
from conversations.api import examples
from conversations.api.serializers import ConversationShape, MessageShape
from conversations.api.views import WholeConversation, moment_parameter
from conversations.models import Conversation
from core.clock import now
from core.errors import Invalid
from core.text import clean_address
from organisations.api.docs import documented
from organisations.api.problems import Problem
from organisations.api.views import ApiView

SCOPE = "transcripts:read"
NOTES_SCOPE = "notes:read"
TAG = "Transcripts"
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
FLAGS = {"true": True, "false": False}
EVENT = {
    "id": "41",
    "type": "setStatus",
    "actor": {"kind": "agent", "id": "31", "label": "ada@acme.example"},
    "createdAt": "2026-01-31T09:05:01.000Z",
    "status": "Promise to pay",
    "statusId": "12",
}


class OutcomeShape(serializers.Serializer[Any]):
    """One change of a message's state."""

    statusCode = serializers.CharField()
    at = serializers.DateTimeField()


class TranscriptMessageShape(MessageShape):
    """A message with all its outcomes."""

    outcomes = OutcomeShape(many=True)


class TranscriptShape(ConversationShape):
    """A conversation with everything in it."""

    messages = TranscriptMessageShape(many=True)
    events = serializers.ListField(
        child=serializers.DictField(), help_text="Status, queue, assignment, closing and reopening, in order."
    )
    notes = serializers.ListField(child=serializers.DictField(), required=False, help_text="Only with notes=true.")


EXAMPLE = {
    **examples.CONVERSATION,
    "messages": [{**examples.MESSAGE, "outcomes": [{"statusCode": "1", "at": "2026-01-31T09:05:00.000+00:00"}]}],
    "events": [EVENT],
}


def notes_parameter(view: ApiView, request: Request) -> bool:
    """Whether notes are asked for. Raises a 403 problem when the key may not read them, `Invalid` for a bad value."""
    text = request.query_params.get("notes", "false")
    if text not in FLAGS:
        raise Invalid.field("notes", _("Must be true or false."))
    key: Any = request.auth
    if FLAGS[text] and NOTES_SCOPE not in key.scopes:
        detail = _("The API key lacks the scope %(scope)s.") % {"scope": NOTES_SCOPE}
        raise Problem(403, "missing_scope", detail, scope=NOTES_SCOPE)
    return FLAGS[text]


class TranscriptView(WholeConversation):
    """The transcript of one conversation."""

    scopes = {"GET": SCOPE}
    parameters = ("format", "notes")

    @documented(
        "Read a conversation's transcript",
        scope=SCOPE,
        answer=TranscriptShape,
        tag=TAG,
        problems=[404, 409],
        parameters={
            "format": "json (default), csv, txt, html or pdf",
            "notes": f"true includes internal notes and needs the scope {NOTES_SCOPE}",
        },
        description="Long transcripts stream. A PDF of very many messages is refused: 409 `transcript_too_long`.",
        media=["text/csv", "text/plain", "text/html", "application/pdf"],
        example=EXAMPLE,
        operation_id="readTranscript",
    )
    def get(self, request: Request, conversation_id: str) -> StreamingHttpResponse:
        code = request.query_params.get("format", "json")
        if code not in transcripts.FORMATS:
            raise Invalid.field("format", _("Must be json, csv, txt, html or pdf."))
        notes = notes_parameter(self, request)
        self.conversation.organisation = self.organisation
        pieces = transcripts.write(transcripts.Transcript(self.conversation, notes=notes), code)
        response = StreamingHttpResponse(pieces, content_type=transcripts.FORMATS[code].media_type)
        name = f"conversation-{self.conversation.pk}.{code}"
        if code != "json":
            response["Content-Disposition"] = f'{"inline" if code == "html" else "attachment"}; filename="{name}"'
        if code == "html":
            response["Content-Security-Policy"] = transcripts.CSP
        return response


class TranscriptsView(ApiView):
    """Transcripts of a period."""

    scopes = {"GET": SCOPE}
    parameters = (
        "format",
        "notes",
        "from",
        "to",
        "state",
        "channelId",
        "queueId",
        "statusId",
        "customerUID",
        "address",
    )

    @documented(
        "Read many transcripts, in the order in which the conversations started",
        scope=SCOPE,
        answer=None,
        tag=TAG,
        parameters={
            "format": "jsonl (default; one transcript a line) or csv (one message, event or note a line)",
            "notes": f"true includes internal notes and needs the scope {NOTES_SCOPE}",
            "from": "conversations that started at or after this ISO 8601 time",
            "to": "conversations that started before this ISO 8601 time",
            "state": "open, closed or error",
            "channelId": "on this channel",
            "queueId": "in this queue",
            "statusId": "with this status",
            "customerUID": "of this customer",
            "address": "with the contact of this address",
        },
        description="Streams; however many there are, ask once.",
        media=["application/jsonl", "text/csv"],
        operation_id="readTranscripts",
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        asked = request.query_params
        code = asked.get("format", "jsonl")
        if code not in ("jsonl", "csv"):
            raise Invalid.field("format", _("Must be jsonl or csv."))
        state = asked.get("state")
        if state is not None and state not in Conversation.State.values:
            raise Invalid.field("state", _("Must be open, closed or error."))
        address = asked.get("address")
        found = transcripts.transcripts_of(
            organisation=self.organisation,
            start=moment_parameter(request, "from") or BEGINNING,
            end=moment_parameter(request, "to") or now(),
            notes=notes_parameter(self, request),
            state=state,
            channel_id=self.id_parameter("channelId"),
            queue_id=self.id_parameter("queueId"),
            status_id=self.id_parameter("statusId"),
            customer_uid=asked.get("customerUID"),
            address=None if address is None else clean_address("address", address),
        )
        if code == "csv":
            return StreamingHttpResponse(transcripts.as_csv(found), content_type="text/csv; charset=utf-8")
        return StreamingHttpResponse(transcripts.as_json_lines(found), content_type="application/jsonl")
