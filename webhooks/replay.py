"""Sending a webhook's past events again: a replay is a row that says which, how fast and how far it has come.

The verbs here begin it, hold it and end it; `webhooks.replaying` works it off.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any

from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext as _

from core import loops
from core.actors import Actor
from core.clock import now
from core.errors import Conflict, Invalid
from organisations.audit import record_audit
from webhooks.actions import clean_events
from webhooks.models import Delivery, Replay, Webhook
from webhooks.outstanding import in_states

#: The loop that works replays off.
LOOP = "replays"
#: What may be sent again. Pending and held deliveries are still to be sent.
STATES = (Delivery.State.DELIVERED, Delivery.State.FAILED, Delivery.State.CANCELLED)
UNFINISHED = (Replay.State.RUNNING, Replay.State.PAUSED)
#: Deliveries a second.
RATE_LEAST, RATE_MOST, RATE_DEFAULT = 1, 1000, 100


def preview_replay(
    *,
    webhook: Webhook,
    states: Iterable[str] = (),
    events: Iterable[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    conversation_id: int | None = None,
) -> int:
    """How many deliveries `start_replay` would make. Raises `Invalid` as it does."""
    return chosen(_planned(webhook, states, events, since, until, conversation_id, RATE_DEFAULT)).count()


def start_replay(
    *,
    webhook: Webhook,
    actor: Actor,
    states: Iterable[str] = (),
    events: Iterable[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
    conversation_id: int | None = None,
    rate: int = RATE_DEFAULT,
) -> Replay:
    """Send every event again whose newest delivery to `webhook` is in one of `states`, at most `rate` a second.

    Empty `states` and `events` stand for all; the period, from `since` on and before `until` (now), is that of the
    events. While the webhook takes nothing the replay waits. Raises `Invalid` by wire name of the field, `Conflict`
    `webhook_archived`, and `replay_running` with `replayId` while another replay of the webhook is unfinished.
    """
    replay = _planned(webhook, states, events, since, until, conversation_id, rate)
    replay.actor_kind, replay.actor_id, replay.actor_label = actor.kind, actor.id, actor.label
    # Before the transaction: counting may take long, and SQLite has one writer.
    replay.total = chosen(replay).count()
    if not replay.total:
        replay.state, replay.finished_at = Replay.State.DONE, replay.created_at
    with transaction.atomic():
        locked = Webhook.objects.select_for_update(no_key=True).get(pk=webhook.pk)
        if locked.archived_at is not None:
            raise Conflict("webhook_archived", _("The webhook has been deleted."))
        _refuse_second(locked)
        _insert(replay)
        record_audit(actor, "replay.start", replay, data=_facts(replay))
        _wake()
    return replay


def pause_replay(*, replay: Replay, actor: Actor) -> Replay:
    """Make no more deliveries until it is resumed. Raises `Conflict` `replay_finished`."""
    return _move(replay, actor, Replay.State.PAUSED, "replay.pause")


def resume_replay(*, replay: Replay, actor: Actor) -> Replay:
    """Go on where it was paused. Raises `Conflict` `replay_finished`."""
    return _move(replay, actor, Replay.State.RUNNING, "replay.resume")


def cancel_replay(*, replay: Replay, actor: Actor) -> Replay:
    """End it before its time. The deliveries it has made are sent. Raises `Conflict` `replay_finished`."""
    return _move(replay, actor, Replay.State.CANCELLED, "replay.cancel")


def chosen(replay: Replay) -> models.QuerySet[Delivery]:
    """The deliveries a replay repeats: of each event its newest, if that is what was asked for.

    Only what had ended when the replay was begun: what ends meanwhile was not counted, whoever had it sent.
    """
    # As an expression, so that SQLite does not look through all the webhook's deliveries with a higher id.
    newer = Delivery.objects.alias(number=models.F("pk") + 0).filter(
        webhook_id=models.OuterRef("webhook_id"), event_id=models.OuterRef("event_id"), number__gt=models.OuterRef("pk")
    )
    rows = Delivery.objects.filter(
        ~models.Exists(newer),
        in_states(replay.states or STATES),
        webhook_id=replay.webhook_id,
        event__created_at__lt=replay.until,
        finished_at__lte=replay.created_at,
    )
    if replay.events:
        rows = rows.filter(event_type__in=replay.events)
    if replay.since is not None:
        rows = rows.filter(event__created_at__gte=replay.since)
    if replay.conversation_id is not None:
        rows = rows.filter(conversation_id=replay.conversation_id)
    return rows


def _planned(
    webhook: Webhook,
    states: Iterable[str],
    events: Iterable[str],
    since: datetime | None,
    until: datetime | None,
    conversation_id: int | None,
    rate: int,
) -> Replay:
    """A replay that is not saved. Raises one `Invalid` with the errors of all fields."""
    moment = now()
    errors: dict[str, list[str]] = {}
    wanted = list(states)
    if not set(wanted) <= set(STATES):
        errors["states"] = [_("Must be of: %(states)s.") % {"states": ", ".join(STATES)}]
    names = list(events)
    try:
        names = clean_events("events", names)
    except Invalid as refusal:
        errors.update(refusal.errors)
    # What happens from now on is no past.
    end = moment if until is None else min(until, moment)
    if since is not None and since >= end:
        errors["since"] = [_("Must be before the end of the period and in the past.")]
    if not RATE_LEAST <= rate <= RATE_MOST:
        errors["rate"] = [_("Must be from %(minimum)d to %(maximum)d.") % {"minimum": RATE_LEAST, "maximum": RATE_MOST}]
    if errors:
        raise Invalid(errors)
    return Replay(
        organisation=webhook.organisation,
        webhook=webhook,
        states=[state.value for state in STATES if state in wanted],
        events=names,
        since=since,
        until=end,
        conversation_id=conversation_id,
        rate=rate,
        created_at=moment,
    )


def _insert(replay: Replay) -> None:
    """Save a new replay, and put the one-unfinished constraint into words. Raises `Conflict`."""
    try:
        with transaction.atomic():
            replay.save(force_insert=True)
    except IntegrityError:
        _refuse_second(replay.webhook)
        raise


def _refuse_second(webhook: Webhook) -> None:
    """Raises `Conflict` `replay_running` while the webhook has an unfinished replay."""
    other = Replay.objects.filter(webhook=webhook, state__in=UNFINISHED).first()
    if other is not None:
        raise Conflict(
            "replay_running",
            _("Replay #%(id)d of the webhook is not finished; cancel it first.") % {"id": other.pk},
            replayId=str(other.pk),
        )


def _move(replay: Replay, actor: Actor, state: Replay.State, verb: str) -> Replay:
    """Give an unfinished replay another state; nothing happens when it has it already."""
    with transaction.atomic():
        locked = Replay.objects.select_for_update(no_key=True).get(pk=replay.pk)
        if locked.state not in UNFINISHED:
            raise Conflict(
                "replay_finished", _("The replay is %(state)s.") % {"state": locked.get_state_display().lower()}
            )
        if locked.state != state:
            locked.state = state
            locked.finished_at = None if state in UNFINISHED else now()
            locked.save(update_fields=["state", "finished_at"])
            record_audit(actor, verb, locked, data={"webhook": str(locked.webhook_id), "made": locked.made})
            _wake()
    for field in ("state", "position", "made", "finished_at"):
        setattr(replay, field, getattr(locked, field))
    return replay


def _facts(replay: Replay) -> dict[str, Any]:
    """What the audit trail tells of a replay."""
    return {
        "webhook": str(replay.webhook_id),
        "states": replay.states,
        "events": replay.events,
        "since": replay.since.isoformat() if replay.since else None,
        "until": replay.until.isoformat(),
        "conversation": replay.conversation_id,
        "rate": replay.rate,
        "total": replay.total,
    }


def _wake() -> None:
    """See that the loop runs when the current transaction has committed. Should that fail, others see to it soon."""
    transaction.on_commit(partial(loops.ensure, LOOP), robust=True)
