"""Staff's pages on webhooks, their deliveries and attempts. Secrets and the customers' own headers are not shown."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from core.admin import LargeTableMixin
from core.clock import now
from organisations.staff import FewFilter, HistoryAdmin, HistoryInline, OrganisationFilter, numbers
from webhooks import actions, replay
from webhooks.incidents import Kind, in_trouble, incidents
from webhooks.models import (
    Attempt,
    Delivery,
    Durations,
    EngineTotal,
    FailureTotal,
    Lease,
    Replay,
    Subscription,
    Tally,
    Webhook,
)
from webhooks.outstanding import in_state
from webhooks.panel.parts import attempts_part, history_part, request_part, waits_part
from webhooks.tallies import Figures
from webhooks.templatetags.figures import duration, percent

#: What chooses an organisation in the address of a list.
ORGANISATION = "organisation__id__exact"


def page_of(row: Webhook | Delivery) -> str:
    """The address of a row's page."""
    return reverse(f"admin:webhooks_{row._meta.model_name}_change", args=[row.pk])


def list_of(request: HttpRequest, model: type[Delivery | Tally], webhook: Webhook) -> str:
    """The address of the list of a webhook's rows, to which filters can be added; "" to whom may not see them."""
    name = f"webhooks_{model._meta.model_name}_changelist"
    allowed = request.user.has_perm(f"webhooks.view_{model._meta.model_name}")
    return f"{reverse(f'admin:{name}')}?webhook__id__exact={webhook.pk}&" if allowed else ""


class TroubleFilter(admin.SimpleListFilter):
    """Webhooks that somebody should look at, as the panel's *Overview* lists them of one organisation."""

    title = _("what needs attention")
    parameter_name = "trouble"
    labels = {
        Kind.DISABLED: _("Disabled"),
        Kind.BREAKER: _("Left alone by the breaker"),
        Kind.FAILING: _("Failing"),
        Kind.PAUSED: _("Paused"),
    }

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("any", _("Any of these")), *((kind.value, label) for kind, label in self.labels.items())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> QuerySet[Webhook]:
        wanted = self.value()
        if wanted is None:
            return queryset
        kinds = [in_trouble(kind) for kind in Kind if wanted in ("any", kind)]
        return queryset.filter(reduce(or_, kinds)) if kinds else queryset.none()


class WebhookFilter(FewFilter):
    """Offers the first webhooks of the chosen organisation, or of the chosen webhook's, and the chosen one."""

    def rows(self, request: HttpRequest) -> QuerySet[Webhook]:
        organisations = numbers(request.GET.getlist(ORGANISATION))
        own = Webhook.objects.filter(pk__in=self.chosen).values("organisation")
        return Webhook.objects.filter(Q(organisation__in=organisations or own) | Q(pk__in=self.chosen))

    def has_output(self) -> bool:
        """One webhook to choose is shown, too: it says what the list is of."""
        return bool(self.lookup_choices)


