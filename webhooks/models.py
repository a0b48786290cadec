"""Endpoints of customers, what is to be delivered to them and every attempt to do so."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from conversations.models import Event
from core.clock import now
from core.encryption import EncryptedTextField
from core.fields import RowOf
from core.indexes import LedIndex
from organisations.models import Organisation


class Webhook(models.Model):
    """A customer's endpoint: a callback URL, the events it wants and the form it wants them in."""

    class Format(models.TextChoices):
        WEBIO = "webio", _("Webio")
        STANDARD = "standard", _("Standard Webhooks")

    class Ordering(models.TextChoices):
        FIRST = "first", _("First attempts in order")
        STRICT = "strict", _("Strict order within a conversation")

    class State(models.TextChoices):
        ACTIVE = "active", _("Active")
        PAUSED = "paused", _("Paused")
        DISABLED = "disabled", _("Disabled")

    class Auth(models.TextChoices):
        NONE = "none", _("None")
        BASIC = "basic", _("Basic")
        BEARER = "bearer", _("Bearer token")
        OAUTH2 = "oauth2", _("OAuth 2.0 client credentials")

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="webhooks")
    name = models.CharField(_("name"), max_length=255)
    callback_url = models.CharField(_("callback URL"), max_length=2000)
    custom_values = models.BooleanField(
        _("custom values"), default=False, help_text=_("Serves the organisation's custom value requests.")
    )
    format = models.CharField(_("format"), max_length=16, choices=Format, default=Format.WEBIO)
    ordering = models.CharField(_("ordering"), max_length=8, choices=Ordering, default=Ordering.FIRST)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.ACTIVE)
    #: Why it is not active: "user", "gone" (the endpoint answered 410), "failing", "staff", "suspended".
    state_reason = models.CharField(_("reason"), max_length=32, blank=True)
    state_changed_at = models.DateTimeField(_("state changed at"), default=now, editable=False)
    secret = EncryptedTextField()
    #: After a rotation both secrets sign until this one's time is over.
    previous_secret = EncryptedTextField(default="", blank=True)
    previous_secret_expires_at = models.DateTimeField(null=True, blank=True)
    #: JSON object of the customer's own headers; "" when there are none.
    headers = EncryptedTextField(default="", blank=True)
    auth_kind = models.CharField(_("authentication"), max_length=8, choices=Auth, default=Auth.NONE)
    #: JSON object of what the kind of authentication takes (`webhooks.endpoint_auth`); "" for none.
    auth_settings = EncryptedTextField(default="", blank=True)
    #: PEM of the client certificate and its key, for endpoints that ask for one (mTLS); "" for none.
    client_certificate = EncryptedTextField(default="", blank=True)
    #: Seconds to wait after the first, second, … attempt; empty for the platform's own schedule.
    retry_delays = models.JSONField(_("retry schedule"), null=True, blank=True)
    #: At most so many requests in `rate_seconds` (1 or 60); empty for no limit.
    rate_limit = models.PositiveIntegerField(_("rate limit"), null=True, blank=True)
    rate_seconds = models.PositiveSmallIntegerField(_("rate limit's period in seconds"), default=1)
    last_success_at = models.DateTimeField(_("last success at"), null=True, blank=True, editable=False)
    last_failure_at = models.DateTimeField(_("last failure at"), null=True, blank=True, editable=False)
    consecutive_failures = models.PositiveIntegerField(default=0, editable=False)
    #: Time of the first failure since the last success.
    failing_since = models.DateTimeField(_("failing since"), null=True, blank=True, editable=False)
    #: How far on the way to being disabled its owners have been told, percent: 0, 50, 90 or 100.
    failing_told = models.PositiveSmallIntegerField(default=0, editable=False)
    #: While the breaker is open nothing is sent until this moment; then one request probes. Empty: it is closed.
    breaker_until = models.DateTimeField(_("paused by the breaker until"), null=True, blank=True, editable=False)
    #: How often in a row the breaker opened: the pauses grow with it.
    breaker_level = models.PositiveSmallIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    archived_at = models.DateTimeField(_("archived at"), null=True, blank=True)

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["organisation", "id"], name="webhook_tenant_key"),
            models.UniqueConstraint(
                fields=["organisation"],
                condition=Q(custom_values=True, archived_at=None),
                name="webhook_one_custom_values",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def overlap_until(self) -> datetime | None:
        """Until when the secret before the present one signs too; None when it does not."""
        until = self.previous_secret_expires_at
        return until if self.previous_secret and until is not None and now() < until else None


class Lease(models.Model):
    """Which engine serves a webhook, and until when.

    While it stands no other engine starts a request to the webhook. So an engine knows in memory how many requests
    are under way and what comes next in a conversation, and taking work writes nothing.
    """

    webhook = models.OneToOneField(Webhook, on_delete=models.CASCADE, primary_key=True, related_name="+")
    #: Names the engine (`webhooks.engine.leases`).
    token = models.BigIntegerField(editable=False)
    #: By the clock of the database, where it has one.
    until = models.DateTimeField(_("until"))

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")

    def __str__(self) -> str:
        return str(self.webhook_id)


class Subscription(models.Model):
    """One event type a webhook wants, of events recorded from then on."""

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="+")
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="subscriptions")
    event_type = models.CharField(_("event type"), max_length=32)
    #: The newest event there was when it was made: later ones count. No time, because clocks go back.
    after_event_id = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("subscription")
        verbose_name_plural = _("subscriptions")
        constraints = [
            models.UniqueConstraint(fields=["webhook", "event_type"], name="subscription_unique"),
        ]
        indexes = [
            # The fan-out's join from events to webhooks.
            models.Index(fields=["organisation", "event_type"], name="subscription_fan_out"),
        ]

    def __str__(self) -> str:
        return self.event_type


