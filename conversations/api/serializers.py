"""Bodies that calls take, and the shapes that they answer (for OpenAPI; `conversations.wire` makes the answers)."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.models import Channel, Conversation, Message
from core.text import BODY_MAX
from organisations.api.fields import Body, Flag, Id, Strings, Text, Whole


class StartConversation(Body):
    """POST /conversations."""

    channelId = Id()
    outboundChannelAddress = Text(minimum=1)
    customerUID = Text(required=False)
    body = Text(minimum=1, maximum=BODY_MAX, required=False)
    queueId = Id(required=False, allow_null=True)
    statusId = Id(required=False, allow_null=True)
    fields = Strings(required=False)  # type: ignore[assignment]


class SendMessage(Body):
    """POST /conversations/{id}/messages."""

    body = Text(minimum=1, maximum=BODY_MAX)


class SetStatus(Body):
    """POST /conversations/{id}/status."""

    statusId = Id()


class MoveToQueue(Body):
    """POST /conversations/{id}/queue."""

    queueId = Id()


class Assign(Body):
    """POST /conversations/{id}/assignment: null unassigns."""

    userId = Id(allow_null=True)


class ConversationShape(serializers.Serializer[Any]):
    """A conversation."""

    conversationId = serializers.CharField()
    channelId = serializers.CharField()
    inboundChannelAddress = serializers.CharField()
    outboundChannelAddress = serializers.CharField()
    customerUID = serializers.CharField()
    state = serializers.ChoiceField(Conversation.State.choices)
    handledBy = serializers.ChoiceField(Conversation.Handler.values)
    queueId = serializers.CharField(allow_null=True)
    statusId = serializers.CharField(allow_null=True)
    assignedToId = serializers.CharField(allow_null=True)
    fields = serializers.DictField(child=serializers.CharField())  # type: ignore[assignment]
    createdAt = serializers.DateTimeField()
    updatedAt = serializers.DateTimeField()


class StartedShape(ConversationShape):
    """A conversation just started, with its first message's id when there was one."""

    communicationActionId = serializers.CharField(required=False)
    statusCode = serializers.CharField(required=False)


class MessageShape(serializers.Serializer[Any]):
    """A message."""

    communicationActionId = serializers.CharField()
    conversationId = serializers.CharField()
    direction = serializers.ChoiceField(Message.Direction.values)
    body = serializers.CharField()
    state = serializers.ChoiceField(Message.State.choices)
    statusCode = serializers.CharField()
    sentBy = serializers.CharField()
    createdAt = serializers.DateTimeField()


class ChannelShape(serializers.Serializer[Any]):
    """A channel."""

    id = serializers.CharField()
    type = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    address = serializers.CharField()
    inboundRule = serializers.ChoiceField(Channel.InboundRule.values)
    validityHours = serializers.IntegerField()


class CreateChannel(Body):
    """POST /channels."""

    type = Text(minimum=1)
    label = Text(minimum=1)  # type: ignore[assignment]
    address = Text(required=False)
    inboundRule = Text(required=False)
    validityHours = Whole(minimum=1, maximum=8760, required=False)


class UpdateChannel(Body):
    """PATCH /channels/{id}."""

    label = Text(minimum=1, required=False)  # type: ignore[assignment]
    address = Text(required=False)
    inboundRule = Text(required=False)
    validityHours = Whole(minimum=1, maximum=8760, required=False)


class QueueShape(serializers.Serializer[Any]):
    """A queue."""

    id = serializers.CharField()
    name = serializers.CharField()
    active = serializers.BooleanField()


class CreateQueue(Body):
    """POST /queues."""

    name = Text(minimum=1)
    active = Flag(required=False)


class UpdateQueue(Body):
    """PATCH /queues/{id}."""

    name = Text(minimum=1, required=False)
    active = Flag(required=False)


class StatusShape(serializers.Serializer[Any]):
    """A status."""

    id = serializers.CharField()
    name = serializers.CharField()


class WriteStatus(Body):
    """POST /statuses and PATCH /statuses/{id}."""

    name = Text(minimum=1)


class ContactShape(serializers.Serializer[Any]):
    """A contact."""

    id = serializers.CharField()
    address = serializers.CharField()
    customerUID = serializers.CharField()
    name = serializers.CharField()


class CreateContact(Body):
    """POST /contacts."""

    address = Text(minimum=1)
    customerUID = Text(required=False)
    name = Text(required=False)


class UpdateContact(Body):
    """PATCH /contacts/{id}."""

    customerUID = Text(required=False)
    name = Text(required=False)
