"""Payments that contacts made in a conversation."""

from __future__ import annotations

from decimal import Decimal

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from conversations.models import Conversation
from core.clock import now
from organisations.models import Organisation


class Payment(models.Model):
    """A payment that succeeded. Only successful ones are recorded; each is told once as a `payment` event."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="payments")
    conversation = models.ForeignKey(Conversation, on_delete=models.PROTECT, related_name="payments")
    amount = models.DecimalField(
        _("amount"), max_digits=14, decimal_places=2, validators=[MinValueValidator(Decimal("0.01"))]
    )
    #: ISO 4217, upper case.
    currency = models.CharField(_("currency"), max_length=3, validators=[RegexValidator(r"^[A-Z]{3}$")])
    reference = models.CharField(_("reference"), max_length=255, blank=True)
    actor_kind = models.CharField(_("recorded by kind"), max_length=16)
    actor_id = models.CharField(_("recorded by id"), max_length=64, blank=True)
    actor_label = models.CharField(_("recorded by"), max_length=255, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("payment")
        verbose_name_plural = _("payments")
        ordering = ["-id"]
        constraints = [models.CheckConstraint(condition=Q(amount__gt=0), name="payment_amount_positive")]
        indexes = [
            # API list, newest first.
            models.Index(fields=["organisation", "-id"], name="payment_by_organisation"),
        ]

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"
