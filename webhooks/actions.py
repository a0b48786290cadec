"""The verbs on webhooks and deliveries. Each is atomic, audited, takes an actor and refuses with `core.errors`.

Lock order: organisation → webhook → deliveries. Nothing here talks to an endpoint: the engine does, woken on commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext as _

from conversations.events import EVENT_TYPES
from conversations.models import Event
from core.actors import Actor, acting_as
from core.addresses import check_url
from core.clock import now
from core.errors import Conflict, Invalid
from core.signing import new_secret, secret_bytes
from core.text import clean_text
from organisations.audit import record_audit
from organisations.models import Organisation
from webhooks import outstanding
from webhooks.announcements import tell_disabled
from webhooks.copies import copy_all, copy_one
from webhooks.custom_headers import clean_headers, dump_headers, load_headers
from webhooks.endpoint_auth import clean_authentication, clean_certificate
from webhooks.kept_secrets import with_kept
from webhooks.models import Delivery, Outstanding, Replay, Subscription, Webhook
from webhooks.payloads import iso_time, local_time
from webhooks.signals import wake_engine

#: How long the old secret signs beside the new one.
ROTATION_OVERLAP = timedelta(hours=24)

#: Model field → name on the wire, for what `update_webhook` takes.
WIRE_NAMES = {
    "name": "name",
    "callback_url": "callbackUrl",
    "events": "events",
    "custom_values": "customValues",
    "format": "format",
    "ordering": "ordering",
    "headers": "headers",
    "authentication": "authentication",
    "client_certificate": "clientCertificate",
    "retry_delays": "retryDelays",
    "rate_limit": "rateLimit",
}
#: What may be set of a retry schedule: how many delays, each and all together in seconds.
RETRIES_MAX, RETRY_DELAY_MAX, RETRY_TOTAL_MAX = 20, 172_800, 604_800
#: Requests in a second or minute.
RATE_MAX = 10_000
RATE_SECONDS = {"second": 1, "minute": 60}


def create_webhook(
    *,
    organisation: Organisation,
    actor: Actor,
    name: str,
    callback_url: str,
    events: Iterable[str],
    custom_values: bool = False,
    format: str = Webhook.Format.WEBIO,
    ordering: str = Webhook.Ordering.FIRST,
    headers: dict[str, str] | None = None,
    authentication: dict[str, str] | None = None,
    client_certificate: str | None = None,
    retry_delays: list[int] | None = None,
    rate_limit: dict[str, Any] | None = None,
    secret: str | None = None,
) -> tuple[Webhook, str]:
    """Add a webhook. Returns it and its signing secret (`whsec_…`), which is not shown again.

    Without `secret` one is made. Raises `Invalid` by wire name of the field, `Conflict` `webhook_limit` when the
    organisation has as many webhooks as it may.
    """
    values = _clean(
        {
            "name": name,
            "callback_url": callback_url,
            "events": events,
            "custom_values": custom_values,
            "format": format,
            "ordering": ordering,
            "headers": headers or {},
            "authentication": authentication,
            "client_certificate": client_certificate,
            "retry_delays": retry_delays,
            "rate_limit": rate_limit,
        },
        secret=secret,
    )
    wanted = values.pop("events")
    _refuse_idle(wanted, custom_values)
    _refuse_two_authorizations(Webhook(), values)
    secret = new_secret() if secret is None else secret
    with transaction.atomic():
        # The lock on the organisation makes the count true until the row is in.
        locked = Organisation.objects.select_for_update(no_key=True).get(pk=organisation.pk)
        limit = webhook_limit(locked)
        if Webhook.objects.filter(organisation=locked, archived_at=None).count() >= limit:
            raise Conflict(
                "webhook_limit",
                _("An organisation has at most %(limit)d webhooks.") % {"limit": limit},
                limit=limit,
            )
        webhook = Webhook(organisation=organisation, secret=secret, created_at=now(), **values)
        webhook.state_changed_at = webhook.created_at
        _save(webhook)
        _subscribe(webhook, wanted)
        record_audit(actor, "webhook.create", webhook, data=_facts(webhook, wanted))
    return webhook, secret


def update_webhook(*, webhook: Webhook, actor: Actor, **changes: Any) -> Webhook:
    """Change any of `WIRE_NAMES`: each as `create_webhook` takes it, secrets also as `KEPT`.

    A newly wanted event counts from now on; deliveries already made keep their format. Stored secrets do not follow the
    callback URL to another origin: they are given again, or taken away. How the endpoint failed does not follow it at
    all. In strict order what is to be repeated already keeps back what comes after it. Raises `Invalid` by wire name of
    the field and `TypeError` for a change that is not in the list.
    """
    unknown = set(changes) - set(WIRE_NAMES)
    if unknown:
        raise TypeError(f"update_webhook cannot change {', '.join(sorted(unknown))}.")
    with transaction.atomic():
        locked = _locked(webhook)
        filled, errors = with_kept(locked, changes)
        values = _clean(filled, errors)
        wanted = values.pop("events", None)
        _refuse_two_authorizations(locked, values)
        have = events_of(locked)
        _refuse_idle(have if wanted is None else wanted, values.get("custom_values", locked.custom_values))
        changed = sorted(name for name, value in values.items() if getattr(locked, name) != value)
        for name in changed:
            setattr(locked, name, values[name])
        if changed:
            _save(locked, changed + (_begin_afresh(locked) if "callback_url" in changed else []))
        if "ordering" in changed and locked.ordering == Webhook.Ordering.STRICT:
            outstanding.keep_back(locked)
        if wanted is not None and wanted != have:
            locked.subscriptions.exclude(event_type__in=wanted).delete()
            _subscribe(locked, [event for event in wanted if event not in have])
            changed.append("events")
        if changed:
            told = sorted({WIRE_NAMES[_ARGUMENTS.get(name, name)] for name in changed})
            facts = _facts(locked, have if wanted is None else wanted)
            record_audit(actor, "webhook.update", locked, data={"changed": told, **facts})
    return _refresh(webhook, locked)


def archive_webhook(*, webhook: Webhook, actor: Actor) -> None:
    """Take a webhook out of use. Its log stays; what was still to be sent is cancelled.

    Raises `Conflict` `webhook_archived` the second time.
    """
    with transaction.atomic():
        locked = _locked(webhook)
        locked.archived_at = now()
        locked.save(update_fields=["archived_at"])
        locked.subscriptions.all().delete()
        cancelled = _cancel(webhook)
        record_audit(actor, "webhook.archive", locked, data={"cancelled": cancelled})
    _refresh(webhook, locked)


def rotate_secret(
    *, webhook: Webhook, actor: Actor, secret: str | None = None, end_overlap: bool = False
) -> tuple[Webhook, str]:
    """Give a webhook a new secret. Returns it and the secret, which is not shown again.

    Both secrets sign for 24 hours, so that the receiver can change over. Raises `Invalid` for a bad `secret`, and
    `Conflict` `secret_overlap` with `until` while an earlier rotation's 24 hours last: a receiver may still know the
    oldest secret alone. With `end_overlap` that one stops signing now.
    """
    if secret is not None:
        clean_secret("secret", secret)
    with transaction.atomic():
        locked = _locked(webhook)
        if secret is not None and secret == locked.secret:
            raise Invalid.field("secret", _("Must differ from the present secret."))
        overlap = locked.overlap_until
        if overlap is not None and not end_overlap:
            raise Conflict(
                "secret_overlap",
                _("The secret before the present one signs until %(until)s. Rotate after that, or end the overlap now.")
                % {"until": local_time(overlap, locked.organisation.time_zone)[:16]},
                until=iso_time(overlap),
            )
        locked.previous_secret = locked.secret
        locked.previous_secret_expires_at = now() + ROTATION_OVERLAP
        locked.secret = secret or new_secret()
        locked.save(update_fields=["secret", "previous_secret", "previous_secret_expires_at"])
        record_audit(actor, "webhook.rotate_secret", locked, data={"overlapEnded": overlap is not None})
    _refresh(webhook, locked)
    return webhook, locked.secret


def pause_webhook(*, webhook: Webhook, actor: Actor, reason: str = "user") -> Webhook:
    """Hold a webhook's deliveries until it is resumed. Raises `Conflict` `webhook_disabled` for a disabled one."""
    return _stop(webhook, actor, Webhook.State.PAUSED, reason)


