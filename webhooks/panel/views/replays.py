"""Replays of a webhook: choose and count, start, follow, hold and end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.timesince import timesince
from django.utils.translation import gettext_lazy

from core.clock import now
from core.errors import Conflict, Invalid
from organisations.roles import Permission
from webhooks.models import Replay
from webhooks.panel.forms import add_refusal
from webhooks.panel.paging import page_of
from webhooks.panel.replay_form import ReplayForm
from webhooks.panel.views.base import WebhookView
from webhooks.replay import UNFINISHED, cancel_replay, pause_replay, preview_replay, resume_replay, start_replay


def duration(count: int, rate: int) -> str:
    """How long so many deliveries take at least; "" for less than a minute."""
    seconds = count // rate
    moment = now()
    return timesince(moment, moment + timedelta(seconds=seconds)) if seconds >= 60 else ""


class ReplayList(WebhookView):
    """The webhook's replays, newest first."""

    permission = Permission.DELIVERIES_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        rows = Replay.objects.filter(webhook=self.webhook)
        page = page_of(rows, self.organisation, request.GET.get("before", ""), by_time=False)
        return self.page("webhooks/replay_list.html", tab="deliveries", page=page, first="before" not in request.GET)


class ReplayStart(WebhookView):
    """Choose what is sent again, see how much that is, then start."""

    permission = Permission.DELIVERIES_RESEND

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = ReplayForm(request.GET or None)
        count = None
        if form.is_bound and form.is_valid():
            try:
                count = preview_replay(webhook=self.webhook, **form.filters())
            except Invalid as refusal:
                add_refusal(form, refusal)
        return self.form_page(form, count)

    def post(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        form = ReplayForm(request.POST)
        if form.is_valid():
            try:
                replay = start_replay(
                    webhook=self.webhook, actor=self.actor, rate=form.cleaned_data["rate"], **form.filters()
                )
            except Invalid as refusal:
                add_refusal(form, refusal)
            except Conflict as refusal:
                messages.error(request, refusal.detail)
                return redirect(self.url("replays", webhook_id=self.webhook.pk))
            else:
                return redirect(self.url("replay", webhook_id=self.webhook.pk, replay_id=replay.pk))
        return self.form_page(form, None, status=400)

    def form_page(self, form: ReplayForm, count: int | None, status: int = 200) -> HttpResponse:
        unfinished = Replay.objects.filter(webhook=self.webhook, state__in=UNFINISHED).first()
        return self.page(
            "webhooks/replay_start.html",
            tab="deliveries",
            form=form,
            count=count,
            duration=duration(count, form.cleaned_data["rate"]) if count else "",
            unfinished=unfinished,
            status=status,
        )


class ReplayView(WebhookView):
    """A page of one replay of the webhook."""

    @property
    def replay(self) -> Replay:
        """The replay of the address. Raises `Http404`."""
        rows = Replay.objects.filter(organisation=self.organisation, webhook=self.webhook)
        return get_object_or_404(rows, pk=self.kwargs["replay_id"])


class ReplayDetail(ReplayView):
    """How far a replay has come. While it runs the page looks again by itself."""

    permission = Permission.DELIVERIES_VIEW

    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        replay = self.replay
        running = replay.state == Replay.State.RUNNING
        left = max(replay.total - replay.made, 0) if running else 0
        breaker = self.webhook.breaker_until
        return self.page(
            "webhooks/replay_detail.html",
            tab="deliveries",
            replay=replay,
            running=running,
            left=left,
            duration=duration(left, replay.rate),
            unfinished=replay.state in UNFINISHED,
            breaker_until=breaker if breaker is not None and breaker > now() else None,
        )


class ReplaySwitch(ReplayView):
    """Pause, resume or cancel, by the last part of the address."""

    permission = Permission.DELIVERIES_RESEND
    http_method_names = ["post", "options"]
    VERBS = {
        "pause": (pause_replay, gettext_lazy("The replay is paused.")),
        "resume": (resume_replay, gettext_lazy("The replay goes on.")),
        "cancel": (cancel_replay, gettext_lazy("The replay is cancelled. What it has made is sent.")),
    }

    def post(self, request: HttpRequest, verb: str, **kwargs: Any) -> HttpResponse:
        replay = self.replay
        call, told = self.VERBS[verb]
        try:
            call(replay=replay, actor=self.actor)
        except Conflict as refusal:
            messages.error(request, refusal.detail)
        else:
            messages.success(request, told)
        return redirect(self.url("replay", webhook_id=self.webhook.pk, replay_id=replay.pk))
