"""Conversations between an organisation and its contacts, and the record of everything that happened to them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from core.clock import now
from core.fields import RowOf
from core.tracking import Tracked, TrackedQuerySet
from organisations.models import Organisation


class Channel(models.Model):
    """A way to reach contacts: a phone number, a WhatsApp account, the sandbox."""

    class Kind(models.TextChoices):
        SANDBOX = "sandbox", _("Sandbox")

    class InboundRule(models.TextChoices):
        """What an inbound message does when no open conversation within its validity takes it."""

        NEW = "new", _("Start a new conversation")
        REOPEN = "reopen", _("Reopen the last closed conversation")

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="channels")
    kind = models.CharField(_("type"), max_length=32, default=Kind.SANDBOX)
    #: Shown as `inboundChannelAddress` when the channel has no address.
    label = models.CharField(_("label"), max_length=255)
    address = models.CharField(_("address"), max_length=64, blank=True)
    inbound_rule = models.CharField(_("inbound rule"), max_length=16, choices=InboundRule, default=InboundRule.NEW)
    validity_hours = models.PositiveIntegerField(
        _("validity in hours"),
        default=24,
        help_text=_("How long after its last message an open conversation takes inbound messages."),
    )
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    archived_at = models.DateTimeField(_("archived at"), null=True, blank=True)

    class Meta:
        verbose_name = _("channel")
        verbose_name_plural = _("channels")
        ordering = ["label"]
        constraints = [
            # Target of the composite foreign keys that keep rows inside one organisation.
            models.UniqueConstraint(fields=["organisation", "id"], name="channel_tenant_key"),
            models.UniqueConstraint(
                fields=["organisation", "label"], condition=Q(archived_at=None), name="channel_label_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def wire_address(self) -> str:
        """`inboundChannelAddress`: the channel's address, or its label when it has none."""
        return self.address or self.label


