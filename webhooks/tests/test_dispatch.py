"""What dispatching gives back, and which events it takes first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection, transaction

from conftest import Cast, make_cast
from conversations.actions import receive_message
from conversations.models import Event
from organisations.models import Organisation
from webhooks.engine import due, intake
from webhooks.engine.dispatch import Dispatched, dispatch, settle_positions
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook
from webhooks.tests.engine import running_drain

pytestmark = pytest.mark.django_db

only_postgresql = pytest.mark.skipif(
    "sqlite" in str(connection.settings_dict["ENGINE"]), reason="SQLite has one engine, and one way to commit"
)

only_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="plans of SQLite")


def say(cast: Cast, count: int = 1) -> None:
    """So many messages of a contact."""
    for _ in range(count):
        receive_message(channel=cast.channel, address=cast.contact.address, body="Hello")


def all_dispatched() -> None:
    while dispatch().events:
        pass


def test_new_deliveries_of_wanted_webhooks_are_given_and_the_others_named(acme: Cast) -> None:
    wanted, full, quiet = make_webhook(acme), make_webhook(acme), make_webhook(acme, events=["setStatus"])
    all_dispatched()
    say(acme, 3)
    found = dispatch(wanted=[wanted.pk, quiet.pk], room=10)
    own = Delivery.objects.filter(webhook=wanted, event_type="inboundMessage").order_by("id")
    assert [due.Due(*row).id for row in found.fresh] == list(own.values_list("id", flat=True))
    assert len(found.fresh) == 3
    assert found.others == [full.pk]


def test_no_more_is_given_than_there_is_room_for(acme: Cast) -> None:
    webhook = make_webhook(acme)
    all_dispatched()
    say(acme, 3)
    found = dispatch(wanted=[webhook.pk], room=2)
    assert (found.events, len(found.fresh), found.others) == (3, 2, [])
    assert Delivery.objects.filter(webhook=webhook).count() == 3


def test_what_is_held_is_neither_given_nor_named(acme: Cast) -> None:
    webhook = make_webhook(acme)
    all_dispatched()
    Organisation.objects.filter(pk=acme.organisation.pk).update(suspended_at=webhook.created_at)
    say(acme)
    assert dispatch(room=9).others == []
    assert dispatch(wanted=[webhook.pk], room=9).fresh == []
    assert Delivery.objects.get(webhook=webhook).state == "held"


@only_postgresql
def test_each_engine_takes_events_of_its_own_organisations_first() -> None:
    casts = [make_cast(f"acme{number}") for number in range(4)]
    all_dispatched()
    for cast in casts:
        say(cast, 2)
    mine = [cast.organisation.pk for cast in casts if cast.organisation.pk % 2 == 1]
    assert dispatch(limit=4, place=(1, 2)).events == 4
    taken = Event.objects.filter(place__isnull=False).order_by("-place__position")[:4]
    assert sorted(event.organisation_id for event in taken) == sorted(mine * 2)
    # In the order of recording, and what is left is taken by anybody.
    assert [event.pk for event in taken] == sorted((event.pk for event in taken), reverse=True)
    assert dispatch(limit=9, place=(1, 2)).events == 4


def test_webhooks_of_one_organisation_are_at_home_with_different_engines() -> None:
    acme, other = make_cast("acme"), make_cast("other")
    webhooks = [make_webhook(acme), make_webhook(other), make_webhook(acme)]
    for cast in (acme, other):
        say(cast)
    all_dispatched()
    homes = {one.webhook_id: one.home for one in due.webhooks_with_due_work()}
    first, second = acme.organisation.pk, other.organisation.pk
    assert [homes[webhook.pk] for webhook in webhooks] == [first, second, first + 1]


@only_postgresql
@pytest.mark.django_db(transaction=True)
def test_positions_are_on_the_disk_before_anybody_is_told_of_them() -> None:
    acme = make_cast("acme")
    ahead = 0
    for _ in range(10):
        say(acme)
        with transaction.atomic():
            dispatch()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn()")
            written, on_disk = cursor.fetchone()
            ahead += written != on_disk
            settle_positions()
            cursor.execute("SELECT pg_current_wal_flush_lsn() >= %s", [written])
            assert cursor.fetchone() == (True,)
    # The server's own writer may have come first, but not each time.
    assert ahead


def test_what_others_have_dispatched_is_remembered_until_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter([Dispatched(events=1), Dispatched(), Dispatched()])
    monkeypatch.setattr(intake, "take_events", lambda *_: next(found))
    with running_drain() as drain:
        drain.serving.settle((0, 2))
        # It heard of events and took one; another engine may have taken others.
        drain.look(hinted=True, thorough=False)
        assert drain.intake.found
        drain.look(thorough=False)
        assert drain.intake.found
        drain.look(thorough=True)
        assert not drain.intake.found


def test_an_idle_engine_waits_for_another_that_dispatches_but_not_in_its_own_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([Dispatched(elsewhere=True), Dispatched()])
    waits: list[bool] = []

    def take(_hinted: bool, wait: bool, *_: object) -> Dispatched:
        waits.append(wait)
        return next(answers)

    monkeypatch.setattr(intake, "take_events", take)
    with running_drain() as drain:
        drain.look(hinted=True)
        assert waits == [False, True]
        assert not drain.intake.found


def sqlite_plans(ask: Callable[[], object]) -> list[str]:
    """How SQLite executes the statements that `ask` has executed."""
    connection.ensure_connection()
    statements: list[str] = []
    connection.connection.set_trace_callback(statements.append)
    try:
        assert ask()
    finally:
        connection.connection.set_trace_callback(None)
    plans: list[str] = []
    for statement in statements:
        if statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}".replace("%", "%%"))
                plans += [row[3] for row in cursor.fetchall()]
    return plans


@only_sqlite
def test_what_is_still_to_be_sent_makes_dispatching_no_slower(acme: Cast) -> None:
    """No statement goes through all that is outstanding, or through the log."""
    webhook = make_webhook(acme)
    say(acme, 3)
    plans = sqlite_plans(lambda: dispatch(wanted=[webhook.pk], room=2).fresh)
    assert any(plan.startswith("SEARCH d USING INTEGER PRIMARY KEY") for plan in plans)
    assert not [plan for plan in plans if plan.split()[:2] in (["SCAN", "d"], ["SCAN", "b"], ["SCAN", "event"])]
    assert not [plan for plan in plans if plan.startswith("SCAN webhooks_")]


@only_sqlite
def test_what_is_due_is_found_by_its_index(acme: Cast) -> None:
    webhook = make_webhook(acme)
    say(acme, 3)
    dispatch()
    plans = sqlite_plans(due.webhooks_with_due_work) + sqlite_plans(lambda: due.load([due.Part(webhook.pk, 2)]))
    by_webhook = [plan for plan in plans if "INDEX outstanding_due" in plan]
    # The first webhook, those after it, when the first of one is due, and what is due to it.
    assert len(by_webhook) == 4, plans
    assert all("webhook_id" in plan for plan in by_webhook)
    assert not [
        plan for plan in plans if "SCAN webhooks_" in plan or plan.split()[:2] in (["SCAN", "d"], ["SCAN", "b"])
    ]
