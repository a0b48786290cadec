"""The form that chooses what is replayed, and how the delivery log's filters are carried into it."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.utils.translation import gettext_lazy as _

from conversations.events import EVENT_TYPES
from core.clock import now
from organisations.panel.forms import MOMENTS
from webhooks.models import Delivery
from webhooks.panel.forms import DeliveryFilterForm, offer
from webhooks.replay import RATE_DEFAULT, RATE_LEAST, RATE_MOST, STATES

_FORMAT = "%Y-%m-%dT%H:%M"


def _a_day_ago() -> datetime:
    # Seconds would make the browser ask for seconds.
    return (now() - timedelta(days=1)).replace(second=0, microsecond=0)


def _moment_field(label: Any, **kwargs: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format=_FORMAT)
    return forms.DateTimeField(label=label, required=False, validators=MOMENTS, widget=widget, **kwargs)


class ReplayForm(forms.Form):
    """What to send again and how fast. `filters()` is what `preview_replay` takes."""

    states = forms.MultipleChoiceField(
        label=_("State"),
        required=False,
        choices=[(state.value, state.label) for state in STATES],
        initial=[Delivery.State.FAILED.value],
        help_text=_("Of the event's newest delivery. None ticked: any of these."),
        widget=forms.CheckboxSelectMultiple,
    )
    events = forms.MultipleChoiceField(
        label=_("Events"), required=False, help_text=_("None ticked: all."), widget=forms.CheckboxSelectMultiple
    )
    since = _moment_field(_("Happened from"), initial=_a_day_ago)
    until = _moment_field(_("Until"))
    conversation = forms.IntegerField(label=_("Conversation"), required=False, min_value=1, max_value=2**63 - 1)
    rate = forms.IntegerField(
        label=_("Deliveries a second, at most"), min_value=RATE_LEAST, max_value=RATE_MOST, initial=RATE_DEFAULT
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offer(self, "events", [(name, entry.label) for name, entry in EVENT_TYPES.items()])

    def filters(self) -> dict[str, Any]:
        """The cleaned filters by the verbs' argument names."""
        chosen = self.cleaned_data
        names = ("states", "events", "since", "until")
        return {name: chosen[name] for name in names} | {"conversation_id": chosen["conversation"]}

    def typed(self) -> list[tuple[str, str]]:
        """Names and values as they were typed, for another form to carry along."""
        return [(name, value) for name in self.fields for value in self.data.getlist(name)]  # type: ignore[attr-defined]


def carried(log: DeliveryFilterForm) -> str:
    """The query of a replay of what the delivery log shows, so far as a replay can choose it; days become moments."""
    chosen = log.cleaned_data if log.is_valid() else {}

    def midnight(day: date, later: int) -> str:
        return datetime.combine(day + timedelta(days=later), time.min).strftime(_FORMAT)

    wanted = {
        "states": chosen["state"] if chosen.get("state") in STATES else None,
        "events": chosen.get("event"),
        "since": midnight(chosen["since"], 0) if chosen.get("since") else None,
        "until": midnight(chosen["until"], 1) if chosen.get("until") else None,
        "conversation": chosen.get("conversation"),
    }
    given = {name: value for name, value in wanted.items() if value}
    return urlencode({**given, "rate": RATE_DEFAULT}) if given else ""