class Contact(models.Model):
    """A customer's customer, known by an address."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="contacts")
    #: Digits without `+` for phones.
    address = models.CharField(_("address"), max_length=64)
    customer_uid = models.CharField(_("customer UID"), max_length=255, blank=True)
    name = models.CharField(_("name"), max_length=255, blank=True)
    locale = models.CharField(_("locale"), max_length=16, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    updated_at = models.DateTimeField(_("updated at"), default=now, editable=False)

    class Meta:
        verbose_name = _("contact")
        verbose_name_plural = _("contacts")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="contact_tenant_key"),
            models.UniqueConstraint(fields=["organisation", "address"], name="contact_address_unique"),
        ]
        indexes = [
            # API filter `?customerUID=`.
            models.Index(fields=["organisation", "customer_uid"], name="contact_by_customer_uid"),
        ]

    def __str__(self) -> str:
        return self.name or self.address


class Queue(models.Model):
    """Where conversations wait for people. An inactive queue takes no new conversations and keeps its old ones."""

    class AssignmentRule(models.TextChoices):
        SELF = "self_selection", _("Self selection")
        ROUND_ROBIN = "round_robin", _("Round robin")
        LEAST_BUSY = "least_busy", _("Least busy")

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="queues")
    name = models.CharField(_("name"), max_length=255)
    active = models.BooleanField(_("active"), default=True)
    assignment_rule = models.CharField(
        _("assignment rule"), max_length=16, choices=AssignmentRule, default=AssignmentRule.SELF
    )
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    archived_at = models.DateTimeField(_("archived at"), null=True, blank=True)

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="queue_tenant_key"),
            models.UniqueConstraint(
                fields=["organisation", "name"], condition=Q(archived_at=None), name="queue_name_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Status(models.Model):
    """A free business label for conversations, such as "Promise to pay"."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="statuses")
    name = models.CharField(_("name"), max_length=255)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    archived_at = models.DateTimeField(_("archived at"), null=True, blank=True)

    class Meta:
        verbose_name = _("status")
        verbose_name_plural = _("statuses")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="status_tenant_key"),
            models.UniqueConstraint(
                fields=["organisation", "name"], condition=Q(archived_at=None), name="status_name_unique"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class ConversationQuerySet(TrackedQuerySet["Conversation"]):
    def with_names(self) -> ConversationQuerySet:
        """With everything that lists and payloads show, in one query."""
        return self.select_related("channel", "contact", "queue", "status", "assigned_to")


class Conversation(Tracked):
    """A talk with one contact on one channel. At most one is open for a contact and channel."""

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        CLOSED = "closed", _("Closed")
        ERROR = "error", _("Error")

    class Handler(models.TextChoices):
        BOT = "bot", _("Bot")
        PEOPLE = "people", _("People")

    #: In the order in which events of one save are recorded.
    tracked: ClassVar[tuple[str, ...]] = ("status_id", "queue_id", "assigned_to_id", "state")

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="conversations")
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="conversations")
    contact = models.ForeignKey(Contact, on_delete=models.PROTECT, related_name="conversations")
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.OPEN)
    handled_by = models.CharField(_("handled by"), max_length=8, choices=Handler, default=Handler.PEOPLE)
    queue = models.ForeignKey(Queue, on_delete=models.PROTECT, null=True, blank=True, related_name="conversations")
    status = models.ForeignKey(Status, on_delete=models.PROTECT, null=True, blank=True, related_name="conversations")
    assigned_to = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    customer_uid = models.CharField(_("customer UID"), max_length=255, blank=True)
    fields = models.JSONField(_("data fields"), default=dict, blank=True)
    #: Sequence number of the newest event, and when it was recorded. Taking the next one locks the row.
    event_seq = models.PositiveBigIntegerField(default=0, editable=False)
    last_event_at = models.DateTimeField(default=now, editable=False)
    #: Time of the newest message in either direction: the start of the validity period.
    last_message_at = models.DateTimeField(_("last message at"), default=now, editable=False)
    closed_at = models.DateTimeField(_("closed at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    updated_at = models.DateTimeField(_("updated at"), default=now, editable=False)

    objects: ClassVar[ConversationQuerySet] = ConversationQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="conversation_tenant_key"),
            # Two first messages of one contact make one conversation.
            models.UniqueConstraint(
                fields=["channel", "contact"], condition=Q(state="open"), name="conversation_one_open"
            ),
            models.CheckConstraint(condition=Q(state__in=["open", "closed", "error"]), name="conversation_state_known"),
            models.CheckConstraint(
                condition=Q(state="closed", closed_at__isnull=False) | (~Q(state="closed") & Q(closed_at__isnull=True)),
                name="conversation_closed_at_paired",
            ),
        ]
        indexes = [
            # Default list of the API and the admin, newest first, by state.
            models.Index(fields=["organisation", "state", "-id"], name="conversation_by_state"),
            # The same without a state.
            models.Index(fields=["organisation", "-id"], name="conversation_by_organisation"),
            # API filters by queue, status and customer.
            models.Index(fields=["queue", "-id"], name="conversation_by_queue"),
            models.Index(fields=["status", "-id"], name="conversation_by_status"),
            models.Index(fields=["organisation", "customer_uid", "-id"], name="conversation_by_customer"),
            # Transcripts of a period, in the order in which conversations started.
            models.Index(fields=["organisation", "created_at", "id"], name="conversation_by_start"),
            # "Updated since": integrators poll with it.
            models.Index(fields=["organisation", "updated_at", "id"], name="conversation_by_update"),
            # The newest closed conversation of a contact, to reopen.
            models.Index(fields=["contact", "channel", "-id"], name="conversation_by_contact"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class Message(Tracked):
    """One text in one direction, a "communication action" on the wire.

    An outbound message goes pending → sent → delivered → read, or to failed; never backwards. An inbound one is
    received and stays so.
    """

    class Direction(models.TextChoices):
        INBOUND = "inbound", _("Inbound")
        OUTBOUND = "outbound", _("Outbound")

    class State(models.TextChoices):
        PENDING = "pending", _("Pending")
        SENT = "sent", _("Sent")
        DELIVERED = "delivered", _("Delivered")
        READ = "read", _("Read")
        FAILED = "failed", _("Failed")
        RECEIVED = "received", _("Received")

    tracked: ClassVar[tuple[str, ...]] = ("state",)

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="messages")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="+")
    direction = models.CharField(_("direction"), max_length=8, choices=Direction)
    body = models.TextField(_("body"))
    state = models.CharField(_("state"), max_length=10, choices=State)
    #: A code of `conversations.outcomes.OUTCOMES`; empty while pending and for received messages.
    status_code = models.PositiveSmallIntegerField(_("status code"), null=True, blank=True)
    #: `[{"statusCode": "2", "at": "<ISO 8601 UTC>"}, …]`: every change of state, oldest first.
    outcomes = models.JSONField(_("outcomes"), default=list, editable=False)
    #: The carrier's id of the message: an inbound one arrives once, a report finds its message.
    external_id = models.CharField(_("external id"), max_length=255, null=True, blank=True)
    actor_kind = models.CharField(_("sender kind"), max_length=16)
    actor_id = models.CharField(_("sender id"), max_length=64, blank=True)
    actor_label = models.CharField(_("sender"), max_length=255, blank=True)
    #: When the carrier says it happened; empty when it does not say.
    occurred_at = models.DateTimeField(_("occurred at"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    objects: ClassVar[TrackedQuerySet[Message]] = TrackedQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="message_tenant_key"),
            # A carrier that delivers a message twice delivers it once.
            models.UniqueConstraint(
                fields=["channel", "external_id"],
                condition=Q(external_id__isnull=False),
                name="message_external_id_unique",
            ),
            models.CheckConstraint(
                condition=Q(direction="inbound", state="received")
                | Q(direction="outbound", state__in=["pending", "sent", "delivered", "read", "failed"]),
                name="message_state_fits_direction",
            ),
            models.CheckConstraint(
                condition=(Q(state__in=["pending", "received"]) & Q(status_code__isnull=True))
                | (~Q(state__in=["pending", "received"]) & Q(status_code__isnull=False)),
                name="message_status_code_paired",
            ),
        ]
        indexes = [
            # A conversation's messages in order: lists and transcripts.
            models.Index(fields=["conversation", "id"], name="message_by_conversation"),
            # Admin date drill-down and transcripts of a period.
            models.Index(fields=["organisation", "created_at"], name="message_by_time"),
            # What a gateway still has to send.
            models.Index(fields=["channel", "id"], condition=Q(state="pending"), name="message_pending"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def wire_status_code(self) -> str:
        """`statusCode` on the wire: digits, "" while pending and for received messages."""
        return "" if self.status_code is None else str(self.status_code)


class Note(models.Model):
    """What people write to each other about a conversation. Never shown to the contact."""

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="notes")
    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="notes")
    body = models.TextField(_("body"))
    actor_kind = models.CharField(_("author kind"), max_length=16)
    actor_id = models.CharField(_("author id"), max_length=64, blank=True)
    actor_label = models.CharField(_("author"), max_length=255, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("note")
        verbose_name_plural = _("notes")
        ordering = ["id"]
        indexes = [
            # A conversation's notes in order.
            models.Index(fields=["conversation", "id"], name="note_by_conversation"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class Event(models.Model):
    """One thing that happened, recorded in the transaction that made it true. Append-only; the outbox.

    `data` is a snapshot (`conversations.events.Snapshot`), so that later edits and deletions change nothing. The
    conversation and contact are therefore plain numbers with an index, not constraints that a deletion would break.
    """

    #: Rows are only made by SQL that joins on the organisation (`core.tenancy`).
    tenancy_by_construction = True

    # None of these has an index of its own: those below begin with them.
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="events", db_index=False)
    #: Empty for operational events such as webhookDisabled.
    conversation = models.ForeignKey(
        Conversation,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="events",
    )
    contact = models.ForeignKey(
        Contact,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="+",
    )
    #: A subscription name of `conversations.events.EVENT_TYPES`, or the name of an internal event.
    type = models.CharField(_("type"), max_length=32)
    #: Number within the conversation, from 1 without gaps; 0 for events without a conversation.
    seq = models.PositiveBigIntegerField(_("sequence"), default=0)
    schema_version = models.PositiveSmallIntegerField(default=1, editable=False)
    data = models.JSONField(_("snapshot"))
    actor_kind = models.CharField(_("actor kind"), max_length=16)
    actor_id = models.CharField(_("actor id"), max_length=64, blank=True)
    actor_label = models.CharField(_("actor"), max_length=255, blank=True)
    #: Time of recording, taken under the conversation's lock, never before its predecessor's.
    created_at = models.DateTimeField(_("created at"), editable=False)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["conversation", "seq"],
                condition=Q(conversation__isnull=False),
                name="event_seq_unique",
            ),
        ]
        indexes = [
            # Admin date drill-down, replay of a period, retention.
            models.Index(fields=["organisation", "created_at"], name="event_by_time"),
            # Erasure of a contact.
            models.Index(fields=["contact"], name="event_by_contact"),
        ]

    def __str__(self) -> str:
        return f"{self.type} #{self.pk}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Events are inserted once, for the engine to take, and never saved again. Raises `TypeError`."""
        if self.pk is not None and not kwargs.get("force_insert"):
            raise TypeError("Events are append-only.")
        with transaction.atomic(using=kwargs.get("using")):
            super().save(*args, **kwargs)
            Undispatched.objects.using(self._state.db).create(event=self, organisation_id=self.organisation_id)


