"""Tenants, the people in them and the keys of their systems."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _

from core.clock import now
from core.encryption import EncryptedTextField


class Organisation(models.Model):
    """A tenant. Members of the parent see this one; members of this one never see the parent."""

    name = models.CharField(_("name"), max_length=255)
    slug = models.SlugField(_("slug"), max_length=60, unique=True, help_text=_("In the panel's addresses."))
    parent = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="children",
        verbose_name=_("parent"),
    )
    time_zone = models.CharField(_("time zone"), max_length=64, default="UTC")
    locale = models.CharField(_("locale"), max_length=16, default="en-gb")
    suspended_at = models.DateTimeField(_("suspended at"), null=True, blank=True)
    #: Days finished attempts, deliveries and events are kept.
    attempt_retention_days = models.PositiveIntegerField(
        _("days attempts are kept"), default=30, validators=[MinValueValidator(1)]
    )
    delivery_retention_days = models.PositiveIntegerField(
        _("days deliveries are kept"), default=90, validators=[MinValueValidator(1)]
    )
    event_retention_days = models.PositiveIntegerField(
        _("days events are kept"), default=365, validators=[MinValueValidator(1)]
    )
    #: "" follows API_RATE_LIMIT; else "<number>/<second|minute|hour>".
    api_rate_limit = models.CharField(_("API rate limit"), max_length=32, blank=True, default="")
    webhook_limit = models.PositiveIntegerField(
        _("webhook limit"), null=True, blank=True, help_text=_("Empty follows the platform's limit.")
    )
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("organisation")
        verbose_name_plural = _("organisations")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=~Q(parent=models.F("id")), name="organisation_is_not_its_own_parent"),
            # A slug is an address: it must not differ by case alone.
            models.UniqueConstraint(Lower("slug"), name="organisation_slug_unique_ci"),
            # Retention never outlives what it hangs on: an attempt needs its delivery, a delivery its event.
            models.CheckConstraint(
                condition=Q(attempt_retention_days__lte=models.F("delivery_retention_days"))
                & Q(delivery_retention_days__lte=models.F("event_retention_days")),
                name="organisation_retention_nested",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse a parent that is below this organisation: in a loop a child's members would see the parent."""
        ancestor = self.parent
        seen: set[int] = set()
        while ancestor is not None and ancestor.pk not in seen:
            if ancestor.pk == self.pk:
                raise ValidationError({"parent": _("Must not be this organisation or one below it.")})
            seen.add(ancestor.pk)
            ancestor = ancestor.parent

    @property
    def suspended(self) -> bool:
        """A suspended organisation's keys and members are refused and nothing is sent for it."""
        return self.suspended_at is not None


class UserManager(BaseUserManager["User"]):
    """Makes users who sign in by e-mail."""

    def _create(self, email: str, password: str | None, **extra: Any) -> User:
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=self.normalize_email(email).lower(), **extra)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_user(self, email: str, password: str | None = None, **extra: Any) -> User:
        """A person without staff rights; `password` None makes one that cannot sign in until a reset."""
        return self._create(email, password, **{"is_staff": False, "is_superuser": False, **extra})

    def create_superuser(self, email: str, password: str | None = None, **extra: Any) -> User:
        """A member of staff with all rights."""
        return self._create(email, password, **{"is_staff": True, "is_superuser": True, **extra})

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who signs in, by e-mail."""

    email = models.EmailField(_("e-mail address"), unique=True)
    name = models.CharField(_("name"), max_length=255, blank=True)
    is_staff = models.BooleanField(_("staff"), default=False, help_text=_("May sign in to the admin."))
    is_active = models.BooleanField(_("active"), default=True)
    date_joined = models.DateTimeField(_("joined"), default=now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        ordering = ["email"]
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_unique_ci")]

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        return self.name or self.email

    def get_short_name(self) -> str:
        return self.name or self.email


class Role(models.TextChoices):
    """What a member may do; the table is `organisations.roles.PERMISSIONS`."""

    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    DEVELOPER = "developer", _("Developer")
    AGENT = "agent", _("Agent")
    VIEWER = "viewer", _("Viewer")


class Membership(models.Model):
    """A person's place in an organisation."""

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=16, choices=Role, default=Role.VIEWER)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    archived_at = models.DateTimeField(_("archived at"), null=True, blank=True)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [
            models.UniqueConstraint(fields=["organisation", "user"], name="membership_unique"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} · {self.organisation} · {self.role}"


class Invitation(models.Model):
    """An offer of membership, sent by e-mail: expires, works once, can be revoked."""

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(_("e-mail address"))
    role = models.CharField(_("role"), max_length=16, choices=Role, default=Role.VIEWER)
    #: SHA-256 of the secret in the mailed link; the secret itself is not stored.
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    expires_at = models.DateTimeField(_("expires at"))
    accepted_at = models.DateTimeField(_("accepted at"), null=True, blank=True)
    accepted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)

    class Meta:
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        ordering = ["-created_at"]
        constraints = [
            # One open offer for a person and organisation: a new one revokes the old.
            models.UniqueConstraint(
                "organisation",
                Lower("email"),
                condition=Q(accepted_at=None, revoked_at=None),
                name="invitation_one_open",
            ),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="invitation_role_known"),
        ]

    def __str__(self) -> str:
        return f"{self.email} → {self.organisation}"


