"""Forms of the integration panel. They read what was typed; the rules are the verbs'."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django import forms
from django.db.models import Q
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from conversations.events import EVENT_TYPES
from core.clock import now
from core.errors import Invalid
from core.text import NAME_MAX
from organisations.models import Organisation
from organisations.panel.forms import DAYS, MOMENTS
from webhooks.actions import events_of, rate_of
from webhooks.custom_headers import headers_of
from webhooks.custom_values import clean_fields
from webhooks.endpoint_auth import settings_of, shown
from webhooks.kept_secrets import KEPT, Kept
from webhooks.models import Delivery, Webhook
from webhooks.outstanding import in_state
from webhooks.testing import CUSTOM_VALUE

#: Stands for a header value that is stored and not shown.
MASK = "••••••••"
#: Arguments of the verbs → the field that stands first for them.
ALIASES = {"authentication": "auth_kind", "rate_limit": "rate"}


def add_refusal(form: forms.Form, refusal: Invalid) -> None:
    """Put a verb's refusal beside the fields of a form; wire names are camelCase, fields are not.

    Of `a.b` the field is b's, or a's when b has none.
    """
    for wire_name, messages in refusal.errors.items():
        first, _dot, last = re.sub(r"(?<![\^.])([A-Z]+)", r"_\1", wire_name).lower().partition(".")
        names = [name for name in (last, first, ALIASES.get(first)) if name in form.fields]
        form.add_error(names[0] if names else None, messages)


def offer(form: forms.Form, name: str, choices: list[Any]) -> None:
    """Let the drop-down or tick boxes called `name` offer `choices`, which are known at run time only."""
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    field.choices = choices


class WebhookForm(forms.Form):
    """Add or change a webhook. `verb_arguments()` is what `create_webhook` and `update_webhook` take."""

    name = forms.CharField(
        label=_("Name"), max_length=NAME_MAX, help_text=_("For yourself, such as the system it belongs to.")
    )
    callback_url = forms.CharField(
        label=_("Callback URL"),
        max_length=2000,
        help_text=_("https (or http) at a public address. A query of your own is kept."),
        widget=forms.URLInput(attrs={"placeholder": "https://example.com/webio", "spellcheck": "false"}),
    )
    events = forms.MultipleChoiceField(label=_("Events"), required=False, widget=forms.CheckboxSelectMultiple)
    custom_values = forms.BooleanField(
        label=_("Serve custom values"),
        required=False,
        help_text=_("This URL also answers the GET request for <<field>> values. One webhook may."),
    )
    format = forms.ChoiceField(label=_("Format"), choices=Webhook.Format, initial=Webhook.Format.WEBIO)
    ordering = forms.ChoiceField(label=_("Order"), choices=Webhook.Ordering, initial=Webhook.Ordering.FIRST)
    headers = forms.CharField(
        label=_("Extra headers"),
        required=False,
        help_text=_("One “Name: value” a line, sent with every request. Values are stored encrypted."),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "placeholder": "Authorization: Bearer …"}),
    )

    auth_kind = forms.ChoiceField(
        label=_("Authentication"), choices=Webhook.Auth, initial=Webhook.Auth.NONE, required=False
    )
    username = forms.CharField(label=_("User name"), required=False, help_text=_("Basic."))
    password = forms.CharField(label=_("Password"), required=False, help_text=_("Basic. Stored encrypted."))
    token = forms.CharField(label=_("Token"), required=False, help_text=_("Bearer token. Stored encrypted."))
    token_url = forms.CharField(label=_("Token URL"), required=False, help_text=_("OAuth 2.0."))
    client_id = forms.CharField(label=_("Client ID"), required=False, help_text=_("OAuth 2.0."))
    client_secret = forms.CharField(
        label=_("Client secret"), required=False, help_text=_("OAuth 2.0. Stored encrypted.")
    )
    scope = forms.CharField(label=_("Scope"), required=False, help_text=_("OAuth 2.0, if it asks for one."))
    client_certificate = forms.CharField(
        label=_("Client certificate"),
        required=False,
        help_text=_("PEM of the certificate and its private key, for endpoints that ask for one (mTLS)."),
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
    )
    retry_delays = forms.CharField(
        label=_("Retry after"),
        required=False,
        help_text=_("Seconds to wait after each failed attempt, with commas between. Empty: our schedule."),
        widget=forms.TextInput(attrs={"inputmode": "numeric", "placeholder": "5, 300, 1800, 7200"}),
    )
    rate = forms.CharField(
        label=_("At most so many requests"),
        required=False,
        help_text=_("Empty: as many as your endpoint keeps up with."),
        widget=forms.TextInput(attrs={"inputmode": "numeric"}),
    )
    rate_per = forms.ChoiceField(
        label=_("in a"), choices=[("second", _("second")), ("minute", _("minute"))], required=False
    )

    #: Inputs of each kind of authentication → their names on the wire.
    AUTH_INPUTS: ClassVar[dict[str, dict[str, str]]] = {
        Webhook.Auth.BASIC: {"username": "username", "password": "password"},
        Webhook.Auth.BEARER: {"token": "token"},
        Webhook.Auth.OAUTH2: {
            "token_url": "tokenUrl",
            "client_id": "clientId",
            "client_secret": "clientSecret",
            "scope": "scope",
        },
    }
    #: What makes up one argument of the verbs.
    PARTS = ("auth_kind", "rate", "rate_per", *(name for names in AUTH_INPUTS.values() for name in names))

    def __init__(self, *args: Any, webhook: Webhook | None = None, **kwargs: Any) -> None:
        if webhook is not None:
            own = shown(webhook) or {}
            stored = settings_of(webhook)
            inputs = self.AUTH_INPUTS.get(webhook.auth_kind, {})
            rate = rate_of(webhook) or {"limit": "", "per": "second"}
            kwargs["initial"] = {
                "auth_kind": webhook.auth_kind,
                **{name: own.get(wire, MASK if wire in stored else "") for name, wire in inputs.items()},
                "client_certificate": MASK if webhook.client_certificate else "",
                "retry_delays": ", ".join(str(delay) for delay in webhook.retry_delays or []),
                "rate": str(rate["limit"]),
                "rate_per": rate["per"],
                "name": webhook.name,
                "callback_url": webhook.callback_url,
                "events": events_of(webhook),
                "custom_values": webhook.custom_values,
                "format": webhook.format,
                "ordering": webhook.ordering,
                "headers": "\n".join(f"{name}: {MASK}" for name in headers_of(webhook)),
            }
        super().__init__(*args, **kwargs)
        offer(self, "events", [(name, entry.label) for name, entry in EVENT_TYPES.items()])
        if webhook is not None:
            self.fields["callback_url"].help_text = gettext(
                "https (or http) at a public address. A query of your own is kept. With another scheme, host or port, "
                "enter stored passwords, tokens, header values and certificates again: they do not follow."
            )

    def clean_headers(self) -> dict[str, str | Kept]:
        """Lines of `Name: value`; the mask stands for the stored value of the same name."""
        headers: dict[str, str | Kept] = {}
        for line in self.cleaned_data["headers"].splitlines():
            if not line.strip():
                continue
            name, colon, value = (part.strip() for part in line.partition(":"))
            if not colon:
                raise forms.ValidationError(gettext("Write “Name: value”, one header a line."))
            if name in headers:
                raise forms.ValidationError(gettext("%(name)s is given twice.") % {"name": name})
            headers[name] = KEPT if value == MASK else value
        return headers

    def clean_client_certificate(self) -> str | Kept:
        """The mask stands for the stored certificate."""
        given: str = self.cleaned_data["client_certificate"]
        return KEPT if given == MASK else given

    def clean_retry_delays(self) -> list[int] | None:
        """Numbers with commas between."""
        words = [word.strip() for word in self.cleaned_data["retry_delays"].split(",") if word.strip()]
        return [whole(word) for word in words] or None

    def clean_rate(self) -> int | None:
        """A number, or nothing."""
        word = self.cleaned_data["rate"].strip()
        return whole(word) if word else None

    @property
    def advanced(self) -> bool:
        """Whether something beyond the usual is set or refused, so that it is not folded away."""
        names = ("client_certificate", "retry_delays", "rate", *self.PARTS)
        chosen = self["auth_kind"].value() not in (None, "", Webhook.Auth.NONE)
        return chosen or any(self[name].errors for name in names) or any(self[name].value() for name in names[:3])

    def verb_arguments(self) -> dict[str, Any]:
        """The cleaned values by the verbs' argument names."""
        cleaned = self.cleaned_data
        kind = cleaned["auth_kind"] or Webhook.Auth.NONE
        authentication = None
        if kind != Webhook.Auth.NONE:
            authentication = {"type": kind} | {
                wire: KEPT if cleaned[name] == MASK else cleaned[name] for name, wire in self.AUTH_INPUTS[kind].items()
            }
        rate = None if cleaned["rate"] is None else {"limit": cleaned["rate"], "per": cleaned["rate_per"] or "second"}
        plain = {name: cleaned[name] for name in self.fields if name not in self.PARTS}
        return {**plain, "authentication": authentication, "rate_limit": rate}


