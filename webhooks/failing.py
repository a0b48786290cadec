"""Webhooks whose endpoint has failed for days: their organisation's owners are told, in the end they are disabled."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Q
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _

from core.actors import SYSTEM
from core.clock import now
from organisations.models import Role, User
from webhooks.actions import disable_webhook
from webhooks.models import Delivery, Webhook
from webhooks.payloads import local_time

#: How far on the way to being disabled owners are mailed, percent.
HALFWAY, NEARLY, DISABLED = STEPS = (50, 90, 100)

logger = logging.getLogger("webio.failing")


def check() -> int:
    """Mail owners of webhooks that have come a step further, and disable those at the end. Returns how many of these.

    Runs regularly; can run twice and beside anything: each step is taken, and mailed, once.
    """
    moment = now()
    limit = timedelta(days=settings.WEBHOOK_DISABLE_AFTER_DAYS)
    halfway = moment - limit * HALFWAY / 100
    _start_over(halfway)
    failing = Webhook.objects.filter(
        state=Webhook.State.ACTIVE,
        archived_at=None,
        organisation__suspended_at=None,
        failing_since__lte=halfway,
        failing_told__lt=DISABLED,
    )
    disabled = 0
    for webhook in list(failing.select_related("organisation")):
        assert webhook.failing_since is not None
        step = max(step for step in STEPS if webhook.failing_since <= moment - limit * step / 100)
        if _take(webhook, step):
            _mail(webhook, step, webhook.failing_since + limit)
            disabled += step == DISABLED
    return disabled


def _start_over(halfway: datetime) -> None:
    """Webhooks that healed, even if they fail again since, have everything before them."""
    healed = Q(failing_since=None) | Q(failing_since__gt=halfway)
    Webhook.objects.filter(healed, failing_told__gt=0).update(failing_told=0)


def _take(webhook: Webhook, step: int) -> bool:
    """Note a step, and disable the webhook at the last. Whether it was this call that did so."""
    with transaction.atomic():
        same = Webhook.objects.filter(
            pk=webhook.pk,
            state=Webhook.State.ACTIVE,
            archived_at=None,
            failing_since=webhook.failing_since,
            failing_told__lt=step,
        )
        if not same.update(failing_told=step):
            return False
        if step == DISABLED:
            disable_webhook(webhook=webhook, actor=SYSTEM, reason="failing")
    return True


def _mail(webhook: Webhook, step: int, until: datetime) -> None:
    """After the commit, to each owner alone. A mail that cannot be sent changes nothing."""
    organisation = webhook.organisation
    assert webhook.failing_since is not None
    path = reverse("integrations:webhook", args=[organisation.slug, webhook.pk])
    tried = Delivery.objects.filter(webhook=webhook, attempt_count__gt=0).exclude(state=Delivery.State.DELIVERED)
    context = {
        "webhook": webhook,
        "disabled": step == DISABLED,
        "since": _told(webhook.failing_since, organisation.time_zone),
        "until": _told(until, organisation.time_zone),
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
