"""The event type that webhooks add to the catalogue."""

from django.utils.translation import gettext_lazy as _

from conversations.events import EventType, register
from webhooks.announcements import DISABLED

register(
    EventType(
        DISABLED,
        DISABLED,
        _("Webhook disabled"),
        _("Another webhook of yours was disabled: by somebody, or because its endpoint was gone or kept failing."),
        ("webhookId", "webhookName", "callbackUrl", "reason"),
        {
            "webhookId": "12",
            "webhookName": "Orders",
            "callbackUrl": "https://example.com/hooks/orders",
            "reason": "failing",
        },
        operational=True,
    )
)