def whole(word: str) -> int:
    """A whole number as it was typed. Raises `ValidationError`."""
    if not word.isascii() or not word.isdigit() or len(word) > 9:
        raise forms.ValidationError(gettext("Write whole numbers."))
    return int(word)


class NewWebhookForm(WebhookForm):
    """Adding may bring a signing secret along."""

    secret = forms.CharField(
        label=_("Signing secret"),
        required=False,
        help_text=_("Leave empty and we make one. Your own is whsec_ and base64 of 24 to 64 bytes."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def verb_arguments(self) -> dict[str, Any]:
        return {**super().verb_arguments(), "secret": self.cleaned_data["secret"] or None}


class RotateSecretForm(forms.Form):
    """Whether a rotation may cut short the time in which the oldest secret still signs."""

    end_overlap = forms.BooleanField(
        label=_("End the overlap now"),
        required=False,
        help_text=_("My systems know the present secret: the one before it may stop signing."),
    )


class CustomValueForm(forms.Form):
    """What to ask the organisation's custom value endpoint for."""

    asked = forms.CharField(
        label=_("Field names"),
        help_text=_("One field name a line."),
        widget=forms.Textarea(attrs={"rows": 4, "placeholder": "balance\ndue date", "spellcheck": "false"}),
    )
    customer_uid = forms.CharField(label=_("Customer UID"), required=False, max_length=NAME_MAX)
    address = forms.CharField(
        label=_("Contact's address"),
        required=False,
        max_length=NAME_MAX,
        widget=forms.TextInput(attrs={"inputmode": "tel"}),
    )

    def clean_asked(self) -> list[str]:
        """The lines that are not empty, as field names."""
        lines = [line.strip() for line in self.cleaned_data["asked"].splitlines()]
        try:
            return clean_fields("asked", [line for line in lines if line]) if any(lines) else []
        except Invalid as refusal:
            raise forms.ValidationError(refusal.errors["asked"]) from None


class WebhookTestForm(CustomValueForm):
    """What to send to a webhook at once: an event, or a custom value request when it serves them."""

    event = forms.ChoiceField(label=_("What to send"))
    field_order = ("event", "asked", "customer_uid", "address")

    def __init__(self, *args: Any, webhook: Webhook, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        wanted = events_of(webhook)
        groups: list[tuple[Any, list[tuple[str, Any]]]] = [
            (_("Events it receives"), [(name, EVENT_TYPES[name].label) for name in wanted]),
            (_("Custom values"), [(CUSTOM_VALUE, _("Custom value request"))] if webhook.custom_values else []),
            (
                _("Events it is not subscribed to"),
                [(name, entry.label) for name, entry in EVENT_TYPES.items() if name not in wanted],
            ),
        ]
        offer(self, "event", [group for group in groups if group[1]])
        self.fields["asked"].required = False
        if not webhook.custom_values:
            for name in ("asked", "customer_uid", "address"):
                del self.fields[name]

    def clean(self) -> dict[str, Any] | None:
        chosen = self.cleaned_data
        if chosen.get("event") == CUSTOM_VALUE and "asked" in chosen and not chosen["asked"]:
            self.add_error("asked", gettext("Name at least one field to ask for."))
        return chosen


class SinceForm(forms.Form):
    """From when on failed deliveries are resent."""

    since = forms.DateTimeField(
        label=_("Failed since"),
        validators=MOMENTS,
        # Seconds would make the browser ask for seconds.
        initial=lambda: (now() - timedelta(days=1)).replace(second=0, microsecond=0),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )


class DeliveryFilterForm(forms.Form):
    """Filters of the delivery log, all from the query string."""

    state = forms.ChoiceField(label=_("State"), required=False)
    event = forms.ChoiceField(label=_("Event"), required=False)
    webhook = forms.ChoiceField(label=_("Webhook"), required=False)
    since = forms.DateField(
        label=_("From"),
        required=False,
        validators=DAYS,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    until = forms.DateField(
        label=_("To"),
        required=False,
        validators=DAYS,
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    conversation = forms.IntegerField(label=_("Conversation"), required=False, min_value=1, max_value=2**63 - 1)
    status = forms.IntegerField(label=_("HTTP status"), required=False, min_value=100, max_value=599)

    def __init__(self, *args: Any, organisation: Organisation, webhook: Webhook | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.organisation = organisation
        self.only = webhook
        any_choice = [("", _("Any"))]
        offer(self, "state", [*any_choice, *Delivery.State.choices])
        offer(self, "event", [*any_choice, *((name, entry.label) for name, entry in EVENT_TYPES.items())])
        if webhook is not None:
            del self.fields["webhook"]
        else:
            rows = organisation.webhooks.filter(archived_at=None).values_list("pk", "name")
            offer(self, "webhook", [*any_choice, *((str(pk), name) for pk, name in rows)])

    def condition(self) -> Q:
        """The chosen filters; days are days of the organisation's time zone."""
        chosen = self.cleaned_data
        wanted = Q()
        for name, column in (
            ("event", "event_type"),
            ("webhook", "webhook_id"),
            ("conversation", "conversation_id"),
            ("status", "last_status_code"),
        ):
            if chosen.get(name):
                wanted &= Q(**{column: chosen[name]})
        if chosen.get("state"):
            one = self.only.pk if self.only else chosen.get("webhook")
            wanted &= in_state(chosen["state"], int(one) if one else None)
        zone = ZoneInfo(self.organisation.time_zone)
        if chosen.get("since"):
            wanted &= Q(created_at__gte=datetime.combine(chosen["since"], time.min, zone))
        if chosen.get("until"):
            wanted &= Q(created_at__lt=datetime.combine(chosen["until"] + timedelta(days=1), time.min, zone))
        return wanted