class Undispatched(models.Model):
    """An event that the engine has not taken yet: made with the event, gone when that has its `Position`.

    Apart from events, because PostgreSQL would write a whole event and all of its indexes anew when one is taken.
    """

    #: Rows are only made from events, whose organisation they take over (`core.tenancy`).
    tenancy_by_construction = True

    event = RowOf(Event, on_delete=models.CASCADE, primary_key=True, related_name="undispatched", db_constraint=False)
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )

    class Meta:
        verbose_name = _("undispatched event")
        verbose_name_plural = _("undispatched events")

    def __str__(self) -> str:
        return f"#{self.pk}"


class Position(models.Model):
    """The place of an event in the order in which the engine took events.

    Readers page by it, never by the event's id: ids commit out of order.
    """

    #: Rows are only made from events, whose organisation they take over (`core.tenancy`).
    tenancy_by_construction = True

    event = RowOf(Event, on_delete=models.CASCADE, primary_key=True, related_name="place", db_constraint=False)
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    position = models.BigIntegerField(_("position"))

    class Meta:
        verbose_name = _("position")
        verbose_name_plural = _("positions")
        constraints = [
            # Also GET /events?after= of one organisation.
            models.UniqueConstraint(fields=["organisation", "position"], name="event_by_position"),
        ]

    def __str__(self) -> str:
        return str(self.position)