def disable_webhook(*, webhook: Webhook, actor: Actor, reason: str = "user") -> Webhook:
    """Switch a webhook off until it is enabled. What happens meanwhile is held."""
    return _stop(webhook, actor, Webhook.State.DISABLED, reason)


def resume_webhook(*, webhook: Webhook, actor: Actor) -> Webhook:
    """Go on after a pause: what was held is due now. Raises `Conflict` `webhook_disabled` for a disabled one."""
    return _start(webhook, actor, Webhook.State.PAUSED)


def enable_webhook(*, webhook: Webhook, actor: Actor) -> Webhook:
    """Switch a disabled or paused webhook on: what was held is due now."""
    return _start(webhook, actor, Webhook.State.DISABLED)


def resend_delivery(*, delivery: Delivery, actor: Actor) -> Delivery:
    """Send a delivery's event to its webhook once more, with the same `webhook-id` and bytes, as a new delivery.

    Raises `Conflict` `webhook_archived`, `webhook_paused` or `webhook_disabled`.
    """
    with transaction.atomic():
        webhook = _sendable(delivery.webhook)
        copy = copy_one(delivery, Delivery.Kind.RESEND)
        record_audit(actor, "delivery.resend", delivery, data={"webhook": str(webhook.pk), "resend": str(copy.pk)})
        wake_engine()
    return copy