class Delivery(models.Model):
    """One event for one webhook, kept when it is finished. What is still to be done about it is its `Outstanding`.

    On PostgreSQL half of each page is left free (`fillfactor`): an outcome then changes a row in its place, and none of
    the indexes, which hold nothing that changes when a first attempt succeeds.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("Pending")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")
        HELD = "held", _("Held")
        CANCELLED = "cancelled", _("Cancelled")

    class Kind(models.TextChoices):
        EVENT = "event", _("Event")
        RESEND = "resend", _("Resend")
        REPLAY = "replay", _("Replay")

    #: Rows are only made by SQL that joins on the organisation (`core.tenancy`).
    tenancy_by_construction = True

    # Checking a foreign key costs as much as a third of the insert. Webhooks are never deleted, events only when they
    # have no delivery left. The indexes below begin with these columns.
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="deliveries", db_constraint=False, db_index=False
    )
    webhook = models.ForeignKey(
        Webhook, on_delete=models.PROTECT, related_name="deliveries", db_constraint=False, db_index=False
    )
    event = models.ForeignKey(
        Event, on_delete=models.PROTECT, related_name="deliveries", db_constraint=False, db_index=False
    )
    #: 0 for the event's own delivery, a random number for a further one.
    copy = models.BigIntegerField(default=0, editable=False)
    kind = models.CharField(_("kind"), max_length=8, choices=Kind, default=Kind.EVENT)
    #: The event's, copied so that logs and lanes need no join.
    event_type = models.CharField(_("event type"), max_length=32)
    conversation_id = models.BigIntegerField(_("conversation"), null=True, blank=True)
    seq = models.PositiveBigIntegerField(default=0)
    #: Frozen at fan-out, so that a retry sends the bytes the first attempt sent.
    format = models.CharField(_("format"), max_length=16)
    format_version = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.PENDING)
    #: Its state where that is none of what most deliveries go through, for the index of them; else empty.
    exception = models.GeneratedField(
        expression=models.Case(
            models.When(state__in=["failed", "held", "cancelled"], then=models.F("state")), default=models.Value(None)
        ),
        output_field=models.CharField(max_length=10, null=True),
        db_persist=True,
    )
    attempt_count = models.PositiveIntegerField(_("attempts"), default=0)
    last_status_code = models.PositiveSmallIntegerField(_("last status"), null=True, blank=True)
    last_error = models.CharField(_("last error"), max_length=32, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        ordering = ["-id"]
        constraints = [
            # Fan-out can run twice and still make one delivery.
            models.UniqueConstraint(fields=["event", "webhook", "copy"], name="delivery_once_per_event"),
        ]
        indexes = [
            # The delivery log of a webhook, newest first.
            models.Index(fields=["webhook", "-id"], name="delivery_log"),
            # The same filtered by state; what is pending is found by its `Outstanding` (`in_state`).
            models.Index(
                fields=["webhook", "exception", "-id"], condition=Q(exception__isnull=False), name="delivery_exceptions"
            ),
            # Retention, and the admin's date drill-down.
            models.Index(fields=["organisation", "created_at"], name="delivery_by_time"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"

    @property
    def next_attempt_at(self) -> datetime | None:
        """When it is due; None when it is finished or held."""
        outstanding: Outstanding | None = getattr(self, "outstanding", None)
        return outstanding.next_attempt_at if outstanding else None


class Outstanding(models.Model):
    """What is still to be done about a delivery that is pending or held: all that engines look at to find their work.

    Made with the delivery, gone with its last outcome, so the table stays as small as the work that is left. It is what
    an outcome and whoever pauses or cancels lock first. What it repeats of the delivery never changes.
    """

    #: Rows are only made from deliveries, whose organisation they take over (`core.tenancy`).
    tenancy_by_construction = True

    delivery = RowOf(
        Delivery, on_delete=models.CASCADE, primary_key=True, related_name="outstanding", db_constraint=False
    )
    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    webhook = models.ForeignKey(
        Webhook, on_delete=models.PROTECT, related_name="outstanding", db_constraint=False, db_index=False
    )
    event_id = models.BigIntegerField(editable=False)
    #: The conversation whose order it keeps; empty for what may go at any time.
    lane = models.BigIntegerField(null=True, editable=False)
    seq = models.PositiveBigIntegerField(default=0, editable=False)
    format = models.CharField(max_length=16, editable=False)
    format_version = models.PositiveSmallIntegerField(default=1, editable=False)
    #: When it is due. Empty while it is held.
    next_attempt_at = models.DateTimeField(_("next attempt at"), null=True, blank=True)
    #: What an outcome is checked against: it counts only while nobody has written a further one.
    attempt_count = models.PositiveIntegerField(_("attempts"), default=0)
    #: True while later deliveries of the same webhook and conversation must wait for this one: set at fan-out,
    #: cleared by its first outcome (or its last, in strict order), never set again.
    blocks = models.BooleanField(default=False, editable=False)

    class Meta:
        verbose_name = _("outstanding delivery")
        verbose_name_plural = _("outstanding deliveries")
        indexes = [
            # Due work of one webhook, oldest first; its leading column is skip-scanned. Outcomes are not written by it.
            LedIndex(fields=["webhook", "next_attempt_at", "delivery"], name="outstanding_due"),
            # What blocks a lane.
            models.Index(fields=["webhook", "lane", "seq"], condition=Q(blocks=True), name="outstanding_lane"),
        ]

    def __str__(self) -> str:
        return f"#{self.pk}"


class Attempt(models.Model):
    """One HTTP request of a delivery. Nothing points at it, so retention can drop it freely."""

    #: Rows are only made by SQL that joins on the organisation (`core.tenancy`).
    tenancy_by_construction = True

    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="attempts", db_constraint=False)
    number = models.PositiveIntegerField(_("number"))
    attempted_at = models.DateTimeField(_("attempted at"))
    #: Empty when no answer came; then `error` says why (`core.outbound` error classes).
    status_code = models.PositiveSmallIntegerField(_("status"), null=True, blank=True)
    error = models.CharField(_("error"), max_length=32, blank=True)
    error_detail = models.CharField(_("error detail"), max_length=255, blank=True)
    duration_ms = models.PositiveIntegerField(_("duration in ms"), default=0)
    #: Milliseconds from the start to the end of each phase: {"dns", "connect", "tls", "firstByte", "total"}.
    timings = models.JSONField(_("timings"), default=dict, blank=True)
    response_headers = models.JSONField(_("response headers"), default=list, blank=True)
    #: The first 16 KiB, as text with undecodable bytes replaced.
    response_body = models.TextField(_("response body"), blank=True)
    response_truncated = models.BooleanField(default=False)
    #: It did not count: another engine had written an outcome before, or somebody had cancelled the delivery.
    superseded = models.BooleanField(_("superseded"), default=False)

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["id"]
        indexes = [
            # Retention by age.
            models.Index(fields=["organisation", "attempted_at"], name="attempt_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id} · {self.number}"

    @property
    def accepted(self) -> bool:
        """A whole answer from 200 to 299, in time."""
        return not self.error and self.status_code is not None and 200 <= self.status_code < 300


#: Upper bounds of `Tally`'s and `EngineTotal`'s classes of duration, milliseconds; the last class has none.
DURATION_BOUNDS = (10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)
#: The columns that count them.
DURATION_CLASSES = (*(f"upto_{bound}" for bound in DURATION_BOUNDS), "longer")


class Durations(models.Model):
    """Attempts counted by outcome and duration."""

    delivered = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    duration_ms = models.PositiveBigIntegerField(default=0)
    upto_10 = models.PositiveBigIntegerField(default=0)
    upto_25 = models.PositiveBigIntegerField(default=0)
    upto_50 = models.PositiveBigIntegerField(default=0)
    upto_100 = models.PositiveBigIntegerField(default=0)
    upto_250 = models.PositiveBigIntegerField(default=0)
    upto_500 = models.PositiveBigIntegerField(default=0)
    upto_1000 = models.PositiveBigIntegerField(default=0)
    upto_2500 = models.PositiveBigIntegerField(default=0)
    upto_5000 = models.PositiveBigIntegerField(default=0)
    upto_10000 = models.PositiveBigIntegerField(default=0)
    longer = models.PositiveBigIntegerField(default=0)

    class Meta:
        abstract = True


class Tally(Durations):
    """What a webhook's attempts of a quarter of an hour came to, for charts. The engine writes it with the outcomes."""

    #: Rows are only made by SQL from deliveries (`core.tenancy`).
    tenancy_by_construction = True

    organisation = models.ForeignKey(
        Organisation, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="tallies", db_index=False)
    #: Start of the quarter of an hour.
    period = models.DateTimeField(_("period"))

    class Meta:
        verbose_name = _("tally")
        verbose_name_plural = _("tallies")
        constraints = [models.UniqueConstraint(fields=["webhook", "period"], name="tally_unique")]
        indexes = [
            # Retention, and the platform's figures for a period.
            models.Index(fields=["organisation", "period"], name="tally_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.webhook_id} · {self.period:%Y-%m-%d %H:%M}"


class EngineTotal(Durations):
    """What the engine in one slot has done since the platform was set up: never reset, so that rates can be taken."""

    slot = models.PositiveSmallIntegerField(primary_key=True)
    #: Requests under way when it last said so, every few seconds.
    in_flight = models.PositiveIntegerField(_("in flight"), default=0, db_default=0)

    class Meta:
        verbose_name = _("engine's total")
        verbose_name_plural = _("engines' totals")

    def __str__(self) -> str:
        return str(self.slot)


class FailureTotal(models.Model):
    """How many attempts of the engine in one slot failed for one reason since the platform was set up: never reset."""

    slot = models.PositiveSmallIntegerField()
    #: An error class (`core.outbound.ERRORS`), or "http_5xx" and the like for an answer that was not wanted.
    reason = models.CharField(_("reason"), max_length=32)
    failed = models.PositiveBigIntegerField(_("failed"), default=0)

    class Meta:
        verbose_name = _("engine's failures")
        verbose_name_plural = _("engines' failures")
        constraints = [models.UniqueConstraint(fields=["slot", "reason"], name="failure_total_unique")]

    def __str__(self) -> str:
        return f"{self.slot} · {self.reason}"


class Replay(models.Model):
    """A job that sends a webhook's past events again, at a chosen rate. Its rows are the work: it survives restarts."""

    class State(models.TextChoices):
        RUNNING = "running", _("Running")
        PAUSED = "paused", _("Paused")
        DONE = "done", _("Done")
        CANCELLED = "cancelled", _("Cancelled")

    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="replays")
    webhook = models.ForeignKey(Webhook, on_delete=models.PROTECT, related_name="replays")
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.RUNNING)
    #: Which of the webhook's deliveries: their states and event types (empty lists: all), a period, a conversation.
    states = models.JSONField(_("states"), default=list, blank=True)
    events = models.JSONField(_("events"), default=list, blank=True)
    since = models.DateTimeField(_("since"), null=True, blank=True)
    until = models.DateTimeField(_("until"))
    conversation_id = models.BigIntegerField(_("conversation"), null=True, blank=True)
    #: Deliveries made in a second at most.
    rate = models.PositiveIntegerField(_("rate"), default=100)
    #: How many there were to be sent when it began, and how many have been made.
    total = models.PositiveBigIntegerField(_("total"), default=0)
    made = models.PositiveBigIntegerField(_("made"), default=0)
    #: Id of the event of the last delivery that was looked at: it goes on behind it.
    position = models.BigIntegerField(default=0, editable=False)
    actor_kind = models.CharField(max_length=16, editable=False)
    actor_id = models.CharField(max_length=64, blank=True, editable=False)
    actor_label = models.CharField(_("by"), max_length=255, blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True, editable=False)

    class Meta:
        verbose_name = _("replay")
        verbose_name_plural = _("replays")
        ordering = ["-id"]
        constraints = [
            # A second one would send what the first is about to send.
            models.UniqueConstraint(
                fields=["webhook"], condition=Q(state__in=["running", "paused"]), name="replay_one_unfinished"
            ),
        ]
        indexes = [models.Index(fields=["state"], condition=Q(state="running"), name="replay_running")]

    def __str__(self) -> str:
        return f"#{self.pk}"
