"""Verify a received request: which check fails first, and how receivers verify in their language."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters

from organisations.roles import Permission
from webhooks.models import Webhook
from webhooks.panel.forms import offer
from webhooks.panel.views.base import WebhookView
from webhooks.verify_samples import SAMPLES, text_of
from webhooks.verifying import BOTH, PRESENT, PREVIOUS, Verdict, examine, read_headers

HEADERS_MAX = 20_000
#: More than the largest body that is sent.
BODY_MAX = 300_000


class VerifyForm(forms.Form):
    """A request as it was received."""

    headers = forms.CharField(
        label=_("Headers"),
        max_length=HEADERS_MAX,
        help_text=_("As your system logged them; webhook-id, webhook-timestamp and webhook-signature are looked at."),
        widget=forms.Textarea(
            attrs={
                "rows": 5,
                "spellcheck": "false",
                "autocomplete": "off",
                "class": "mono",
                "placeholder": "webhook-id: msg_…\nwebhook-timestamp: 1764000000\nwebhook-signature: v1,…",
            }
        ),
    )
    body = forms.CharField(
        label=_("Body"),
        required=False,
        strip=False,
        max_length=BODY_MAX,
        help_text=_("The raw body. Empty for a custom value request."),
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false", "autocomplete": "off", "class": "mono"}),
    )
    secret = forms.ChoiceField(label=_("Secret"), required=False, help_text=_("It is used here and not shown."))

    def __init__(self, *args: Any, webhook: Webhook, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(BOTH, _("Whichever is in force")), (PRESENT, _("The present one"))]
        if webhook.previous_secret:
            choices.append((PREVIOUS, _("The one before the latest rotation")))
        offer(self, "secret", choices)


@method_decorator(sensitive_post_parameters(), name="dispatch")
class WebhookVerify(WebhookView):
    """Paste headers and body of a request: what is wrong with it."""

    permission = Permission.WEBHOOKS_MANAGE

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return self.answer(VerifyForm(webhook=self.webhook), None)

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = VerifyForm(request.POST, webhook=self.webhook)
        if not form.is_valid():
            return self.answer(form, None, status=400)
        given = form.cleaned_data
        headers = read_headers(given["headers"])
        return self.answer(form, examine(self.webhook, headers, given["body"], which=given["secret"] or BOTH))

    def answer(self, form: VerifyForm, verdict: Verdict | None, status: int = 200) -> HttpResponse:
        samples = [(sample.language, text_of(sample)) for sample in SAMPLES]
        return self.page(
            "webhooks/webhook_verify.html", tab="verify", form=form, verdict=verdict, samples=samples, status=status
        )
