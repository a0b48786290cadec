"""Webhooks, their deliveries, and the same events by pull."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Prefetch
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.events import EVENT_TYPES
from conversations.wire import identifier, moment
from core.errors import Invalid
from organisations.api.docs import documented, listed
from organisations.api.fields import Nothing
from organisations.api.paging import page
from organisations.api.views import ApiView, empty, find_or_404
from webhooks import actions
from webhooks.api import examples
from webhooks.api.serializers import (
    CreateWebhook,
    DeliveryShape,
    RotateSecret,
    TryShape,
    TryWebhook,
    UpdateWebhook,
    WebhookShape,
)
from webhooks.endpoint_auth import shown
from webhooks.incidents import breaker_open
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.outstanding import in_state
from webhooks.testing import CUSTOM_VALUE, try_webhook

READ = "webhooks:read"
WRITE = "webhooks:write"
TAG = "Webhooks"
#: Wire name → argument of the verbs, where they differ.
NAMES = {wire: name for name, wire in actions.WIRE_NAMES.items()}


def webhook_shape(webhook: Webhook) -> dict[str, Any]:
    """A webhook on the wire, without its secret."""
    return {
        "id": str(webhook.pk),
        "name": webhook.name,
        "callbackUrl": webhook.callback_url,
        "events": actions.events_of(webhook),
        "customValues": webhook.custom_values,
        "format": webhook.format,
        "ordering": webhook.ordering,
        "state": webhook.state,
        "stateReason": webhook.state_reason,
        "failingSince": moment(webhook.failing_since) if webhook.failing_since else None,
        "breakerUntil": moment(webhook.breaker_until) if webhook.breaker_until and breaker_open(webhook) else None,
        "authentication": shown(webhook),
        "clientCertificate": bool(webhook.client_certificate),
        "retryDelays": webhook.retry_delays,
        "rateLimit": actions.rate_of(webhook),
        "createdAt": moment(webhook.created_at),
    }


def delivery_shape(delivery: Delivery) -> dict[str, Any]:
    """A delivery on the wire; its attempts are prefetched."""
    return {
        "id": str(delivery.pk),
        "webhookId": str(delivery.webhook_id),
        "eventId": str(delivery.event_id),
        "type": delivery.event_type,
        "conversationId": identifier(delivery.conversation_id),
        "kind": delivery.kind,
        "state": delivery.state,
        "nextAttemptAt": moment(delivery.next_attempt_at) if delivery.next_attempt_at else None,
        "createdAt": moment(delivery.created_at),
        "attempts": [
            {
                "attemptedAt": moment(attempt.attempted_at),
                "statusCode": attempt.status_code,
                "durationMs": attempt.duration_ms,
                "error": attempt.error,
            }
            for attempt in delivery.attempts.all()
        ],
    }


def arguments(values: dict[str, Any]) -> dict[str, Any]:
    """A body's values by the verbs' names."""
    return {NAMES.get(name, name): value for name, value in values.items()}


class WebhooksView(ApiView):
    """The organisation's webhooks."""

    scopes = {"GET": READ, "POST": WRITE}
    paged = True

    @documented(
        "List webhooks",
        scope=READ,
        answer=listed(WebhookShape),
        tag=TAG,
        paged=True,
        example={"next": None, "previous": None, "results": [examples.WEBHOOK]},
        operation_id="listWebhooks",
    )
    def get(self, request: Request) -> Response:
        rows = Webhook.objects.filter(organisation=self.organisation, archived_at=None)
        return Response(page(rows.prefetch_related("subscriptions"), request, webhook_shape, newest_first=False))

    @documented(
        "Add a webhook",
        scope=WRITE,
        answer=WebhookShape,
        status=201,
        body=CreateWebhook,
        tag=TAG,
        post=True,
        description="The answer holds the signing secret, which is not shown again.",
        example={**examples.WEBHOOK, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
        request_example=examples.CREATE,
        operation_id="createWebhook",
    )
    def post(self, request: Request) -> Response:
        values = {"events": [], **arguments(self.read(CreateWebhook))}
        webhook, secret = actions.create_webhook(organisation=self.organisation, actor=self.actor, **values)
        return Response({**webhook_shape(webhook), "secret": secret}, status=201)


class OneWebhook(ApiView):
    """Base of the views of one webhook."""

    webhook: Webhook

    def find(self, **kwargs: Any) -> None:
        rows = Webhook.objects.filter(organisation=self.organisation, archived_at=None)
        self.webhook = find_or_404(rows, kwargs["pk"], "webhook")
        self.webhook.organisation = self.organisation


class WebhookView(OneWebhook):
    """One webhook."""

    scopes = {"GET": READ, "PATCH": WRITE, "DELETE": WRITE}

    @documented(
        "Read a webhook",
        scope=READ,
        answer=WebhookShape,
        tag=TAG,
        problems=[404],
        example=examples.WEBHOOK,
        operation_id="readWebhook",
    )
    def get(self, request: Request, pk: str) -> Response:
        return Response(webhook_shape(self.webhook))

    @documented(
        "Change a webhook",
        scope=WRITE,
        answer=WebhookShape,
        body=UpdateWebhook,
        tag=TAG,
        problems=[404, 409],
        description='`state` "paused" holds deliveries and "active" lets them go again; "disabled" switches it off. '
        "With another scheme, host or port in `callbackUrl`, stored secrets (`authentication`, `headers`, "
        "`clientCertificate`) have to be given again in the same call, or taken away.",
        example=examples.WEBHOOK,
        request_example={"state": "paused"},
        operation_id="updateWebhook",
    )
    def patch(self, request: Request, pk: str) -> Response:
        values = self.read(UpdateWebhook, partial=True)
        state = values.pop("state", None)
        if state is not None and state not in STATE_VERBS:
            raise Invalid.field("state", _("Must be one of: %(states)s.") % {"states": ", ".join(STATE_VERBS)})
        # A refusal of the state undoes the rest of the change.
        with transaction.atomic():
            if values:
                actions.update_webhook(webhook=self.webhook, actor=self.actor, **arguments(values))
            if state is not None:
                STATE_VERBS[state](webhook=self.webhook, actor=self.actor)
        return Response(webhook_shape(self.webhook))

    @documented(
        "Delete a webhook",
        scope=WRITE,
        status=204,
        tag=TAG,
        problems=[404, 409],
        description="Its log stays readable by staff; what was still to be sent is cancelled.",
        operation_id="deleteWebhook",
    )
    def delete(self, request: Request, pk: str) -> Response:
        actions.archive_webhook(webhook=self.webhook, actor=self.actor)
        return empty()


STATE_VERBS: dict[str, Any] = {
    "active": actions.enable_webhook,
    "paused": actions.pause_webhook,
    "disabled": actions.disable_webhook,
}


class SecretView(OneWebhook):
    """The signing secret of a webhook."""

    scopes = {"POST": WRITE}

    @documented(
        "Rotate a webhook's secret",
        scope=WRITE,
        answer=WebhookShape,
        body=RotateSecret,
        tag=TAG,
        post=True,
        problems=[404, 409],
        description="For 24 hours the old secret signs beside the new one. While it does, a further rotation is "
        "refused with 409 `secret_overlap`, unless `endOverlap` is true: then the oldest secret stops signing at once.",
        example={**examples.WEBHOOK, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"},
        request_example={},
        operation_id="rotateWebhookSecret",
    )
    def post(self, request: Request, pk: str) -> Response:
        values = self.read(RotateSecret)
        webhook, secret = actions.rotate_secret(
            webhook=self.webhook,
            actor=self.actor,
            secret=values.get("secret"),
            end_overlap=values.get("endOverlap", False),
        )
        return Response({**webhook_shape(webhook), "secret": secret})


class TryView(OneWebhook):
    """Tests of a webhook."""

    scopes = {"POST": WRITE}
    talks_to_others = True

    @documented(
        "Test a webhook",
        scope=WRITE,
        answer=TryShape,
        body=TryWebhook,
        tag=TAG,
        post=True,
        problems=[404],
        description="Sends a real request at once and answers what came back. `event` is a subscription name, or "
        "`customValue` with the `fields` to ask for.",
        example=examples.TRY,
        request_example={"event": "inboundMessage"},
        operation_id="testWebhook",
    )
    def post(self, request: Request, pk: str) -> Response:
        values = self.read(TryWebhook)
        if "fields" in values and values["event"] != CUSTOM_VALUE:
            raise Invalid.field("fields", _("Only a customValue test takes fields."))
        result = try_webhook(webhook=self.webhook, actor=self.actor, event=values["event"], fields=values.get("fields"))
        answer: dict[str, Any] = {
            "statusCode": result.status_code,
            "durationMs": result.duration_ms,
            "responseHeaders": [list(pair) for pair in result.response_headers],
            "responseBody": result.response_body,
            "error": result.error,
            "errorDetail": result.error_detail,
        }
        if values["event"] == CUSTOM_VALUE:
            answer |= {"requestUrl": result.request_url, "values": result.values, "missing": list(result.missing)}
        else:
            answer["requestBody"] = result.request_body
        return Response(answer)


class DeliveriesView(OneWebhook):
    """The delivery log of a webhook."""

    scopes = {"GET": "deliveries:read"}
    parameters = ("state", "type", "conversationId")
    paged = True

    @documented(
        "List a webhook's deliveries, newest first",
        scope="deliveries:read",
        answer=listed(DeliveryShape),
        tag="Deliveries",
        paged=True,
        problems=[404],
        parameters={
            "state": "pending, delivered, failed, held or cancelled",
            "type": "a subscription name",
            "conversationId": "of this conversation",
        },
        example={"next": None, "previous": None, "results": [examples.DELIVERY]},
        operation_id="listDeliveries",
    )
    def get(self, request: Request, pk: str) -> Response:
        rows = with_attempts(self.organisation).filter(webhook=self.webhook)
        state = request.query_params.get("state")
        if state is not None:
            if state not in Delivery.State.values:
                states = ", ".join(Delivery.State.values)
                raise Invalid.field("state", _("Must be one of: %(states)s.") % {"states": states})
            rows = rows.filter(in_state(state, self.webhook.pk))
        kind = request.query_params.get("type")
        if kind is not None:
            if kind not in EVENT_TYPES:
                raise Invalid.field("type", _("Must be one of: %(types)s.") % {"types": ", ".join(EVENT_TYPES)})
            rows = rows.filter(event_type=kind)
        conversation = self.id_parameter("conversationId")
        if conversation is not None:
            rows = rows.filter(conversation_id=conversation)
        return Response(page(rows, request, delivery_shape))


def with_attempts(organisation: Any) -> Any:
    """The organisation's deliveries with their attempts, oldest attempt first."""
    attempts = Attempt.objects.order_by("id").only("delivery_id", "attempted_at", "status_code", "duration_ms", "error")
    rows = Delivery.objects.filter(organisation=organisation).select_related("outstanding")
    return rows.prefetch_related(Prefetch("attempts", attempts))


class OneDelivery(ApiView):
    """Base of the views of one delivery."""

    delivery: Delivery

    def find(self, **kwargs: Any) -> None:
        rows = with_attempts(self.organisation).select_related("webhook")
        self.delivery = find_or_404(rows, kwargs["pk"], "delivery")
        self.delivery.webhook.organisation = self.organisation


class DeliveryView(OneDelivery):
    """One delivery."""

    scopes = {"GET": "deliveries:read"}

    @documented(
        "Read a delivery",
        scope="deliveries:read",
        answer=DeliveryShape,
        tag="Deliveries",
        problems=[404],
        example=examples.DELIVERY,
        operation_id="readDelivery",
    )
    def get(self, request: Request, pk: str) -> Response:
        return Response(delivery_shape(self.delivery))


class ResendView(OneDelivery):
    """Sending a delivery again."""

    scopes = {"POST": "deliveries:write"}

    @documented(
        "Resend a delivery",
        scope="deliveries:write",
        answer=DeliveryShape,
        status=201,
        tag="Deliveries",
        post=True,
        problems=[404],
        description="Makes a new delivery of the same event with the same `webhook-id` and body.",
        example={**examples.DELIVERY, "id": "9912", "kind": "resend", "state": "pending", "attempts": []},
        operation_id="resendDelivery",
    )
    def post(self, request: Request, pk: str) -> Response:
        self.read(Nothing)
        made = actions.resend_delivery(delivery=self.delivery, actor=self.actor)
        return Response(delivery_shape(made), status=201)
