"""Bodies and shapes of payments."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.wire import moment
from organisations.api.fields import Amount, Body, Id, Text
from payments.models import Payment


class RecordPayment(Body):
    """A payment that succeeded."""

    conversationId = Id()
    amount = Amount()
    currency = Text(minimum=1, help_text="ISO 4217, such as EUR.")
    reference = Text(required=False, default="")


class PaymentShape(serializers.Serializer[Any]):
    """A payment on the wire."""

    id = serializers.CharField()
    conversationId = serializers.CharField()
    amount = serializers.CharField(help_text="Two decimals, such as 120.50.")
    currency = serializers.CharField()
    reference = serializers.CharField(allow_blank=True)
    createdAt = serializers.DateTimeField()


def payment_shape(payment: Payment) -> dict[str, Any]:
    """A payment on the wire."""
    return {
        "id": str(payment.pk),
        "conversationId": str(payment.conversation_id),
        "amount": f"{payment.amount:.2f}",
        "currency": payment.currency,
        "reference": payment.reference,
        "createdAt": moment(payment.created_at),
    }
