"""What the pages of the integration panel share."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from core.actors import Actor
from core.clock import now
from organisations.panel.views import PanelView
from organisations.roles import Permission, may
from webhooks.models import Webhook


class IntegrationView(PanelView):
    """A page of the integration panel: knows who acts and what they may do."""

    @property
    def actor(self) -> Actor:
        """The signed-in person."""
        return Actor("user", str(self.request.user.pk), str(self.request.user))

    def may(self, permission: Permission) -> bool:
        """Whether the person may do more than the page asks for."""
        return may(self.role, permission)

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
            "organisation": self.organisation,
            "may_manage": self.may(Permission.WEBHOOKS_MANAGE),
            "may_log": self.may(Permission.DELIVERIES_VIEW),
            "may_resend": self.may(Permission.DELIVERIES_RESEND),
            **context,
        }
        return render(self.request, template, context, status=status)

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
        until = self.webhook.previous_secret_expires_at
        return super().page(
            template,
            status=status,
            **{"webhook": self.webhook, "overlapping": until is not None and until > now(), **context},
        )
