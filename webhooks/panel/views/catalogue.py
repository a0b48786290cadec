"""The overview of the integrations and the catalogue of events."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from conversations.events import EVENT_TYPES
from organisations.models import WebioToken
from organisations.roles import Permission
from webhooks.models import Webhook
from webhooks.panel.views.base import IntegrationView
from webhooks.samples import sample_bodies


class Overview(IntegrationView):
    """What is set up, what needs attention and what to do next."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        webhooks = list(Webhook.objects.filter(organisation=self.organisation, archived_at=None))
        return self.page(
            "webhooks/overview.html",
            webhooks=webhooks,
            trouble=[webhook for webhook in webhooks if webhook.failing_since or webhook.state != Webhook.State.ACTIVE],
            custom_values=next((webhook for webhook in webhooks if webhook.custom_values), None),
            delivered=any(webhook.last_success_at for webhook in webhooks),
            has_key=self.organisation.api_keys.filter(revoked_at=None).exists(),
            has_token=WebioToken.objects.filter(organisation=self.organisation).exists(),
        )


class EventCatalogue(IntegrationView):
    """Every event with a sample of its body in both formats."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        events = [(entry, sample_bodies(self.organisation, name)) for name, entry in EVENT_TYPES.items()]
        return self.page("webhooks/event_catalogue.html", events=events)
