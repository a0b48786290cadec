"""What is kept for how long, and what never goes."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django_q.models import Schedule

from conversations.models import Event, Position, Undispatched
from core import retention, tasks
from core.clock import now
from webhooks.models import Attempt, Delivery, Replay, Webhook


def make_webhook(cast):
    return Webhook.objects.create(
        organisation=cast.organisation, name="Receiver", callback_url="https://example.com/", secret="whsec_x"
    )


def make_event(cast, days, position=1):
    at = now() - timedelta(days=days)
    event = Event.objects.filter(organisation=cast.organisation).order_by("seq").last()
    copy = Event(
        organisation=cast.organisation,
        conversation=event.conversation,
        type="inboundMessage",
        seq=1000 + days,
        data=event.data,
        actor_kind="system",
        created_at=at,
    )
    copy.save()
    if position is not None:
        Undispatched.objects.filter(event=copy).delete()
        Position.objects.create(event=copy, organisation=cast.organisation, position=position)
    return copy


def make_delivery(event, webhook, state, days):
    at = now() - timedelta(days=days)
    finished = None if state in ("pending", "held") else at
    delivery = Delivery.objects.create(
        organisation=event.organisation,
        webhook=webhook,
        event=event,
        event_type=event.type,
        format="webio",
        state=state,
        created_at=at,
        finished_at=finished,
    )
    Attempt.objects.create(organisation=event.organisation, delivery=delivery, number=1, attempted_at=at)
    return delivery


def test_finished_deliveries_go_and_pending_and_held_stay_with_their_events(acme):
    webhook = make_webhook(acme)
    kept, gone = [], []
    for index, state in enumerate(Delivery.State.values):
        event = make_event(acme, 400 + index, position=index + 1)
        delivery = make_delivery(event, webhook, state, 400 + index)
        (kept if state in ("pending", "held") else gone).append((event.pk, delivery.pk))
    undispatched = make_event(acme, 500, position=None)
    deleted, done = retention.run()
    assert done
    assert (deleted["attempts"], deleted["deliveries"], deleted["events"]) == (5, 3, 3)
    assert set(Delivery.objects.values_list("event_id", "pk")) == set(kept)
    assert Event.objects.filter(pk=undispatched.pk).exists()
    assert not Event.objects.filter(pk__in=[pk for pk, _ in gone]).exists()
    assert Event.objects.filter(conversation=acme.conversation, seq__lt=1000).exists()


def test_each_organisation_keeps_for_its_own_time(acme, globex):
    globex.organisation.delivery_retention_days = 200
    globex.organisation.save()
    ours = make_delivery(make_event(acme, 100, 1), make_webhook(acme), "delivered", 100)
    theirs = make_delivery(make_event(globex, 100, 2), make_webhook(globex), "delivered", 100)
    retention.run()
    assert list(Delivery.objects.values_list("pk", flat=True)) == [theirs.pk]
    assert ours.pk != theirs.pk


def test_finished_replays_go_with_deliveries_and_unfinished_ones_stay(acme):
    acme.organisation.delivery_retention_days = 90
    acme.organisation.save()
    webhook = make_webhook(acme)

    def made(days, finished):
        at = now() - timedelta(days=days)
        values = {"state": "done", "finished_at": at} if finished else {"state": "paused"}
        return Replay.objects.create(
            organisation=acme.organisation, webhook=webhook, until=at, created_at=at, actor_kind="system", **values
        )

    _gone, kept = made(91, finished=True), [made(89, finished=True), made(91, finished=False)]
    deleted, _done = retention.run()
    assert deleted["replays"] == 1
    assert set(Replay.objects.all()) == set(kept)


def test_small_batches_reach_everything(acme, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    webhook = make_webhook(acme)
    for index in range(7):
        make_delivery(make_event(acme, 400 + index, index + 1), webhook, "held" if index == 3 else "delivered", 400)
    deleted, _done = retention.run()
    assert (deleted["attempts"], deleted["deliveries"], deleted["events"]) == (7, 6, 6)


def test_a_run_without_time_left_is_continued(acme, monkeypatch):
    queued = []
    monkeypatch.setattr(tasks.loops, "enqueue", lambda *args: queued.append(args))
    monkeypatch.setattr(retention, "run", lambda: ({}, False))
    tasks.retain()
    assert queued == [("core.tasks.retain", "webio")]


def test_a_dry_run_counts_and_deletes_nothing(acme):
    make_delivery(make_event(acme, 400), make_webhook(acme), "delivered", 400)
    out = StringIO()
    call_command("retention", "--dry-run", stdout=out)
    assert "attempts: 1\n" in out.getvalue()
    assert "deliveries: 1\n" in out.getvalue()
    assert Delivery.objects.count() == 1


@pytest.mark.django_db
def test_the_schedule_is_installed_once():
    from django.apps import apps

    for _ in range(2):
        tasks.install_schedules(sender=apps.get_app_config("django_q"), using="default")
    assert Schedule.objects.filter(func="core.tasks.retain").count() == 1
