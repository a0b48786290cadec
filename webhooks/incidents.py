"""Webhooks that somebody should look at: what is wrong, since when, until when, how much waits, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db.models import Count, Q
from django.utils.translation import gettext_lazy as _

from core.clock import now
from webhooks.models import Outstanding, Webhook


class Kind(StrEnum):
    """What is wrong, the worst first."""

    DISABLED = "disabled"
    BREAKER = "breaker"
    FAILING = "failing"
    PAUSED = "paused"


#: Why a webhook is not active, by `Webhook.state_reason`.
REASONS = {
    "user": _("somebody in your organisation switched it off"),
    "gone": _("its endpoint answered 410 Gone"),
    "staff": _("our staff switched it off; ask support why"),
    "suspended": _("the organisation was suspended"),
    "failing": _("its endpoint failed for days without a single success"),
}
#: What to do about it.
ADVICE = {
    Kind.DISABLED: _("Mend the endpoint, send a test, then enable the webhook: what was held is sent."),
    Kind.BREAKER: _("Nothing is lost and no attempt is used up; a single request tries again after the pause."),
    Kind.FAILING: _("Look at what the endpoint answers. What failed is tried again by itself."),
    Kind.PAUSED: _("Resume the webhook when your system is ready: what was held is sent."),
}


@dataclass(frozen=True, slots=True)
class Incident:
    """One webhook in trouble. `until` is when an open breaker tries again; `held` is what waits for it to go on."""

    kind: Kind
    webhook: Webhook
    since: datetime
    until: datetime | None
    held: int

    @property
    def reason(self) -> Any:
        return REASONS.get(self.webhook.state_reason, "")

    @property
    def advice(self) -> Any:
        return ADVICE[self.kind]

    @property
    def bad(self) -> bool:
        """Whether something is wrong; a pause is somebody's wish."""
        return self.kind != Kind.PAUSED


def breaker_open(webhook: Webhook) -> bool:
    """Whether nothing is sent to an active webhook because its endpoint failed."""
    until = webhook.breaker_until
    return webhook.state == Webhook.State.ACTIVE and until is not None and until > now()


def kind_of(webhook: Webhook) -> Kind | None:
    """What is wrong with a webhook; None when it does well."""
    if webhook.state == Webhook.State.DISABLED:
        return Kind.DISABLED
    if webhook.state == Webhook.State.PAUSED:
        return Kind.PAUSED
    if breaker_open(webhook):
        return Kind.BREAKER
    return Kind.FAILING if webhook.failing_since else None


def in_trouble(kind: Kind) -> Q:
    """The condition that this is what `kind_of` says of a webhook that is not deleted."""
    there = Q(archived_at=None)
    if kind in (Kind.DISABLED, Kind.PAUSED):
        return there & Q(state=kind.value)
    broken = Q(breaker_until__gt=now())
    active = there & Q(state=Webhook.State.ACTIVE)
    return active & broken if kind == Kind.BREAKER else active & ~broken & Q(failing_since__isnull=False)


def incidents(webhooks: Iterable[Webhook]) -> list[Incident]:
    """The webhooks among these that need attention, the worst first, in one query for all of them."""
    found = [(kind, webhook) for webhook in webhooks if (kind := kind_of(webhook))]
    if not found:
        return []
    stopped = [webhook.pk for _kind, webhook in found if webhook.state != Webhook.State.ACTIVE]
    rows = Outstanding.objects.filter(webhook__in=stopped, next_attempt_at=None).order_by()
    held = dict(rows.values_list("webhook").annotate(count=Count("pk")))
    made = [_incident(kind, webhook, held.get(webhook.pk, 0)) for kind, webhook in found]
    return sorted(made, key=lambda one: (list(Kind).index(one.kind), one.since))


def _incident(kind: Kind, webhook: Webhook, held: int) -> Incident:
    stopped = webhook.state != Webhook.State.ACTIVE
    since = webhook.state_changed_at if stopped else webhook.failing_since or webhook.last_failure_at or now()
    return Incident(kind, webhook, since, webhook.breaker_until if kind == Kind.BREAKER else None, held)