def resend_failed_since(*, webhook: Webhook, actor: Actor, since: datetime, until: datetime | None = None) -> int:
    """Resend every event whose newest delivery to `webhook` failed and was made from `since` on (before `until`).

    What was delivered meanwhile, or is still under way, is left alone. Returns how many were made. Raises
    `Conflict` as `resend_delivery` does.
    """
    with transaction.atomic():
        locked = _sendable(webhook)
        made = copy_all(failed_since(locked, since, until), Delivery.Kind.RESEND)
        if made:
            facts = {"since": since.isoformat(), "until": until.isoformat() if until else None, "made": made}
            record_audit(actor, "webhook.resend_failed", locked, data=facts)
            wake_engine()
    return made


def failed_since(webhook: Webhook, since: datetime, until: datetime | None = None) -> models.QuerySet[Delivery]:
    """The deliveries that `resend_failed_since` would resend: failed, with nothing newer for the same event."""
    other = Delivery.objects.filter(webhook_id=models.OuterRef("webhook_id"), event_id=models.OuterRef("event_id"))
    done = [Delivery.State.DELIVERED, Delivery.State.PENDING, Delivery.State.HELD]
    better = other.filter(models.Q(state__in=done) | models.Q(pk__gt=models.OuterRef("pk")))
    return Delivery.objects.filter(
        ~models.Exists(better),
        outstanding.in_state(Delivery.State.FAILED),
        webhook=webhook,
        created_at__gte=since,
        created_at__lt=until or now(),
    )


def webhook_limit(organisation: Organisation) -> int:
    """How many webhooks the organisation may have."""
    limit = organisation.webhook_limit
    return settings.WEBHOOKS_PER_ORGANISATION if limit is None else limit


def events_of(webhook: Webhook) -> list[str]:
    """Names of the events a webhook wants, in catalogue order."""
    wanted = {subscription.event_type for subscription in webhook.subscriptions.all()}
    return [name for name in EVENT_TYPES if name in wanted]


def clean_secret(field: str, value: Any) -> str:
    """A signing secret of the customer's own. Raises `Invalid` naming `field` and the rule it breaks."""
    try:
        secret_bytes(value)
    except ValueError as error:
        raise Invalid.field(field, str(error)) from None
    return value


def clean_events(field: str, value: Any) -> list[str]:
    """Subscription names without repeats, in catalogue order. Raises `Invalid` for an unknown one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise Invalid.field(field, _("Must be a list of event names."))
    names = list(value)
    for name in names:
        if not isinstance(name, str) or name not in EVENT_TYPES:
            raise Invalid.field(
                field,
                _("%(name)s is no event; there are %(events)s.")
                % {"name": ascii(name)[:60], "events": ", ".join(EVENT_TYPES)},
            )
    return [name for name in EVENT_TYPES if name in names]


def _clean_choice(choices: type[models.TextChoices]) -> Any:
    def clean(field: str, value: Any) -> str:
        if value not in choices.values:
            raise Invalid.field(field, _("Must be one of: %(choices)s.") % {"choices": ", ".join(choices.values)})
        return value

    return clean


def clean_retry_delays(field: str, value: Any) -> list[int] | None:
    """Seconds to wait after each failed attempt; None for the platform's schedule. Raises `Invalid`."""
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= RETRIES_MAX:
        raise Invalid.field(field, _("Must be null or a list of 1 to %(maximum)d numbers.") % {"maximum": RETRIES_MAX})
    for delay in value:
        if isinstance(delay, bool) or not isinstance(delay, int) or not 1 <= delay <= RETRY_DELAY_MAX:
            raise Invalid.field(
                field, _("Each must be a whole number of seconds from 1 to %(maximum)d.") % {"maximum": RETRY_DELAY_MAX}
            )
    if sum(value) > RETRY_TOTAL_MAX:
        raise Invalid.field(field, _("Must not be more than %(maximum)d together.") % {"maximum": RETRY_TOTAL_MAX})
    return value