class ApiKey(models.Model):
    """A system's way in. Shown once; afterwards only its prefix and hash are known.

    The key is `wk_live_<prefix>_<secret>`: recognisable in a leaked log, looked up by `prefix`, compared by hash.
    """

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(_("name"), max_length=255)
    prefix = models.CharField(_("prefix"), max_length=16, unique=True, editable=False)
    key_hash = models.CharField(max_length=64, editable=False)
    #: Scope codes of `organisations.scopes`.
    scopes = models.JSONField(_("scopes"), default=list)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)
    #: Written at most once a minute, not on every request.
    last_used_at = models.DateTimeField(_("last used at"), null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked at"), null=True, blank=True)
    #: The key made when this one was rotated; this one works until `expires_at`.
    replaced_by = models.OneToOneField(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="replaces", editable=False
    )

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-created_at", "-id"]
        indexes = [
            # The panel's list of one organisation's keys.
            models.Index(fields=["organisation", "-created_at"], name="apikey_by_organisation"),
        ]

    def __str__(self) -> str:
        return f"{self.name} (wk_live_{self.prefix}…)"

    def usable_at(self, moment: Any) -> bool:
        """Neither revoked nor past its expiry."""
        return self.revoked_at is None and (self.expires_at is None or moment < self.expires_at)


class WebioToken(models.Model):
    """The x-webio-token: a static HS256 JWT sent with every request to the organisation. The newest row wins.

    The customer's secret key that signed it is not stored.
    """

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="webio_tokens")
    token = EncryptedTextField()
    #: Prefix of the API key that asked for it; "" when a person did, in the panel.
    key_prefix = models.CharField(max_length=16, blank=True)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("x-webio-token")
        verbose_name_plural = _("x-webio-tokens")
        ordering = ["-id"]
        indexes = [
            # "The newest of this organisation": read once per drain slice and by the panel.
            models.Index(fields=["organisation", "-id"], name="webiotoken_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.organisation} · {self.created_at:%Y-%m-%d %H:%M}"


class IdempotencyKey(models.Model):
    """The answer to a POST that carried an Idempotency-Key, kept so that the same call gets the same answer.

    Kept 24 h per organisation, method and path. Only successful answers stay, encrypted.
    """

    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="idempotency_keys")
    method = models.CharField(max_length=8)
    path = models.CharField(max_length=500)
    key = models.CharField(max_length=255)
    #: SHA-256 of the request body: the same key with another body is refused.
    body_hash = models.CharField(max_length=64)
    #: Set while the first call is running; a call that died frees the key after this moment.
    locked_until = models.DateTimeField(null=True)
    status_code = models.PositiveSmallIntegerField(null=True)
    answer = EncryptedTextField(default="")
    created_at = models.DateTimeField(default=now, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = _("idempotency key")
        verbose_name_plural = _("idempotency keys")
        constraints = [
            models.UniqueConstraint(fields=["organisation", "method", "path", "key"], name="idempotency_unique"),
        ]
        indexes = [
            # The sweep of expired rows.
            models.Index(fields=["expires_at"], name="idempotency_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.key}"


class RateWindow(models.Model):
    """How many calls of a rate limit's present window are taken (`organisations.api.ratelimit`)."""

    #: Names what is limited and whose it is, such as "organisation:17".
    key = models.CharField(max_length=100, primary_key=True)
    #: Start of the window in seconds since 1970.
    start = models.BigIntegerField()
    used = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = _("rate window")
        verbose_name_plural = _("rate windows")

    def __str__(self) -> str:
        return self.key


class AuditEntry(models.Model):
    """What people and keys did to settings: append-only. Organisation empty: a platform matter."""

    organisation = models.ForeignKey(
        Organisation, on_delete=models.CASCADE, null=True, blank=True, related_name="audit_entries"
    )
    actor_kind = models.CharField(_("actor kind"), max_length=16)
    actor_id = models.CharField(_("actor id"), max_length=64, blank=True)
    actor_label = models.CharField(_("actor"), max_length=255, blank=True)
    action = models.CharField(_("action"), max_length=64, help_text=_("noun.verb, such as apikey.revoke"))
    object_type = models.CharField(_("object type"), max_length=64, blank=True)
    object_id = models.CharField(_("object id"), max_length=64, blank=True)
    object_label = models.CharField(_("object"), max_length=255, blank=True)
    #: Facts of the change, never a secret.
    data = models.JSONField(_("facts"), default=dict, blank=True)
    ip_address = models.GenericIPAddressField(_("IP address"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=now, editable=False)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        ordering = ["-id"]
        indexes = [
            # The panel's audit page and the admin's filter by organisation.
            models.Index(fields=["organisation", "-id"], name="audit_by_organisation"),
            # "Everything that happened to this object".
            models.Index(fields=["object_type", "object_id"], name="audit_by_object"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_label} {self.action} {self.object_label}"
