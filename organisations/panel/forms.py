"""Forms of the pages about an organisation. Rules live in the verbs; forms only shape input and show refusals."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib.auth.password_validation import validate_password
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.translation import gettext_lazy as _

from core.errors import Invalid
from organisations.models import Role
from organisations.scopes import SCOPES

OVERLAPS = [("0", _("End the old key now")), ("1", _("1 hour")), ("24", _("24 hours")), ("168", _("7 days"))]
#: Days and times in these years stay in the calendar whatever the time zone, and so does the day after.
FIRST_YEAR, LAST_YEAR = 1970, 9998
DAYS = [MinValueValidator(date(FIRST_YEAR, 1, 1)), MaxValueValidator(date(LAST_YEAR, 12, 31))]
MOMENTS = [
    MinValueValidator(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)),
    MaxValueValidator(datetime(LAST_YEAR, 12, 31, tzinfo=UTC)),
]


def show_refusal(form: forms.Form, refusal: Invalid, names: dict[str, str] | None = None) -> None:
    """Put a verb's refusal beside the fields it names."""
    for name, sentences in refusal.errors.items():
        field = (names or {}).get(name, name)
        form.add_error(field if field in form.fields else None, sentences)  # type: ignore[arg-type]


class OrganisationForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=255)
    time_zone = forms.ChoiceField(
        label=_("Time zone"), help_text=_("Of dateCreated in webhooks, and of transcripts for people.")
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["time_zone"].choices = [(zone, zone) for zone in sorted(available_timezones())]  # type: ignore[attr-defined]


class InviteForm(forms.Form):
    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.VIEWER)


class ApiKeyForm(forms.Form):
    name = forms.CharField(label=_("Name"), max_length=255, help_text=_("The system that will use it."))
    scopes = forms.MultipleChoiceField(
        label=_("Scopes"), choices=list(SCOPES.items()), widget=forms.CheckboxSelectMultiple
    )
    expires_at = forms.DateTimeField(
        label=_("Expires"),
        required=False,
        validators=MOMENTS,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}),
        help_text=_("In the organisation's time zone. Leave empty for a key that stays valid until it is revoked."),
    )


class RotateForm(forms.Form):
    overlap = forms.ChoiceField(label=_("The old key works for another"), choices=OVERLAPS, initial="24")


class TokenForm(forms.Form):
    secret_key = forms.CharField(
        label=_("Secret key"),
        max_length=1000,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text=_("At least 32 bytes. You need it to verify the token; we do not store it."),
    )


class JoinForm(forms.Form):
    name = forms.CharField(label=_("Your name"), max_length=255)
    password = forms.CharField(
        label=_("Password"), strip=False, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )

    def clean_password(self) -> str:
        password: str = self.cleaned_data["password"]
        validate_password(password)
        return password