def clean_rate_limit(field: str, value: Any) -> dict[str, int | None]:
    """Columns `rate_limit` and `rate_seconds` of `{"limit", "per"}`, or of None for no limit. Raises `Invalid`."""
    if value is None:
        return {"rate_limit": None, "rate_seconds": 1}
    if not isinstance(value, dict) or value.keys() != {"limit", "per"}:
        raise Invalid.field(field, _("Must be null or an object with limit and per."))
    limit, per = value["limit"], value["per"]
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= RATE_MAX:
        problem = _("Must be a whole number from 1 to %(maximum)d.") % {"maximum": RATE_MAX}
        raise Invalid.field(f"{field}.limit", problem)
    if not isinstance(per, str) or per not in RATE_SECONDS:
        raise Invalid.field(f"{field}.per", _("Must be one of: %(choices)s.") % {"choices": ", ".join(RATE_SECONDS)})
    return {"rate_limit": limit, "rate_seconds": RATE_SECONDS[per]}


def rate_of(webhook: Webhook) -> dict[str, Any] | None:
    """A webhook's rate limit as `clean_rate_limit` takes it."""
    if webhook.rate_limit is None:
        return None
    per = next(name for name, seconds in RATE_SECONDS.items() if seconds == webhook.rate_seconds)
    return {"limit": webhook.rate_limit, "per": per}


def _clean_flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Invalid.field(field, _("Must be true or false."))
    return value


_CLEANERS = {
    "name": lambda field, value: clean_text(field, value, minimum=1),
    "callback_url": check_url,
    "events": clean_events,
    "custom_values": _clean_flag,
    "format": _clean_choice(Webhook.Format),
    "ordering": _clean_choice(Webhook.Ordering),
    "headers": lambda field, value: dump_headers(clean_headers(field, value)),
    "retry_delays": clean_retry_delays,
}
#: Those that fill columns of other names.
_SEVERAL: dict[str, Callable[[str, Any], Mapping[str, Any]]] = {
    "authentication": clean_authentication,
    "client_certificate": clean_certificate,
    "rate_limit": clean_rate_limit,
}
_ARGUMENTS = {"auth_kind": "authentication", "auth_settings": "authentication", "rate_seconds": "rate_limit"}


def _clean(
    values: dict[str, Any], known: Mapping[str, list[str]] | None = None, *, secret: str | None = None
) -> dict[str, Any]:
    """`values` as they are stored. Raises one `Invalid` with the errors of all fields, those already known included."""
    errors = dict(known or {})
    cleaned: dict[str, Any] = {}
    for name, value in values.items():
        try:
            if name in _SEVERAL:
                cleaned |= _SEVERAL[name](WIRE_NAMES[name], value)
            else:
                cleaned[name] = _CLEANERS[name](WIRE_NAMES[name], value)
        except Invalid as refusal:
            errors.update(refusal.errors)
    if secret is not None:
        try:
            clean_secret("secret", secret)
        except Invalid as refusal:
            errors.update(refusal.errors)
    if errors:
        raise Invalid(errors)
    return cleaned


def _refuse_two_authorizations(webhook: Webhook, values: dict[str, Any]) -> None:
    """A header of the customer's own and a kind of authentication cannot both say who asks."""
    kind = values.get("auth_kind", webhook.auth_kind)
    headers = values.get("headers", webhook.headers)
    names = {name.lower() for name in load_headers(headers)}
    if kind != Webhook.Auth.NONE and "authorization" in names:
        field = "authentication" if "auth_kind" in values else "headers"
        raise Invalid.field(field, _("There is an Authorization header already: use one or the other."))


def _refuse_idle(events: list[str], custom_values: bool) -> None:
    if not events and not custom_values:
        raise Invalid.field("events", _("Choose at least one event, or custom values."))


def _locked(webhook: Webhook) -> Webhook:
    """The webhook as it is now, under a row lock. Raises `Conflict` `webhook_archived`."""
    locked = Webhook.objects.select_for_update(no_key=True).get(pk=webhook.pk)
    if locked.archived_at is not None:
        raise Conflict("webhook_archived", _("The webhook has been deleted."))
    locked.organisation = webhook.organisation
    return locked


def _sendable(webhook: Webhook) -> Webhook:
    """The locked webhook, if it takes deliveries now. Raises `Conflict`."""
    locked = _locked(webhook)
    if locked.state != Webhook.State.ACTIVE:
        raise Conflict(
            f"webhook_{locked.state}", _("The webhook is %(state)s.") % {"state": locked.get_state_display().lower()}
        )
    return locked


