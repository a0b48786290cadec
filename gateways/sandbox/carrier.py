"""The simulated carrier: what it is going to say about a message, and how it says it.

Nothing goes over a network. A report is a row (`SandboxReport`); it is claimed by pushing its due time forward, so
a process that dies leaves a row that falls due again, and it goes in the transaction that reports it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Min

from conversations.actions import report_outcome
from conversations.actions.messages import set_outcome
from conversations.models import Message
from conversations.outcomes import DELIVERED, OUTCOMES, SENT
from core.clock import now
from gateways.sandbox.models import SandboxReport

#: The code of this gateway's channels, `type` on the wire.
KIND = "sandbox"
#: How long after sending the carrier reports.
DELAY = timedelta(milliseconds=300)
#: How long a claimed report belongs to its process: far longer than a batch takes.
CLAIM = timedelta(seconds=15)
#: Reports claimed at once: few enough that a batch is done long before its claim ends, even where one waits for
#: SQLite's writer.
BATCH = 50
#: `00NN`, where NN is a failure of the status code table → what a contact whose address ends so gets.
ENDINGS = {f"00{code:02}": outcome for code, outcome in OUTCOMES.items() if outcome.state == Message.State.FAILED}


def verdict(address: str) -> int:
    """The status code the carrier reports for a contact's address.

    One that ends as in `ENDINGS` gets that failure; every other one is delivered.
    """
    failure = ENDINGS.get(address[-4:])
    return DELIVERED if failure is None else failure.code


def send(message: Message) -> None:
    """Send a pending message of a locked conversation: it is sent at once, its report is due after `DELAY`."""
    set_outcome(message, SENT)
    SandboxReport.objects.create(
        organisation_id=message.organisation_id,
        message=message,
        status_code=verdict(message.conversation.contact.address),
        due_at=now() + DELAY,
    )


def report_due() -> int:
    """Report one batch of what is due. Returns how many rows were claimed."""
    claimed = _claim()
    for report in claimed:
        with transaction.atomic():
            # Conversation and message are locked before the report's own row, as everywhere. Whoever claimed the
            # same row after a claim ran out finds the message already moved on, and nothing to delete.
            report_outcome(channel=report.message.channel, message_id=report.message_id, status_code=report.status_code)
            SandboxReport.objects.filter(pk=report.pk).delete()
    return len(claimed)


def next_due() -> datetime | None:
    """When the next report is due, or None when there is none."""
    found: datetime | None = SandboxReport.objects.aggregate(first=Min("due_at"))["first"]
    return found


def _claim() -> list[SandboxReport]:
    """Take due reports for `CLAIM`, so that another process looks past them."""
    with transaction.atomic():
        moment = now()
        rows = SandboxReport.objects.filter(due_at__lte=moment).order_by("due_at", "id")
        rows = rows.select_for_update(skip_locked=connection.features.has_select_for_update_skip_locked, of=("self",))
        reports = list(rows.select_related("message__channel__organisation")[:BATCH])
        if reports:
            SandboxReport.objects.filter(pk__in=[report.pk for report in reports]).update(due_at=moment + CLAIM)
    return reports
