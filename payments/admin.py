"""Staff's page on payments: look at them, and record one by its verb."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from core.admin import LargeTableMixin
from organisations.audit import record_audit
from organisations.staff import OrganisationFilter, StaffAdmin, staff_actor
from payments.actions import record_payment
from payments.models import Payment


@admin.register(Payment)
class PaymentAdmin(LargeTableMixin, StaffAdmin):
    """Payments that succeeded. Adding one records it and its event; nobody changes one."""

    list_display = ("id", "organisation", "conversation", "amount", "currency", "reference", "created_at")
    list_select_related = ("organisation", "conversation")
    list_filter = (("organisation", OrganisationFilter),)
    search_help_text = _("Number of the payment")
    raw_id_fields = ("conversation",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        form = ("conversation", "amount", "currency", "reference")
        return form if obj is None else ("organisation", *form, "actor_kind", "actor_label", "created_at")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Payment, form: Any, change: bool) -> None:
        data, actor = form.cleaned_data, staff_actor(request)
        made = record_payment(
            organisation=data["conversation"].organisation,
            actor=actor,
            conversation_id=data["conversation"].pk,
            amount=data["amount"],
            currency=data["currency"],
            reference=data["reference"],
        )
        record_audit(actor, "payment.record", made)
        obj.__dict__.update(made.__dict__)
