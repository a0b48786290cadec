"""Forms of the sandbox's pages. They read what was typed; the rules are the verbs'."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from conversations.models import Channel, Conversation
from core.text import BODY_MAX, NAME_MAX
from gateways.sandbox.carrier import KIND
from organisations.models import Organisation
from webhooks.panel.forms import offer

#: Numbers that the British regulator keeps for films and samples: nobody owns them. None ends in `00NN`.
SAMPLES = [f"447700900{number}" for number in range(100, 200)]


def free_address(organisation: Organisation) -> str:
    """A sample number that no open sandbox conversation of the organisation has; the first when all are in use."""
    in_use = Conversation.objects.filter(
        organisation=organisation,
        state=Conversation.State.OPEN,
        channel__kind=KIND,
        contact__address__in=SAMPLES,
    )
    taken = set(in_use.values_list("contact__address", flat=True))
    return next((sample for sample in SAMPLES if sample not in taken), SAMPLES[0])


class StartForm(forms.Form):
    """Start a conversation. The channel is asked for only when there is a choice."""

    channel_id = forms.TypedChoiceField(label=_("Channel"), coerce=int)
    outbound_channel_address = forms.CharField(
        label=_("Contact's address"),
        max_length=NAME_MAX,
        help_text=_("A made-up phone number of 7 to 15 digits. The one suggested is free."),
        widget=forms.TextInput(attrs={"inputmode": "tel", "autocomplete": "off"}),
    )
    customer_uid = forms.CharField(
        label=_("Customer UID"),
        required=False,
        max_length=NAME_MAX,
        help_text=_("Who the contact is in your own systems."),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    body = forms.CharField(
        label=_("First message"), required=False, max_length=BODY_MAX, widget=forms.Textarea(attrs={"rows": 2})
    )

    def __init__(self, *args: Any, channels: list[Channel], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.channels = channels
        if len(channels) == 1:
            del self.fields["channel_id"]
        else:
            offer(self, "channel_id", [(channel.pk, channel.label) for channel in channels])

    def verb_arguments(self) -> dict[str, Any]:
        """The cleaned values by the argument names of `start_conversation`."""
        chosen = self.cleaned_data
        return {
            "channel_id": chosen.get("channel_id") or self.channels[0].pk,
            "address": chosen["outbound_channel_address"],
            "customer_uid": chosen["customer_uid"] or None,
            "body": chosen["body"] or None,
        }


class MessageForm(forms.Form):
    """What one of the two says."""

    body = forms.CharField(label=_("Message"), max_length=BODY_MAX, widget=forms.Textarea(attrs={"rows": 2}))
