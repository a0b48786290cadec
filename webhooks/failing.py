"""Webhooks that the platform itself disables: their endpoint has failed for days, or says that it is gone.

How long it has failed is the time from the first failed attempt to the latest: who is not tried does not fail. The
organisation's owners are mailed: on the way, and when it has happened.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from smtplib import SMTPRecipientsRefused

from django.conf import settings
from django.core.mail import get_connection, send_mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _

from core import loops
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
#: No process mails for longer: it is the time that a task has.
MAILING = timedelta(minutes=1)

logger = logging.getLogger("webio.failing")


def check() -> int:
    """Disable webhooks that failed for too long; mail owners of those that have come a step further or are off.

    Returns how many were disabled. Runs regularly; can run twice and beside anything. A step is mailed once, but for a
    process that ends at it: then again. What no mail server takes is left to the next run.
    """
    limit = timedelta(days=settings.WEBHOOK_DISABLE_AFTER_DAYS)
    halfway = F("failing_since") + limit * HALFWAY / 100
    healed = Q(failing_since=None) | Q(last_failure_at__lt=halfway)
    # Even if they fail again since, they have everything before them.
    Webhook.objects.filter(healed, state=Webhook.State.ACTIVE, failing_told__gt=0).update(failing_told=0)
    # So many, since a clock that jumps may tell of days after two.
    failing = Q(state=Webhook.State.ACTIVE, last_failure_at__gte=halfway, consecutive_failures__gte=FAILURES)
    off = Q(state=Webhook.State.DISABLED, state_reason__in=[FAILING, GONE])
    found = Webhook.objects.filter(
        failing | off, archived_at=None, organisation__suspended_at=None, failing_told__lt=DISABLED
    )
    steps = [(webhook, _step(webhook, limit)) for webhook in found.select_related("organisation")]
    # Before any mail, whose server may keep us waiting.
    disabled = sum(_disable(webhook) for webhook, step in steps if step == DISABLED)
    # One that another run has disabled just now is that one's to tell of, or the next one's.
    done = [(webhook, step) for webhook, step in steps if step < DISABLED or webhook.state == Webhook.State.DISABLED]
    untold = [(webhook, step) for webhook, step in done if webhook.failing_told < step]
    if untold:
        _tell(untold, limit)
    return disabled


def disable_gone(webhook_id: int) -> None:
    """The endpoint answered 410: disable its webhook, unless it is off already, in the caller's transaction.

    The caller has locked it. Owners are mailed by the next `check`: an engine waits for no mail server.
    """
    active = Webhook.objects.filter(pk=webhook_id, state=Webhook.State.ACTIVE, archived_at=None)
    for webhook in active.select_related("organisation"):
        disable_webhook(webhook=webhook, actor=SYSTEM, reason=GONE)


def _step(webhook: Webhook, limit: timedelta) -> int:
    """How far one of those found has come."""
    if webhook.state == Webhook.State.DISABLED:
        return DISABLED
    assert webhook.failing_since is not None
    assert webhook.last_failure_at is not None
    failed_for = webhook.last_failure_at - webhook.failing_since
    return max(step for step in STEPS if failed_for >= limit * step / 100)


def _same(webhook: Webhook) -> QuerySet[Webhook]:
    """The webhook, unless it has been changed or healed since it was read, or its owners told more."""
    return Webhook.objects.filter(
        pk=webhook.pk,
        state=webhook.state,
        state_changed_at=webhook.state_changed_at,
        archived_at=None,
        failing_since=webhook.failing_since,
        failing_told=webhook.failing_told,
    )


def _disable(webhook: Webhook) -> bool:
    """Disable a webhook that is the same and not off yet. Whether it was this call that did so."""
    if webhook.state == Webhook.State.DISABLED:
        return False
    with transaction.atomic():
        if not _same(webhook).select_for_update(no_key=True):
            return False
        disable_webhook(webhook=webhook, actor=SYSTEM, reason=FAILING)
    return True


def _tell(untold: list[tuple[Webhook, int]], limit: timedelta) -> None:
    """Mail owners of these steps, and note those that they were told of."""
    with loops.alone("mails", MAILING) as alone:
        if not alone:
            return
        try:
            # One connection: a mail server that is down is asked once.
            with get_connection() as connection:
                for webhook, step in untold:
                    if _same(webhook).exists() and _mail(connection, webhook, step, limit):
                        told = Webhook.objects.filter(pk=webhook.pk, state_changed_at=webhook.state_changed_at)
                        told.update(failing_told=step)
        except OSError:
            logger.exception("No mail about failing webhooks can be sent now.")


def _mail(connection: BaseEmailBackend, webhook: Webhook, step: int, limit: timedelta) -> bool:
    """To each owner alone. Whether that need not be done again: one was mailed, or there is none."""
    organisation = webhook.organisation
    path = reverse("integrations:webhook", args=[organisation.slug, webhook.pk])
    tried = Delivery.objects.filter(webhook=webhook, attempt_count__gt=0).exclude(state=Delivery.State.DELIVERED)
    gone = webhook.state_reason == GONE
    since = (None if gone else webhook.failing_since) or webhook.state_changed_at
    context = {
        "webhook": webhook,
        "disabled": step == DISABLED,
        "gone": gone,
        "since": _told(since, organisation.time_zone),
        "until": _told(since + limit, organisation.time_zone),
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
    addresses = list(owners.values_list("email", flat=True))
    done = not addresses
    for address in addresses:
        try:
            done |= bool(send_mail(subject, text, None, [address], connection=connection))
        except OSError as problem:  # Every failure of smtplib and of the network is one.
            # An address that is refused for good is refused again.
            refusals = problem.recipients.values() if isinstance(problem, SMTPRecipientsRefused) else ()
            done |= any(code >= 500 for code, _reason in refusals)
            logger.exception("A mail about failing webhook %d could not be sent.", webhook.pk)
    return done


def _told(moment: datetime, zone: str) -> str:
    """To the minute."""
    return f"{local_time(moment, zone)[:16]} ({zone})"
