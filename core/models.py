"""Rows of the platform itself. Nothing here belongs to a tenant."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from core.clock import now


class Slot(models.Model):
    """A place for one run of a loop (`core.loops`). It limits how many run; correctness rests on row leases."""

    name = models.CharField(_("loop"), max_length=64)
    number = models.PositiveSmallIntegerField(_("number"))
    #: Random name of the run that holds it, "" for none.
    holder = models.CharField(_("holder"), max_length=32, blank=True)
    lease_until = models.DateTimeField(_("lease until"), default=now)
    #: A start has been queued; nobody queues another one before this moment.
    queued_until = models.DateTimeField(_("queued until"), default=now)

    class Meta:
        verbose_name = _("loop slot")
        verbose_name_plural = _("loop slots")
        ordering = ["name", "number"]
        constraints = [models.UniqueConstraint(fields=["name", "number"], name="slot_unique")]

    def __str__(self) -> str:
        return f"{self.name} {self.number}"

    @property
    def alive(self) -> bool:
        """Somebody holds it and has said so lately."""
        return bool(self.holder) and self.lease_until > now()


class Sequence(models.Model):
    """A counter without gaps. Whoever takes numbers holds the row until the end of the transaction."""

    name = models.CharField(_("name"), max_length=64, primary_key=True)
    value = models.BigIntegerField(_("value"), default=0)

    class Meta:
        verbose_name = _("sequence")
        verbose_name_plural = _("sequences")
        constraints = [models.CheckConstraint(condition=Q(value__gte=0), name="sequence_not_negative")]

    def __str__(self) -> str:
        return self.name
