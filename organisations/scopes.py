"""What an API key may do: one scope per resource and verb."""

from __future__ import annotations

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

SCOPES: dict[str, str | Promise] = {
    "conversations:read": _("List and read conversations"),
    "conversations:write": _("Start conversations, set status and queue, assign, close, reopen"),
    "messages:read": _("List messages"),
    "messages:write": _("Send messages"),
    "transcripts:read": _("Read transcripts"),
    "notes:read": _("Include internal notes in transcripts"),
    "webhooks:read": _("List webhooks"),
    "webhooks:write": _("Add, change, test and delete webhooks"),
    "deliveries:read": _("Read the delivery log"),
    "deliveries:write": _("Resend deliveries"),
    "events:read": _("Pull events"),
    "channels:read": _("List channels"),
    "channels:write": _("Add and change channels"),
    "queues:read": _("List queues"),
    "queues:write": _("Add and change queues"),
    "statuses:read": _("List statuses"),
    "statuses:write": _("Add and change statuses"),
    "contacts:read": _("List contacts"),
    "contacts:write": _("Add and change contacts"),
    "payments:read": _("List payments"),
    "payments:write": _("Record payments"),
    "token:write": _("Generate the x-webio-token"),
    "sandbox:write": _("Play a contact's part on sandbox channels"),
}
