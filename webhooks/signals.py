"""What webhooks hear: that events were recorded, and that an organisation is no longer suspended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.dispatch import receiver

from conversations.events import recorded
from conversations.models import Event
from core.wakeup import wake
from organisations.actions import suspension_changed
from organisations.models import Organisation
from webhooks import outstanding
from webhooks.models import Outstanding, Webhook

LOOP = "deliveries"


@receiver(recorded, dispatch_uid="webhooks.wake_engine")
def wake_on_events(events: Sequence[Event], **_: Any) -> None:
    """New events wait to be dispatched."""
    for organisation_id in {event.organisation_id for event in events}:
        wake(LOOP, str(organisation_id))


@receiver(suspension_changed, dispatch_uid="webhooks.release_held")
def release_held(organisation: Organisation, **_: Any) -> None:
    """What was held only because the organisation was suspended is due now; how long webhooks fail is counted anew."""
    if not organisation.suspended:
        active = Webhook.objects.filter(organisation=organisation, state=Webhook.State.ACTIVE)
        failing = active.filter(failing_since__isnull=False)
        failing.update(failing_since=None, failing_told=0)
        outstanding.release_all(Outstanding.objects.filter(webhook__in=active.filter(archived_at=None)))
        wake_engine()


def wake_engine() -> None:
    """Wake the delivery engine when the current transaction has committed."""
    wake(LOOP)
