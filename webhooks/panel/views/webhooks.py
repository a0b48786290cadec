"""Pages of webhooks: list, add, look at, change, switch off and on, delete."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.events import EVENT_TYPES, EventType
from core.errors import Conflict, Invalid
from organisations.models import Organisation
from organisations.roles import Permission
from webhooks.actions import (
    archive_webhook,
    create_webhook,
    disable_webhook,
    enable_webhook,
    events_of,
    pause_webhook,
    resume_webhook,
    rotate_secret,
    update_webhook,
    webhook_limit,
)
from webhooks.custom_headers import headers_of
from webhooks.incidents import incidents
from webhooks.models import Webhook
from webhooks.panel.forms import NewWebhookForm, RotateSecretForm, WebhookForm, WebhookTestForm, add_refusal
from webhooks.panel.parts import history_part
from webhooks.panel.views.base import IntegrationView, WebhookView
from webhooks.samples import Sample, sample_bodies

RECENT = 10


def event_choices(form: WebhookForm, organisation: Organisation) -> list[tuple[EventType, Sample, bool]]:
    """The catalogue as tick boxes: each event with its sample and whether it is ticked."""
    ticked = form["events"].value() or []
    return [(entry, sample_bodies(organisation, name), name in ticked) for name, entry in EVENT_TYPES.items()]


class WebhookList(IntegrationView):
    """All webhooks of the organisation, with how they fare. There are few: the limit is the page."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        rows = Webhook.objects.filter(organisation=self.organisation, archived_at=None)
        webhooks = list(rows.prefetch_related("subscriptions"))
        limit = webhook_limit(self.organisation)
        return self.page(
            "webhooks/webhook_list.html",
            webhooks=[(webhook, [EVENT_TYPES[name] for name in events_of(webhook)]) for webhook in webhooks],
            limit=limit,
            full=len(webhooks) >= limit,
        )


class WebhookCreate(IntegrationView):
    """Add a webhook; its secret is shown in the answer and nowhere else."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.form_page(NewWebhookForm())

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = NewWebhookForm(request.POST)
        if form.is_valid():
            try:
                webhook, secret = create_webhook(
                    organisation=self.organisation, actor=self.actor, **form.verb_arguments()
                )
            except Invalid as refusal:
                add_refusal(form, refusal)
            except Conflict as refusal:
                form.add_error(None, refusal.detail)
            else:
                return self.secret_page(
                    "webhooks/webhook_secret.html",
                    webhook=webhook,
                    secret=secret,
                    created=True,
                    form=WebhookTestForm(webhook=webhook),
                )
        return self.form_page(form, status=400)

    def form_page(self, form: NewWebhookForm, status: int = 200) -> HttpResponse:
        return self.page(
            "webhooks/webhook_form.html", form=form, events=event_choices(form, self.organisation), status=status
        )


class WebhookDetail(WebhookView):
    """One webhook: how it fares, what it was sent last, its settings."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        recent, log = [], ""
        if self.may(Permission.DELIVERIES_VIEW):
            log = f"{self.url('deliveries', webhook_id=self.webhook.pk)}?"
            recent = list(self.webhook.deliveries.select_related("outstanding").order_by("-pk")[:RECENT])
        return self.page(
            "webhooks/webhook_detail.html",
            tab="overview",
            events=[EVENT_TYPES[name] for name in events_of(self.webhook)],
            header_names=list(headers_of(self.webhook)),
            deliveries=recent,
            log=log,
            incident=next(iter(incidents([self.webhook])), None),
            **history_part(self.webhook, request.GET.get("period", "")),
        )


class WebhookUpdate(WebhookView):
    """Change a webhook's settings."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.form_page(WebhookForm(webhook=self.webhook))

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = WebhookForm(request.POST, webhook=self.webhook)
        if form.is_valid():
            try:
                update_webhook(webhook=self.webhook, actor=self.actor, **form.verb_arguments())
            except Invalid as refusal:
                add_refusal(form, refusal)
            else:
                messages.success(request, _("Saved."))
                after = "webhook_test" if "test" in request.POST else "webhook"
                return redirect(self.url(after, webhook_id=self.webhook.pk))
        return self.form_page(form, status=400)

    def form_page(self, form: WebhookForm, status: int = 200) -> HttpResponse:
        return self.page(
            "webhooks/webhook_form.html",
            tab="settings",
            form=form,
            events=event_choices(form, self.organisation),
            status=status,
        )


class WebhookRotateSecret(WebhookView):
    """Make a new signing secret and show it once."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.form_page(RotateSecretForm())

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = RotateSecretForm(request.POST)
        form.full_clean()
        try:
            webhook, secret = rotate_secret(webhook=self.webhook, actor=self.actor, **form.cleaned_data)
        except Conflict as refusal:
            form.add_error("end_overlap", refusal.detail)
            return self.form_page(form, status=400)
        return self.secret_page("webhooks/webhook_secret.html", webhook=webhook, secret=secret, created=False)

    def form_page(self, form: RotateSecretForm, status: int = 200) -> HttpResponse:
        return self.page("webhooks/webhook_rotate_secret.html", tab="settings", form=form, status=status)


class WebhookSwitch(WebhookView):
    """Pause, resume, disable or enable, by the last part of the address."""

    permission = Permission.WEBHOOKS_MANAGE
    http_method_names = ["post", "options"]
    VERBS = {
        "pause": (pause_webhook, gettext_lazy("Paused. What happens now is held until you resume.")),
        "resume": (resume_webhook, gettext_lazy("Resumed. What was held is being sent.")),
        "disable": (disable_webhook, gettext_lazy("Disabled. What happens now is held until you enable it.")),
        "enable": (enable_webhook, gettext_lazy("Enabled. What was held is being sent.")),
    }

    def post(self, request: HttpRequest, verb: str, **kwargs: Any) -> HttpResponse:
        call, told = self.VERBS[verb]
        try:
            call(webhook=self.webhook, actor=self.actor)
        except Conflict as refusal:
            messages.error(request, refusal.detail)
        else:
            messages.success(request, told)
        return redirect(self.url("webhook", webhook_id=self.webhook.pk))


class WebhookDelete(WebhookView):
    """Ask once more, then delete."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.page("webhooks/webhook_delete.html", tab="settings")

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        archive_webhook(webhook=self.webhook, actor=self.actor)
        messages.success(request, _("%(name)s was deleted.") % {"name": self.webhook.name})
        return redirect(self.url("webhooks"))
