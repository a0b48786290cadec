"""Replays: a webhook's past events sent again, by filter and at a chosen rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.wire import identifier, moment
from organisations.api.docs import documented, listed
from organisations.api.fields import Body, Flag, Id, Moment, Names, Nothing, Whole
from organisations.api.paging import page
from organisations.api.views import ApiView, find_or_404
from webhooks.api.views import OneWebhook
from webhooks.models import Replay
from webhooks.replay import (
    RATE_DEFAULT,
    RATE_LEAST,
    RATE_MOST,
    STATES,
    cancel_replay,
    pause_replay,
    preview_replay,
    resume_replay,
    start_replay,
)

READ = "deliveries:read"
WRITE = "deliveries:write"
TAG = "Replays"
EXAMPLE = {
    "id": "31",
    "webhookId": "14",
    "state": "running",
    "states": ["failed"],
    "events": [],
    "since": "2026-01-31T00:00:00.000Z",
    "until": "2026-02-01T00:00:00.000Z",
    "conversationId": None,
    "rate": 100,
    "total": 5120,
    "made": 700,
    "createdAt": "2026-02-01T09:05:00.010Z",
    "finishedAt": None,
}


class StartReplay(Body):
    """POST /webhooks/{id}/replay. Without a filter everything that was delivered, failed or cancelled."""

    states = Names(required=False, help_text=f"Of the event's newest delivery, of: {', '.join(STATES)}.")
    events = Names(required=False, help_text="Subscription names.")
    since = Moment(required=False, help_text="When the events happened: from here on.")
    until = Moment(required=False, help_text="Before here; now, unless told.")
    conversationId = Id(required=False)
    rate = Whole(
        minimum=RATE_LEAST,
        maximum=RATE_MOST,
        required=False,
        help_text=f"Deliveries a second at most, {RATE_LEAST} to {RATE_MOST}, {RATE_DEFAULT} by default.",
    )
    preview = Flag(required=False, help_text="true: only count, and send nothing.")


class ReplayShape(serializers.Serializer[Any]):
    """A replay. `made` of `total` deliveries have been made."""

    id = serializers.CharField()
    webhookId = serializers.CharField()
    state = serializers.ChoiceField(Replay.State.values)
    states = serializers.ListField(child=serializers.CharField())
    events = serializers.ListField(child=serializers.CharField())
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField()
    conversationId = serializers.CharField(allow_null=True)
    rate = serializers.IntegerField()
    total = serializers.IntegerField()
    made = serializers.IntegerField()
    createdAt = serializers.DateTimeField()
    finishedAt = serializers.DateTimeField(allow_null=True)


class ReplayPreviewShape(serializers.Serializer[Any]):
    """How many events a replay would send."""

    total = serializers.IntegerField()


def replay_shape(replay: Replay) -> dict[str, Any]:
    """A replay on the wire."""
    return {
        "id": str(replay.pk),
        "webhookId": str(replay.webhook_id),
        "state": replay.state,
        "states": replay.states,
        "events": replay.events,
        "since": moment(replay.since) if replay.since else None,
        "until": moment(replay.until),
        "conversationId": identifier(replay.conversation_id),
        "rate": replay.rate,
        "total": replay.total,
        "made": replay.made,
        "createdAt": moment(replay.created_at),
        "finishedAt": moment(replay.finished_at) if replay.finished_at else None,
    }


class StartReplayView(OneWebhook):
    """Starting a replay, or counting what it would send."""

    scopes = {"POST": WRITE}

    @documented(
        "Replay a webhook's past events",
        scope=WRITE,
        answer=ReplayShape,
        status=201,
        body=StartReplay,
        tag=TAG,
        post=True,
        problems=[404],
        description="Sends each event again whose newest delivery fits, with the same `webhook-id` and body, as new "
        "deliveries of the kind replay. A webhook has one unfinished replay at a time. With `preview` nothing is sent, "
        "and the answer is the number alone.",
        example={**EXAMPLE, "made": 0},
        request_example={"states": ["failed"], "since": "2026-01-31T00:00:00Z", "until": "2026-02-01T00:00:00Z"},
        others={200: ("How many events it would send, with `preview`", ReplayPreviewShape, {"total": 5120})},
        operation_id="startReplay",
    )
    def post(self, request: Request, pk: str) -> Response:
        values = self.read(StartReplay)
        if "conversationId" in values:
            values["conversation_id"] = values.pop("conversationId")
        if values.pop("preview", False):
            values.pop("rate", None)
            return Response({"total": preview_replay(webhook=self.webhook, **values)})
        replay = start_replay(webhook=self.webhook, actor=self.actor, **values)
        return Response(replay_shape(replay), status=201)


class ReplaysView(OneWebhook):
    """The replays of a webhook."""

    scopes = {"GET": READ}
    paged = True

    @documented(
        "List a webhook's replays, newest first",
        scope=READ,
        answer=listed(ReplayShape),
        tag=TAG,
        paged=True,
        problems=[404],
        example={"next": None, "previous": None, "results": [EXAMPLE]},
        operation_id="listReplays",
    )
    def get(self, request: Request, pk: str) -> Response:
        rows = Replay.objects.filter(organisation=self.organisation, webhook=self.webhook)
        return Response(page(rows, request, replay_shape))


class OneReplay(ApiView):
    """Base of the views of one replay."""

    replay: Replay

    def find(self, **kwargs: Any) -> None:
        rows = Replay.objects.filter(organisation=self.organisation)
        self.replay = find_or_404(rows, kwargs["pk"], "replay")
        self.replay.organisation = self.organisation


class ReplayView(OneReplay):
    """One replay."""

    scopes = {"GET": READ}

    @documented(
        "Read a replay",
        scope=READ,
        answer=ReplayShape,
        tag=TAG,
        problems=[404],
        description="Ask again to see how far it has come.",
        example=EXAMPLE,
        operation_id="readReplay",
    )
    def get(self, request: Request, pk: str) -> Response:
        return Response(replay_shape(self.replay))


def switch(verb: Callable[..., Replay], word: str, description: str, **shown: str) -> type[OneReplay]:
    """A view that moves a replay from one state to another. `shown` is what its example has besides."""

    class SwitchReplayView(OneReplay):
        scopes = {"POST": WRITE}

        @documented(
            f"{word.capitalize()} a replay",
            scope=WRITE,
            answer=ReplayShape,
            tag=TAG,
            post=True,
            problems=[404],
            description=description,
            example={**EXAMPLE, **shown},
            operation_id=f"{word}Replay",
        )
        def post(self, request: Request, pk: str) -> Response:
            self.read(Nothing)
            return Response(replay_shape(verb(replay=self.replay, actor=self.actor)))

    SwitchReplayView.__name__ = f"{word.capitalize()}ReplayView"
    SwitchReplayView.__doc__ = description
    return SwitchReplayView


PauseReplayView = switch(pause_replay, "pause", "It makes no more deliveries until it is resumed.", state="paused")
ResumeReplayView = switch(resume_replay, "resume", "It goes on where it was paused.")
CancelReplayView = switch(
    cancel_replay,
    "cancel",
    "It makes no more deliveries; those that it has made are sent.",
    state="cancelled",
    finishedAt="2026-02-01T09:05:07.120Z",
)
