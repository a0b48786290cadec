"""Many transcripts: the conversations of a period, in the order in which they started."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Q

from conversations.models import Conversation
from conversations.transcripts.source import Transcript, read_together
from organisations.models import Organisation

#: Conversations read at once.
CHUNK = 50


def transcripts_of(
    *,
    organisation: Organisation,
    start: datetime,
    end: datetime,
    notes: bool = False,
    state: str | None = None,
    channel_id: int | None = None,
    queue_id: int | None = None,
    status_id: int | None = None,
    customer_uid: str | None = None,
    address: str | None = None,
) -> Iterator[Transcript]:
    """Transcripts of the organisation's conversations that started from `start` until before `end`."""
    rows = Conversation.objects.filter(organisation=organisation, created_at__gte=start, created_at__lt=end)
    given = {
        "state": state,
        "channel_id": channel_id,
        "queue_id": queue_id,
        "status_id": status_id,
        "customer_uid": customer_uid,
        "contact__address": address,
    }
    rows = rows.filter(**{name: value for name, value in given.items() if value is not None})
    rows = rows.with_names().order_by("created_at", "id")
    page = rows
    while True:
        chunk = list(page[:CHUNK])
        for conversation in chunk:
            conversation.organisation = organisation
        found = [Transcript(conversation, notes=notes) for conversation in chunk]
        read_together(found)
        yield from found
        if len(chunk) < CHUNK:
            return
        last = chunk[-1]
        page = rows.filter(Q(created_at__gt=last.created_at) | Q(created_at=last.created_at, id__gt=last.pk))
