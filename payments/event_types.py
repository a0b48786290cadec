"""The event type that payments add to the catalogue."""

from django.utils.translation import gettext_lazy as _

from conversations.events import EventType, register

register(
    EventType(
        "payment",
        "payment",
        _("Payment"),
        _("A contact's payment succeeded."),
        ("paymentId", "reference", "amount", "currency", "statusCode"),
        {
            "paymentId": "5113",
            "reference": "INV-2041",
            "amount": "120.50",
            "currency": "EUR",
            "statusCode": "paid",
        },
    )
)
