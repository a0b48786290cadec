"""The contact's part, played through the API."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from core.text import BODY_MAX
from gateways.sandbox.actions import play_inbound
from organisations.api.docs import documented
from organisations.api.fields import Body, Id, Text
from organisations.api.views import ApiView

SCOPE = "sandbox:write"


class PlayInbound(Body):
    """What a contact writes to a sandbox channel."""

    channelId = Id()
    outboundChannelAddress = Text(minimum=1)
    body = Text(minimum=1, maximum=BODY_MAX)


class PlayedShape(serializers.Serializer[Any]):
    """Where the contact's message went."""

    conversationId = serializers.CharField()
    communicationActionId = serializers.CharField()


class InboundView(ApiView):
    """Inbound messages of sandbox channels."""

    scopes = {"POST": SCOPE}

    @documented(
        "Play a contact's message",
        scope=SCOPE,
        answer=PlayedShape,
        status=201,
        body=PlayInbound,
        tag="Sandbox",
        post=True,
        description="Only for channels of the type `sandbox`.",
        example={"conversationId": "97847", "communicationActionId": "220861"},
        request_example={"channelId": "3", "outboundChannelAddress": "447717472695", "body": "yes"},
        operation_id="playInbound",
    )
    def post(self, request: Request) -> Response:
        values = self.read(PlayInbound)
        message = play_inbound(
            organisation=self.organisation,
            channel_id=values["channelId"],
            address=values["outboundChannelAddress"],
            body=values["body"],
        )
        shape = {"conversationId": str(message.conversation_id), "communicationActionId": str(message.pk)}
        return Response(shape, status=201)
