"""The overview of the integrations and the catalogue of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from conversations.events import EVENT_TYPES
from organisations.roles import Permission
from webhooks.incidents import incidents
from webhooks.models import Tally, Webhook
from webhooks.panel.views.base import IntegrationView
from webhooks.samples import sample_bodies
from webhooks.tallies import Figures, by_webhook


@dataclass(frozen=True, slots=True)
class Step:
    """A step of setting up: where it is done, why, and whether it has been."""

    title: str
    text: str
    url: str
    done: bool


class Overview(IntegrationView):
    """What is set up, what needs attention and what to do next."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        webhooks = list(Webhook.objects.filter(organisation=self.organisation, archived_at=None))
        steps = self.steps(webhooks) if self.may(Permission.WEBHOOKS_MANAGE) else []
        found = by_webhook(Tally.objects.filter(organisation=self.organisation))
        return self.page(
            "webhooks/overview.html",
            webhooks=[(webhook, found.get(webhook.pk, Figures())) for webhook in webhooks],
            incidents=incidents(webhooks),
            figures=sum(found.values(), Figures()),
            steps=[] if all(step.done for step in steps) else steps,
        )

    def steps(self, webhooks: list[Webhook]) -> list[Step]:
        """What a newcomer does, in order."""
        slug = self.organisation.slug
        last = self.url("webhook_test", webhook_id=webhooks[0].pk) if webhooks else self.url("webhooks")
        return [
            Step(
                _("Make an API key"),
                _("Your systems call the REST API with it: start conversations, send messages, read transcripts."),
                reverse("keys:list", args=[slug]),
                self.organisation.api_keys.filter(revoked_at=None).exists(),
            ),
            Step(
                _("Generate the x-webio-token"),
                _("Every request to your endpoints carries it, so that they know where it comes from."),
                reverse("keys:token", args=[slug]),
                self.organisation.webio_tokens.exists(),
            ),
            Step(
                _("Add a webhook"),
                _("The address of your system and the events it should hear."),
                self.url("webhook_add"),
                bool(webhooks),
            ),
            Step(
                _("See it arrive"),
                _("Send a test; done when your endpoint has accepted the first real event."),
                last,
                any(webhook.last_success_at for webhook in webhooks),
            ),
        ]


class EventCatalogue(IntegrationView):
    """Every event with a sample of its body in both formats."""

    permission = Permission.WEBHOOKS_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        events = [(entry, sample_bodies(self.organisation, name)) for name, entry in EVENT_TYPES.items()]
        return self.page("webhooks/event_catalogue.html", events=events)
