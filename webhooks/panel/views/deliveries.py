"""The delivery log, one delivery with its attempts, and sending again."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from core.errors import Conflict
from organisations.roles import Permission
from webhooks.actions import failed_since, resend_delivery, resend_failed_since
from webhooks.incidents import incidents
from webhooks.models import Delivery, Webhook
from webhooks.panel.forms import DeliveryFilterForm, SinceForm
from webhooks.panel.paging import PAGE_SIZE, page_of
from webhooks.panel.parts import attempts_part, request_part, waits_part
from webhooks.panel.replay_form import carried
from webhooks.panel.views.base import IntegrationView, WebhookView

#: A preview counts no further than this.
COUNT_MAX = 10_000


class LogMixin:
    """The log with its filters, of one webhook or of all."""

    def log(self: Any, webhook: Webhook | None, **context: Any) -> HttpResponse:
        query = self.request.GET
        form = DeliveryFilterForm(query, organisation=self.organisation, webhook=webhook)
        rows = Delivery.objects.filter(organisation=self.organisation)
        if webhook is not None:
            rows = rows.filter(webhook=webhook)
        if form.is_valid():
            rows = rows.filter(form.condition()).select_related("webhook", "outstanding")
        else:
            rows = rows.none()
        one = webhook is not None or bool(form.cleaned_data.get("webhook"))
        page = page_of(rows, self.organisation, query.get("before", ""), by_time=not one)
        filters = QueryDict(mutable=True)
        for name in form.fields:
            if query.get(name):
                filters[name] = query[name]
        newest = filters.urlencode()
        filters["before"] = page.older
        return self.page(
            "webhooks/delivery_list.html",
            tab="deliveries",
            form=form,
            page=page,
            older=filters.urlencode() if page.older else "",
            newest=newest,
            filtered=bool(newest),
            first=not query.get("before"),
            every=webhook is None,
            replay=carried(form),
            **context,
        )


class DeliveryLog(LogMixin, IntegrationView):
    """What was sent for the whole organisation."""

    permission = Permission.DELIVERIES_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.log(None)


class WebhookDeliveries(LogMixin, WebhookView):
    """What one webhook was sent."""

    permission = Permission.DELIVERIES_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        stopped = [self.webhook] if self.webhook.state != Webhook.State.ACTIVE else []
        return self.log(self.webhook, incident=next(iter(incidents(stopped)), None))


class DeliveryDetail(IntegrationView):
    """One delivery: its attempts in order, what is sent and what came back. Also of a deleted webhook."""

    permission = Permission.DELIVERIES_VIEW

    def get(self, request: HttpRequest, delivery_id: int, **kwargs: Any) -> HttpResponse:
        rows = Delivery.objects.select_related("webhook", "webhook__organisation", "event", "outstanding")
        delivery = get_object_or_404(rows, organisation=self.organisation, pk=delivery_id)
        again = Delivery.objects.filter(webhook_id=delivery.webhook_id, event_id=delivery.event_id)
        return self.page(
            "webhooks/delivery_detail.html",
            delivery=delivery,
            webhook=delivery.webhook,
            **waits_part(delivery, self.address),
            **attempts_part(delivery),
            **request_part(delivery),
            siblings=list(again.exclude(pk=delivery.pk).select_related("outstanding").order_by("-pk")[:PAGE_SIZE]),
        )

    def address(self, row: Webhook | Delivery) -> str:
        """The page of a webhook or a delivery."""
        if isinstance(row, Webhook):
            return self.url("webhook", webhook_id=row.pk)
        return self.url("delivery", delivery_id=row.pk)


class DeliveryResend(IntegrationView):
    """Send one delivery's event again."""

    permission = Permission.DELIVERIES_RESEND
    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, delivery_id: int, **kwargs: Any) -> HttpResponse:
        delivery = get_object_or_404(
            Delivery.objects.select_related("webhook__organisation"), organisation=self.organisation, pk=delivery_id
        )
        try:
            again = resend_delivery(delivery=delivery, actor=self.actor)
        except Conflict as refusal:
            messages.error(request, refusal.detail)
            return redirect(self.url("delivery", delivery_id=delivery.pk))
        messages.success(request, _("Being sent again, as delivery %(id)d.") % {"id": again.pk})
        return redirect(self.url("delivery", delivery_id=again.pk))


class DeliveryResendSelected(IntegrationView):
    """Send the ticked deliveries of a log page again."""

    permission = Permission.DELIVERIES_RESEND
    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        ticked = request.POST.getlist("delivery")[:PAGE_SIZE]
        # Eighteen digits fit a big integer; more make SQLite overflow.
        if not all(value.isascii() and value.isdigit() and len(value) <= 18 for value in ticked):
            raise Http404
        ids = {int(value) for value in ticked}
        rows = Delivery.objects.filter(organisation=self.organisation, pk__in=ids)
        deliveries = list(rows.select_related("webhook__organisation").order_by("pk"))
        if len(deliveries) != len(ids):
            raise Http404
        made = 0
        refused: set[str] = set()
        for delivery in deliveries:
            try:
                resend_delivery(delivery=delivery, actor=self.actor)
                made += 1
            except Conflict as refusal:
                refused.add(f"{delivery.webhook}: {refusal.detail}")
        if made:
            told = ngettext("%(made)d delivery is being sent again.", "%(made)d deliveries are being sent again.", made)
            messages.success(request, told % {"made": made})
        for detail in sorted(refused):
            messages.error(request, detail)
        if not deliveries:
            messages.info(request, _("Tick the deliveries to send again first."))
        return redirect(self.back("log"))


class ResendFailed(WebhookView):
    """Resend what failed since a moment: first how many there are, then do it."""

    permission = Permission.DELIVERIES_RESEND

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = SinceForm(request.GET or None)
        count = None
        if form.is_bound and form.is_valid():
            found = failed_since(self.webhook, form.cleaned_data["since"]).order_by()
            count = found[: COUNT_MAX + 1].count()
        return self.page(
            "webhooks/webhook_resend_failed.html",
            tab="deliveries",
            form=form,
            count=count,
            many=count is not None and count > COUNT_MAX,
            count_max=COUNT_MAX,
        )

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = SinceForm(request.POST)
        if not form.is_valid():
            return self.page("webhooks/webhook_resend_failed.html", tab="deliveries", form=form, count=None, status=400)
        try:
            made = resend_failed_since(webhook=self.webhook, actor=self.actor, since=form.cleaned_data["since"])
        except Conflict as refusal:
            messages.error(request, refusal.detail)
        else:
            told = ngettext("%(made)d delivery is being sent again.", "%(made)d deliveries are being sent again.", made)
            messages.success(request, told % {"made": made})
        return redirect(self.url("deliveries", webhook_id=self.webhook.pk))
