"""Try a webhook: a real request, at once, and what came back."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from organisations.roles import Permission
from webhooks.custom_values import build_url
from webhooks.models import Webhook
from webhooks.panel.curl import as_curl
from webhooks.panel.forms import CustomValueForm, WebhookTestForm
from webhooks.panel.requests import pretty_json, shown_headers
from webhooks.panel.views.base import IntegrationView, WebhookView
from webhooks.testing import CUSTOM_VALUE, Result, try_webhook


def result_context(webhook: Webhook | None, result: Result | None) -> dict[str, Any]:
    """What the result's template shows: proofs and the customer's own headers are masked."""
    if webhook is None or result is None:
        return {"result": None}
    headers = shown_headers(webhook, result.request_headers)
    certificate = bool(webhook.client_certificate)
    return {
        "result": result,
        "shown_headers": headers,
        "client_certificate": certificate,
        "request_body": pretty_json(result.request_body),
        "curl": as_curl(
            result.method, result.request_url, headers, result.request_body, client_certificate=certificate
        ),
    }


def run_test(view: IntegrationView, webhook: Webhook, chosen: dict[str, Any]) -> Result:
    """The real request that a valid form asks for."""
    return try_webhook(
        webhook=webhook,
        actor=view.actor,
        event=chosen["event"],
        fields=chosen.get("asked"),
        customer_uid=chosen.get("customer_uid", ""),
        address=chosen.get("address", ""),
    )


class WebhookTest(WebhookView):
    """Send a sample event, or ask for custom values, and show the answer."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.answer(WebhookTestForm(webhook=self.webhook, initial={"event": request.GET.get("event")}), None)

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = WebhookTestForm(request.POST, webhook=self.webhook)
        if not form.is_valid():
            return self.answer(form, None, status=400)
        return self.answer(form, run_test(self, self.webhook, form.cleaned_data))

    def answer(self, form: WebhookTestForm, result: Result | None, status: int = 200) -> HttpResponse:
        shown = result_context(self.webhook, result)
        return self.page("webhooks/webhook_test.html", tab="test", form=form, status=status, **shown)


class CustomValues(IntegrationView):
    """Which webhook serves custom values, how it is asked, and a test."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.answer(CustomValueForm(), None)

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        if not self.may(Permission.WEBHOOKS_MANAGE):
            raise PermissionDenied
        webhook = self.endpoint()
        form = CustomValueForm(request.POST)
        if webhook is None or not form.is_valid():
            return self.answer(form, None, status=400)
        return self.answer(form, run_test(self, webhook, {**form.cleaned_data, "event": CUSTOM_VALUE}))

    def endpoint(self) -> Webhook | None:
        rows = Webhook.objects.filter(organisation=self.organisation, custom_values=True, archived_at=None)
        return rows.select_related("organisation").first()

    def answer(self, form: CustomValueForm, result: Result | None, status: int = 200) -> HttpResponse:
        webhook = self.endpoint()
        example = ""
        if webhook is not None:
            example = build_url(
                webhook.callback_url, customer_uid="", address="447717472695", fields=["balance", "due date"]
            )
        return self.page(
            "webhooks/custom_values.html",
            webhook=webhook,
            example=example,
            candidates=Webhook.objects.filter(organisation=self.organisation, archived_at=None),
            form=form,
            status=status,
            **result_context(webhook, result),
        )
