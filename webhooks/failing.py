"""Webhooks that the platform itself disables: their endpoint has failed for days, or says that it is gone.

How long it has failed is the time from the first failed attempt to the latest: who is not tried does not fail. The
organisation's owners are mailed: on the way, and when it has happened.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import F, Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _

from core.actors import SYSTEM
from organisations.models import Role, User
from webhooks.actions import disable_webhook
from webhooks.engine.breaker import FAILURES
from webhooks.models import Delivery, Webhook
from webhooks.payloads import local_time

#: Why the platform disables a webhook, in `Webhook.state_reason`.
FAILING, GONE = "failing", "gone"
#: How far on the way to being disabled owners are mailed, percent.
HALFWAY, NEARLY, DISABLED = STEPS = (50, 90, 100)

logger = logging.getLogger("webio.failing")


def check() -> int:
    """Mail owners of webhooks that have come a step further or are gone, and disable those that failed for too long.

    Returns how many of these. Runs regularly; can run twice and beside anything: each step is taken, and mailed, once.
    """
    limit = timedelta(days=settings.WEBHOOK_DISABLE_AFTER_DAYS)
    halfway = F("failing_since") + limit * HALFWAY / 100
    healed = Q(failing_since=None) | Q(last_failure_at__lt=halfway)
    # Even if they fail again since, they have everything before them.
    Webhook.objects.filter(healed, state=Webhook.State.ACTIVE, failing_told__gt=0).update(failing_told=0)
    # So many, since a clock that jumps may tell of days after two.
    failing = Q(state=Webhook.State.ACTIVE, last_failure_at__gte=halfway, consecutive_failures__gte=FAILURES)
    gone = Q(state=Webhook.State.DISABLED, state_reason=GONE)
    found = Webhook.objects.filter(
        failing | gone, archived_at=None, organisation__suspended_at=None, failing_told__lt=DISABLED
    )
    disabled = 0
    for webhook in list(found.select_related("organisation")):
        if webhook.state == Webhook.State.DISABLED:
            if _take(webhook, DISABLED):
                _mail(webhook, DISABLED, webhook.state_changed_at)
            continue
        assert webhook.failing_since is not None
        assert webhook.last_failure_at is not None
        failed_for = webhook.last_failure_at - webhook.failing_since
        step = max(step for step in STEPS if failed_for >= limit * step / 100)
        if _take(webhook, step):
            _mail(webhook, step, webhook.failing_since, webhook.failing_since + limit)
            disabled += step == DISABLED
    return disabled


def disable_gone(webhook_id: int) -> None:
    """The endpoint answered 410: disable its webhook, unless it is off already, in the caller's transaction.

    The caller has locked it. Owners are mailed by the next `check`: an engine waits for no mail server.
    """
    active = Webhook.objects.filter(pk=webhook_id, state=Webhook.State.ACTIVE, archived_at=None)
    for webhook in active.select_related("organisation"):
        disable_webhook(webhook=webhook, actor=SYSTEM, reason=GONE)


def _take(webhook: Webhook, step: int) -> bool:
    """Note a step, and disable a webhook that fails at the last. Whether it was this call that did so."""
    with transaction.atomic():
        same = Webhook.objects.filter(
            pk=webhook.pk,
            state=webhook.state,
            state_changed_at=webhook.state_changed_at,
            archived_at=None,
            failing_since=webhook.failing_since,
            failing_told__lt=step,
        )
        if not same.update(failing_told=step):
            return False
        if step == DISABLED and webhook.state == Webhook.State.ACTIVE:
            disable_webhook(webhook=webhook, actor=SYSTEM, reason=FAILING)
    return True


def _mail(webhook: Webhook, step: int, since: datetime, until: datetime | None = None) -> None:
    """After the commit, to each owner alone. A mail that cannot be sent changes nothing."""
    organisation = webhook.organisation
    path = reverse("integrations:webhook", args=[organisation.slug, webhook.pk])
    tried = Delivery.objects.filter(webhook=webhook, attempt_count__gt=0).exclude(state=Delivery.State.DELIVERED)
    context = {
        "webhook": webhook,
        "disabled": step == DISABLED,
        "gone": webhook.state_reason == GONE,
        "since": _told(since, organisation.time_zone),
        "until": _told(until, organisation.time_zone) if until else "",
        # A query may hold a key.
        "url": webhook.callback_url.partition("?")[0],
        "last": tried.order_by("-pk").first(),
        "link": settings.PUBLIC_URL.rstrip("/") + path,
    }
    title = _("Webhook disabled: %(name)s") if step == DISABLED else _("Webhook failing: %(name)s")
    # A line break would start a new header.
    subject = " ".join((title % {"name": webhook.name}).split())
    text = render_to_string("webhooks/failing_mail.txt", context)
    owners = User.objects.filter(
        memberships__organisation=organisation,
        memberships__role=Role.OWNER,
        memberships__archived_at=None,
        is_active=True,
    )
    for address in owners.values_list("email", flat=True):
        try:
            send_mail(subject, text, None, [address])
        except OSError:  # Every failure of smtplib and of the network is one.
            logger.exception("A mail about failing webhook %d could not be sent.", webhook.pk)


def _told(moment: datetime, zone: str) -> str:
    """To the minute."""
    return f"{local_time(moment, zone)[:16]} ({zone})"
