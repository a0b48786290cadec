"""What the pages of the integration panel share."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from organisations.panel.views import PanelView
from organisations.roles import Permission
from webhooks.models import Webhook


class IntegrationView(PanelView):
    """A page of the integration panel. Times are shown and typed in the organisation's time zone."""

    def url(self, name: str, **kwargs: Any) -> str:
        """The address of another page of this panel."""
        return reverse(f"integrations:{name}", kwargs={"slug": self.organisation.slug, **kwargs})

    def back(self, name: str) -> str:
        """Where the form said it came from, if that is a page of ours, else the page called `name`."""
        wanted = self.request.POST.get("next", "")
        if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
            return wanted
        return self.url(name)

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        """A page with what every template of this panel knows."""
        context = {
            "may_manage": self.may(Permission.WEBHOOKS_MANAGE),
            "may_log": self.may(Permission.DELIVERIES_VIEW),
            "may_resend": self.may(Permission.DELIVERIES_RESEND),
            **context,
        }
        return super().page(template, status=status, **context)

    def secret_page(self, template: str, **context: Any) -> HttpResponse:
        """A page that shows a secret once: nothing between here and the person may keep it."""
        response = self.page(template, **context)
        response["Cache-Control"] = "no-store"
        return response


class WebhookView(IntegrationView):
    """A page of one webhook of the organisation, which is not deleted."""

    @property
    def webhook(self) -> Webhook:
        """The webhook of the address. Raises `Http404`."""
        if not hasattr(self, "_webhook"):
            rows = Webhook.objects.filter(organisation=self.organisation, archived_at=None)
            self._webhook = get_object_or_404(rows.prefetch_related("subscriptions"), pk=self.kwargs["webhook_id"])
            self._webhook.organisation = self.organisation
        return self._webhook

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        return super().page(template, status=status, **{"webhook": self.webhook, **context})
