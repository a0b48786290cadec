"""The verb of the sandbox: play the contact's part."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext as _

from conversations.actions import receive_message
from conversations.actions.locks import staying
from conversations.models import Channel, Message
from core.errors import Invalid
from gateways.sandbox.carrier import KIND
from organisations.models import Organisation


def play_inbound(*, organisation: Organisation, channel_id: int, address: str, body: str) -> Message:
    """A contact at `address` writes `body` to a sandbox channel.

    Raises `Invalid` for a channel that is unknown, archived, another organisation's or no sandbox, for the address
    and for the body.
    """
    channels = Channel.objects.filter(organisation=organisation, kind=KIND, archived_at=None)
    with transaction.atomic():
        channel = staying(channels.filter(pk=channel_id))
        if channel is None:
            raise Invalid.field("channelId", _("There is no such sandbox channel."), code="unknown_object")
        channel.organisation = organisation
        return receive_message(channel=channel, address=address, body=body)
