"""Payments."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from core.errors import Invalid, NotFound
from organisations.api.docs import documented, listed
from organisations.api.paging import page
from organisations.api.views import ApiView, find_or_404
from payments.actions import record_payment
from payments.api.serializers import PaymentShape, RecordPayment, payment_shape
from payments.models import Payment

READ = "payments:read"
WRITE = "payments:write"
TAG = "Payments"
REQUEST = {"conversationId": "97847", "amount": "120.50", "currency": "EUR", "reference": "INV-2041"}
EXAMPLE = {"id": "5113", **REQUEST, "createdAt": "2026-01-31T09:05:00.000Z"}


class PaymentsView(ApiView):
    """The organisation's payments."""

    scopes = {"GET": READ, "POST": WRITE}
    parameters = ("conversationId",)
    paged = True

    @documented(
        "List payments, newest first",
        scope=READ,
        answer=listed(PaymentShape),
        tag=TAG,
        paged=True,
        parameters={"conversationId": "of this conversation"},
        example={"next": None, "previous": None, "results": [EXAMPLE]},
        operation_id="listPayments",
    )
    def get(self, request: Request) -> Response:
        rows = Payment.objects.filter(organisation=self.organisation)
        conversation_id = self.id_parameter("conversationId")
        if conversation_id is not None:
            rows = rows.filter(conversation_id=conversation_id)
        return Response(page(rows, request, payment_shape))

    @documented(
        "Record a payment that succeeded",
        scope=WRITE,
        answer=PaymentShape,
        status=201,
        body=RecordPayment,
        tag=TAG,
        post=True,
        example=EXAMPLE,
        request_example=REQUEST,
        operation_id="recordPayment",
    )
    def post(self, request: Request) -> Response:
        values = self.read(RecordPayment)
        try:
            payment = record_payment(
                organisation=self.organisation,
                actor=self.actor,
                conversation_id=values["conversationId"],
                amount=values["amount"],
                currency=values["currency"],
                reference=values["reference"],
            )
        except NotFound as error:
            # The conversation is named in the body, not in the path.
            raise Invalid.field("conversationId", error.detail, code="unknown_object") from error
        return Response(payment_shape(payment), status=201)


class PaymentView(ApiView):
    """One payment."""

    scopes = {"GET": READ}
    payment: Payment

    def find(self, **kwargs: Any) -> None:
        rows = Payment.objects.filter(organisation=self.organisation)
        self.payment = find_or_404(rows, kwargs["payment_id"], "payment")

    @documented(
        "Read a payment",
        scope=READ,
        answer=PaymentShape,
        tag=TAG,
        problems=[404],
        example=EXAMPLE,
        operation_id="readPayment",
    )
    def get(self, request: Request, payment_id: str) -> Response:
        return Response(payment_shape(self.payment))