class StateFilter(admin.SimpleListFilter):
    """The state of a delivery, asked for as an index serves it in all organisations."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return Delivery.State.choices

    def queryset(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> QuerySet[Delivery]:
        state = self.value()
        if state is None:
            return queryset
        return queryset.filter(in_state(state)) if state in Delivery.State.values else queryset.none()


class SubscriptionInline(HistoryInline):
    model = Subscription
    fields = ("event_type", "created_at")
    readonly_fields = ("created_at",)


class DeliveryInline(HistoryInline):
    model = Delivery
    fields = ("event_type", "kind", "state", "attempt_count", "last_status_code", "last_error", "finished_at")


class AsInPanelAdmin(HistoryAdmin):
    """History whose pages begin with what the organisation sees of it in its panel (`admin/as_in_panel.html`)."""

    def shown(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """What the template needs beside the organisation."""
        raise NotImplementedError

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: Any = None,
    ) -> HttpResponse:
        context |= {"organisation": obj.organisation, **self.shown(request, obj)}
        return super().render_change_form(request, context, add, change, form_url, obj)


@admin.register(Webhook)
class WebhookAdmin(AsInPanelAdmin):
    """Endpoints. Their owners set them up; staff switch them off and on."""

    list_display = ("name", "organisation", "state", "state_reason", "failing_since", "last_success_at", "archived_at")
    list_select_related = ("organisation",)
    list_filter = (
        TroubleFilter,
        "state",
        ("failing_since", admin.EmptyFieldListFilter),
        ("archived_at", admin.EmptyFieldListFilter),
        ("organisation", OrganisationFilter),
    )
    search_fields = ("name", "callback_url")
    # A callback URL's query may hold a key, and so do headers.
    exclude = ("secret", "previous_secret", "headers", "callback_url", "auth_settings", "client_certificate")
    readonly_fields = (
        "address", "last_success_at", "last_failure_at", "consecutive_failures", "failing_since",
        "breaker_until", "breaker_level",
    )  # fmt: skip
    inlines = (SubscriptionInline, DeliveryInline)
    actions = ("disable", "enable")

    @admin.display(description=_("callback URL"))
    def address(self, webhook: Webhook) -> str:
        return webhook.callback_url.partition("?")[0]

    def shown(self, request: HttpRequest, row: Webhook) -> dict[str, Any]:
        return {
            "webhook": row,
            "incident": next(iter(incidents([] if row.archived_at else [row])), None),
            "log": list_of(request, Delivery, row),
            "tallies": list_of(request, Tally, row),
            **history_part(row, request.GET.get("period", "")),
        }

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Webhooks are not changed by forms; switching one still asks for the right to change."""
        return request.user.has_perm("webhooks.change_webhook")

    @admin.action(description=_("Disable selected webhooks"), permissions=["switch"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: actions.disable_webhook(webhook=row, actor=actor, reason="staff"))

    @admin.action(description=_("Enable selected webhooks"), permissions=["switch"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Webhook]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: actions.enable_webhook(webhook=row, actor=actor))


@admin.register(Subscription)
class SubscriptionAdmin(HistoryAdmin):
    list_display = ("event_type", "webhook", "organisation", "created_at")
    list_select_related = ("webhook", "organisation")
    list_filter = (("organisation", OrganisationFilter),)
    search_fields = ("webhook__name",)


@admin.register(Delivery)
class DeliveryAdmin(LargeTableMixin, AsInPanelAdmin):
    """What was, is or will be sent. The query of its URL is masked, too."""

    list_display = (
        "id", "organisation", "webhook", "event_type", "kind", "state", "attempt_count", "last_status_code",
        "last_error", "next_attempt_at", "created_at",
    )  # fmt: skip
    list_select_related = ("organisation", "webhook", "outstanding")
    list_filter = (("organisation", OrganisationFilter), ("webhook", WebhookFilter), StateFilter)
    date_hierarchy = "created_at"
    search_help_text = _("Number of the delivery or of its event")
    actions = ("resend",)

    def found_by(self, term: str) -> QuerySet[Delivery] | None:
        digits = term.removeprefix("#")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return Delivery.objects.filter(event=int(digits))
        return None

    def shown(self, request: HttpRequest, row: Delivery) -> dict[str, Any]:
        # A payload holds what its event does.
        may_attempts, may_request = map(request.user.has_perm, ("webhooks.view_attempt", "conversations.view_event"))
        return {
            "webhook": row.webhook,
            "delivery": row,
            "may_attempts": may_attempts,
            "may_request": may_request,
            **waits_part(row, page_of),
            **(attempts_part(row) if may_attempts else {}),
            **(request_part(row, query=False) if may_request else {}),
        }

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Deliveries are not changed by forms; sending one again asks for the right to change."""
        return request.user.has_perm("webhooks.change_delivery")

    @admin.action(description=_("Resend selected deliveries"), permissions=["resend"])
    def resend(self, request: HttpRequest, queryset: QuerySet[Delivery]) -> None:
        rows: QuerySet[Any] = queryset.select_related("webhook__organisation", "organisation")
        self.run(request, rows, lambda row, actor: actions.resend_delivery(delivery=row, actor=actor))


@admin.register(Replay)
class ReplayAdmin(HistoryAdmin):
    """Past events being sent again. Tenants start replays; staff hold and end them."""

    list_display = ("id", "organisation", "webhook", "state", "made", "total", "rate", "actor_label", "created_at")
    list_select_related = ("organisation", "webhook")
    list_filter = ("state", ("organisation", OrganisationFilter))
    search_fields = ("webhook__name",)
    actions = ("pause", "resume", "cancel")

    def has_switch_permission(self, request: HttpRequest) -> bool:
        """Replays are not changed by forms; holding and ending one asks for the right to change."""
        return request.user.has_perm("webhooks.change_replay")

    @admin.action(description=_("Pause selected replays"), permissions=["switch"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Replay]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: replay.pause_replay(replay=row, actor=actor))

    @admin.action(description=_("Resume selected replays"), permissions=["switch"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Replay]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: replay.resume_replay(replay=row, actor=actor))

    @admin.action(description=_("Cancel selected replays"), permissions=["switch"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Replay]) -> None:
        rows = queryset.select_related("organisation")
        self.run(request, rows, lambda row, actor: replay.cancel_replay(replay=row, actor=actor))


@admin.register(Attempt)
class AttemptAdmin(LargeTableMixin, HistoryAdmin):
    """Single requests and what was answered."""

    list_display = (
        "id",
        "organisation",
        "delivery_id",
        "number",
        "status_code",
        "error",
        "duration_ms",
        "attempted_at",
    )
    list_select_related = ("organisation",)
    list_filter = (("organisation", OrganisationFilter),)
    date_hierarchy = "attempted_at"
    search_help_text = _("Number of the attempt or of its delivery")

    def found_by(self, term: str) -> QuerySet[Attempt] | None:
        digits = term.removeprefix("#")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return Attempt.objects.filter(delivery=int(digits))
        return None


class FiguresAdmin(HistoryAdmin):
    """Rows of counted attempts, with what they come to."""

    @admin.display(description=_("success rate"))
    def rate(self, row: Durations) -> str:
        return percent(Figures.counted(row).rate)

    @admin.display(description=_("median"))
    def p50(self, row: Durations) -> str:
        return duration(Figures.counted(row).p50)

    @admin.display(description=_("p95"))
    def p95(self, row: Durations) -> str:
        return duration(Figures.counted(row).p95)


@admin.register(Tally)
class TallyAdmin(LargeTableMixin, FiguresAdmin):
    """Attempts of a webhook in a quarter of an hour."""

    list_display = ("period", "organisation", "webhook", "delivered", "failed", "rate", "p50", "p95")
    list_select_related = ("organisation", "webhook")
    list_filter = (("organisation", OrganisationFilter), ("webhook", WebhookFilter))
    date_hierarchy = "period"
    search_help_text = _("Number of the tally or of its webhook")

    def found_by(self, term: str) -> QuerySet[Tally] | None:
        digits = term.removeprefix("#")
        if digits.isascii() and digits.isdigit() and len(digits) < 19:
            return Tally.objects.filter(webhook=int(digits))
        return None


@admin.register(EngineTotal)
class EngineTotalAdmin(FiguresAdmin):
    """Everything that the engine in one slot has ever done."""

    list_display = ("slot", "delivered", "failed", "rate", "p50", "p95")
    fixed_fields = ()


@admin.register(FailureTotal)
class FailureTotalAdmin(HistoryAdmin):
    """Why attempts of the engine in one slot failed, ever."""

    list_display = ("slot", "reason", "failed")
    fixed_fields = ()
    ordering = ("slot", "reason")


@admin.register(Lease)
class LeaseAdmin(HistoryAdmin):
    """Which webhooks an engine serves now."""

    list_display = ("webhook", "organisation", "until", "stands")
    list_select_related = ("webhook__organisation",)
    exclude = ("token",)
    fixed_fields = ()
    ordering = ("webhook",)

    @admin.display(description=_("organisation"))
    def organisation(self, lease: Lease) -> str:
        return str(lease.webhook.organisation)

    @admin.display(boolean=True, description=_("stands"))
    def stands(self, lease: Lease) -> bool:
        return lease.until > now()
