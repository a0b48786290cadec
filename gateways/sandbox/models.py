"""What the simulated carrier still has to report."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from conversations.models import Message
from core.clock import now
from organisations.models import Organisation


class SandboxReport(models.Model):
    """A delivery report that is still to come. The row is the work and goes when it is done."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="+")
    message = models.OneToOneField(Message, on_delete=models.CASCADE, related_name="+")
    #: A code of `conversations.outcomes.OUTCOMES`: what the carrier is going to say.
    status_code = models.PositiveSmallIntegerField(_("status code"))
    #: When it is due; while a process reports it, when its claim ends.
    due_at = models.DateTimeField(_("due at"))
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("sandbox report")
        verbose_name_plural = _("sandbox reports")
        ordering = ["due_at", "id"]
        indexes = [
            # The claim: what is due, and when the next one will be.
            models.Index(fields=["due_at", "id"], name="sandboxreport_due"),
        ]

    def __str__(self) -> str:
        return f"#{self.message_id} → {self.status_code}"