def _refresh(webhook: Webhook, locked: Webhook) -> Webhook:
    """Let the caller's instance show what was saved."""
    for field in Webhook._meta.concrete_fields:
        setattr(webhook, field.attname, getattr(locked, field.attname))
    return webhook


def _save(webhook: Webhook, changed: list[str] | None = None) -> None:
    """Save, and put the one-custom-values constraint into words. Raises `Invalid`."""
    try:
        with transaction.atomic():
            webhook.save(update_fields=changed)
    except IntegrityError:
        others = Webhook.objects.filter(organisation=webhook.organisation_id, custom_values=True, archived_at=None)
        if webhook.custom_values and others.exclude(pk=webhook.pk).exists():
            raise Invalid.field(
                "customValues",
                _("Another webhook of the organisation serves custom values already; only one may."),
                code="custom_values_taken",
            ) from None
        raise


def _cancel(webhook: Webhook) -> int:
    """Cancel what is still to be sent. The attempt of a request that is under way is kept, but superseded."""
    moment = now()
    replays = Replay.objects.filter(webhook=webhook, state__in=[Replay.State.RUNNING, Replay.State.PAUSED])
    replays.update(state=Replay.State.CANCELLED, finished_at=moment)
    return outstanding.cancel(Outstanding.objects.filter(webhook=webhook))


def _subscribe(webhook: Webhook, events: list[str]) -> None:
    moment = now()
    newest = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    Subscription.objects.bulk_create(
        Subscription(
            organisation_id=webhook.organisation_id,
            webhook=webhook,
            event_type=event,
            after_event_id=newest,
            created_at=moment,
        )
        for event in events
    )


def _facts(webhook: Webhook, events: list[str]) -> dict[str, Any]:
    """What the audit trail tells of a webhook's settings. Header values may be secrets and are left out."""
    return {
        # A query may hold a key.
        "callbackUrl": webhook.callback_url.partition("?")[0],
        "events": events,
        "customValues": webhook.custom_values,
        "format": webhook.format,
        "ordering": webhook.ordering,
    }


def _stop(webhook: Webhook, actor: Actor, state: Webhook.State, reason: str) -> Webhook:
    with transaction.atomic():
        locked = _locked(webhook)
        if locked.state == state:
            return _refresh(webhook, locked)
        if locked.state == Webhook.State.DISABLED:
            raise Conflict("webhook_disabled", _("The webhook is disabled; enable it instead."))
        _set_state(locked, state, reason)
        held = outstanding.hold(locked)
        record_audit(actor, _STATE_VERBS[state], locked, data={"reason": reason, "held": held})
        if state == Webhook.State.DISABLED:
            with acting_as(actor):
                tell_disabled(locked.pk, reason)
    return _refresh(webhook, locked)


def _start(webhook: Webhook, actor: Actor, expected: Webhook.State) -> Webhook:
    with transaction.atomic():
        locked = _locked(webhook)
        if locked.state == Webhook.State.ACTIVE:
            return _refresh(webhook, locked)
        if locked.state == Webhook.State.DISABLED and expected != Webhook.State.DISABLED:
            raise Conflict("webhook_disabled", _("The webhook is disabled; enable it instead."))
        verb = "webhook.resume" if locked.state == Webhook.State.PAUSED else "webhook.enable"
        # Nothing was sent meanwhile: how long it fails is counted anew, and an open breaker probes at once.
        locked.failing_since, locked.failing_told, locked.breaker_until = None, 0, None
        _set_state(locked, Webhook.State.ACTIVE, "")
        released = outstanding.release_all(Outstanding.objects.filter(webhook=locked))
        record_audit(actor, verb, locked, data={"released": released})
        wake_engine()
    return _refresh(webhook, locked)


_STATE_VERBS = {Webhook.State.PAUSED: "webhook.pause", Webhook.State.DISABLED: "webhook.disable"}


def _begin_afresh(webhook: Webhook) -> list[str]:
    """Hold nothing against an endpoint that was never tried: one request probes if the breaker was open.

    Returns the fields to save.
    """
    webhook.failing_since, webhook.consecutive_failures, webhook.breaker_until = None, 0, None
    webhook.breaker_level = min(webhook.breaker_level, 1)
    wake_engine()
    return ["failing_since", "consecutive_failures", "breaker_until", "breaker_level"]


def _set_state(webhook: Webhook, state: Webhook.State, reason: str) -> None:
    webhook.state, webhook.state_reason, webhook.state_changed_at = state, reason, now()
    changed = ["state", "state_reason", "state_changed_at", "failing_since", "failing_told", "breaker_until"]
    webhook.save(update_fields=changed)
