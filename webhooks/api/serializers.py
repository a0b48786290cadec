"""Bodies that calls on webhooks take, and the shapes they answer."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from organisations.api.fields import Body, Flag, Names, Strings, Text
from webhooks.models import Delivery, Webhook


class CreateWebhook(Body):
    """POST /webhooks."""

    name = Text(minimum=1)
    callbackUrl = Text(minimum=1, maximum=2000)
    events = Names(required=False)
    customValues = Flag(required=False)
    format = Text(required=False)
    ordering = Text(required=False)
    headers = Strings(required=False)
    secret = Text(required=False)


class UpdateWebhook(Body):
    """PATCH /webhooks/{id}. `state` "paused" holds deliveries, "active" lets them go, "disabled" switches off."""

    name = Text(minimum=1, required=False)
    callbackUrl = Text(minimum=1, maximum=2000, required=False)
    events = Names(required=False)
    customValues = Flag(required=False)
    format = Text(required=False)
    ordering = Text(required=False)
    headers = Strings(required=False)
    state = Text(required=False)


class RotateSecret(Body):
    """POST /webhooks/{id}/secret: without `secret` one is made."""

    secret = Text(required=False)


class TryWebhook(Body):
    """POST /webhooks/{id}/test."""

    event = Text(minimum=1)
    fields = Names(required=False)  # type: ignore[assignment]


class WebhookShape(serializers.Serializer[Any]):
    """A webhook. `secret` only in the answer that creates or rotates it."""

    id = serializers.CharField()
    name = serializers.CharField()
    callbackUrl = serializers.CharField()
    events = serializers.ListField(child=serializers.CharField())
    customValues = serializers.BooleanField()
    format = serializers.ChoiceField(Webhook.Format.values)
    ordering = serializers.ChoiceField(Webhook.Ordering.values)
    state = serializers.ChoiceField(Webhook.State.choices)
    stateReason = serializers.CharField()
    createdAt = serializers.DateTimeField()
    secret = serializers.CharField(required=False)


class TryShape(serializers.Serializer[Any]):
    """What an endpoint answered to a test."""

    statusCode = serializers.IntegerField(allow_null=True)
    durationMs = serializers.IntegerField()
    requestUrl = serializers.CharField(required=False)
    requestBody = serializers.CharField(required=False)
    responseHeaders = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    responseBody = serializers.CharField()
    error = serializers.CharField()
    errorDetail = serializers.CharField()
    values = serializers.DictField(child=serializers.CharField(), required=False)
    missing = serializers.ListField(child=serializers.CharField(), required=False)


class AttemptShape(serializers.Serializer[Any]):
    """One HTTP request of a delivery."""

    attemptedAt = serializers.DateTimeField()
    statusCode = serializers.IntegerField(allow_null=True)
    durationMs = serializers.IntegerField()
    error = serializers.CharField()


class DeliveryShape(serializers.Serializer[Any]):
    """A delivery with its attempts."""

    id = serializers.CharField()
    webhookId = serializers.CharField()
    eventId = serializers.CharField()
    type = serializers.CharField()
    conversationId = serializers.CharField(allow_null=True)
    kind = serializers.ChoiceField(Delivery.Kind.values)
    state = serializers.ChoiceField(Delivery.State.choices)
    nextAttemptAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()
    attempts = AttemptShape(many=True)


class EventShape(serializers.Serializer[Any]):
    """An event in the standard format."""

    id = serializers.CharField()
    type = serializers.CharField()
    timestamp = serializers.DateTimeField()
    data = serializers.DictField()  # type: ignore[assignment]


class EventsShape(serializers.Serializer[Any]):
    """Events after a cursor. Ask again with `after` = `next`; `more` says whether there are more already."""

    next = serializers.CharField(help_text="The cursor behind the last event given; stays valid for ever.")
    more = serializers.BooleanField()
    results = EventShape(many=True)
