"""What people and keys leave behind: answers of idempotent calls, spent invitations, old sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib.sessions.models import Session
from django.db.models import Q, QuerySet

from core.retention import Policy, register
from organisations.models import IdempotencyKey, Invitation

#: How long an invitation that was accepted, revoked or has expired can still be looked up.
INVITATIONS_KEPT = timedelta(days=30)


def idempotency_keys(moment: datetime) -> Iterator[QuerySet[Any]]:
    """Answers past their 24 hours."""
    yield IdempotencyKey.objects.filter(expires_at__lt=moment)


def invitations(moment: datetime) -> Iterator[QuerySet[Any]]:
    """Invitations that nobody can use any more."""
    before = moment - INVITATIONS_KEPT
    yield Invitation.objects.filter(Q(accepted_at__lt=before) | Q(revoked_at__lt=before) | Q(expires_at__lt=before))


def sessions(moment: datetime) -> Iterator[QuerySet[Any]]:
    """Sessions that have expired."""
    yield Session.objects.filter(expire_date__lt=moment)


register(Policy("idempotencyKeys", idempotency_keys, ("expires_at", "pk")))
register(Policy("invitations", invitations))
register(Policy("sessions", sessions, ("expire_date", "pk")))
