"""Bodies that calls on webhooks take, and the shapes they answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from organisations.api.fields import Body, Flag, Json, Names, Strings, Text
from webhooks import actions, endpoint_auth
from webhooks.models import Delivery, Webhook


def _strings(kind: str, *names: str, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of an object with strings."""
    text = {"type": "string", "minLength": 1, "maxLength": endpoint_auth.TEXT_MAX}
    properties = {"type": {"type": "string", "enum": [kind]}, **dict.fromkeys((*names, *optional), text)}
    return {
        "type": "object",
        "properties": properties,
        "required": ["type", *names],
        "additionalProperties": False,
    }


@extend_schema_field(
    {
        "oneOf": [
            _strings("basic", "username", "password"),
            _strings("bearer", "token"),
            _strings("oauth2", "tokenUrl", "clientId", "clientSecret", optional=("scope",)),
        ]
    }
)
class Authentication(Json):
    """How requests to the endpoint say who asks, null for nothing but the signature."""


@extend_schema_field(
    {
        "type": "object",
        "properties": {
            "limit": {"type": "integer", "minimum": 1, "maximum": actions.RATE_MAX},
            "per": {"type": "string", "enum": list(actions.RATE_SECONDS)},
        },
        "required": ["limit", "per"],
        "additionalProperties": False,
    }
)
class RateLimit(Json):
    """How many requests a second or minute the endpoint takes, null for no limit."""


@extend_schema_field(
    {
        "type": "array",
        "items": {"type": "integer", "minimum": 1, "maximum": actions.RETRY_DELAY_MAX},
        "minItems": 1,
        "maxItems": actions.RETRIES_MAX,
    }
)
class RetryDelays(Json):
    """Seconds to wait after each failed attempt, null for the platform's schedule."""


@extend_schema_field({"type": "string", "maxLength": endpoint_auth.CERTIFICATE_MAX})
class Certificate(Json):
    """PEM of a client certificate and its private key, null for none."""


class CreateWebhook(Body):
    """POST /webhooks."""

    name = Text(minimum=1)
    callbackUrl = Text(minimum=1, maximum=2000)
    events = Names(required=False)
    customValues = Flag(required=False)
    format = Text(required=False)
    ordering = Text(required=False)
    headers = Strings(required=False)
    authentication = Authentication(required=False)
    clientCertificate = Certificate(required=False)
    retryDelays = RetryDelays(required=False)
    rateLimit = RateLimit(required=False)
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
    authentication = Authentication(required=False)
    clientCertificate = Certificate(required=False)
    retryDelays = RetryDelays(required=False)
    rateLimit = RateLimit(required=False)
    state = Text(required=False)


class RotateSecret(Body):
    """POST /webhooks/{id}/secret: without `secret` one is made."""

    secret = Text(required=False)
    endOverlap = Flag(required=False, help_text="true: the secret before the present one may stop signing now.")


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
    stateReason = serializers.CharField(
        help_text="Why it is not active: user, staff, gone (the endpoint answered 410) or failing (it failed for "
        "days); empty when it is active."
    )
    failingSince = serializers.DateTimeField(
        allow_null=True, help_text="The first failed attempt since the last success; null when the last one succeeded."
    )
    breakerUntil = serializers.DateTimeField(
        allow_null=True,
        help_text="Nothing is sent until then, because the endpoint keeps failing; null when that is not so.",
    )
    authentication = serializers.DictField(
        child=serializers.CharField(), allow_null=True, help_text="Without its secrets."
    )
    clientCertificate = serializers.BooleanField(help_text="Whether there is one.")
    retryDelays = RetryDelays()
    rateLimit = RateLimit()
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
