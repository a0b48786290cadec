"""What webhooks tell each other: the operational event of one that was disabled."""

from __future__ import annotations

from conversations.events import Change, announce
from webhooks.models import Webhook

DISABLED = "webhookDisabled"


def tell_disabled(webhook_id: int, reason: str) -> None:
    """Record that a webhook was disabled, in the caller's transaction. `reason` is its `state_reason`."""
    webhook = Webhook.objects.select_related("organisation").get(pk=webhook_id)
    facts = {
        "webhookId": str(webhook.pk),
        "webhookName": webhook.name,
        # A query may hold a key.
        "callbackUrl": webhook.callback_url.partition("?")[0],
        "reason": reason,
    }
    announce(webhook.organisation, Change(DISABLED, facts))
