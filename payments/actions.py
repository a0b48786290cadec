"""Verbs on payments."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction
from django.utils.translation import gettext as _

from conversations import events
from conversations.actions.locks import locked_conversation
from conversations.events import Change
from core.actors import Actor, acting_as
from core.errors import Invalid
from core.text import clean_text
from organisations.models import Organisation
from payments.currencies import CURRENCIES
from payments.models import Payment

AMOUNT_MAX = Decimal("999999999999.99")


def record_payment(
    *,
    organisation: Organisation,
    actor: Actor,
    conversation_id: int,
    amount: Decimal,
    currency: str,
    reference: str = "",
) -> Payment:
    """Record a payment that succeeded, and its `payment` event.

    Raises `NotFound` for the conversation; `Invalid` for an amount that is not positive or has more than two
    decimals, a currency that is not an ISO 4217 code, and a reference over 255 characters.
    """
    if not amount.is_finite() or amount <= 0 or amount > AMOUNT_MAX:
        raise Invalid.field("amount", _("Must be more than 0 and at most 999999999999.99."))
    if amount != amount.quantize(Decimal("0.01")):
        raise Invalid.field("amount", _("Must have at most two decimals."))
    if currency not in CURRENCIES:
        raise Invalid.field("currency", _("Must be an ISO 4217 code, such as EUR."))
    clean_text("reference", reference)
    with transaction.atomic(), acting_as(actor):
        conversation = locked_conversation(organisation, conversation_id)
        payment = Payment.objects.create(
            organisation=organisation,
            conversation=conversation,
            amount=amount,
            currency=currency,
            reference=reference,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_label=actor.label,
        )
        facts = {
            "paymentId": str(payment.pk),
            "reference": reference,
            "amount": f"{amount:.2f}",
            "currency": currency,
            "statusCode": "paid",
        }
        events.record(conversation, [Change("payment", facts)])
    return payment
