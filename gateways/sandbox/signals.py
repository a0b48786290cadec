"""What the sandbox hears: a new message to send on one of its channels."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from conversations.models import Message
from core.tracking import changed
from core.wakeup import wake
from gateways.sandbox import carrier


@receiver(changed, dispatch_uid="sandbox.send")
def send(instance: Any, created: bool, **_: Any) -> None:
    """Send a new pending message in the transaction that saves it.

    The change log, connected earlier, has locked the conversation by taking its sequence number.
    """
    if not created or not isinstance(instance, Message) or instance.state != Message.State.PENDING:
        return
    if instance.channel.kind == carrier.KIND:
        carrier.send(instance)
        wake(carrier.KIND)
