"""What is outstanding: exactly the deliveries that are not finished, whatever happens to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import OperationalError, connection, models

from conftest import Cast
from conversations.actions import receive_message
from core.actors import SYSTEM
from webhooks.actions import (
    archive_webhook,
    disable_webhook,
    enable_webhook,
    pause_webhook,
    resend_delivery,
    resume_webhook,
)
from webhooks.engine import record
from webhooks.engine.dispatch import dispatch
from webhooks.models import Delivery, Outstanding, Webhook
from webhooks.outstanding import in_state
from webhooks.stranded import settle_stranded
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver
from webhooks.tests.replays import begin, work_off
from webhooks.tests.running import python

#: What an outcome changes of a delivery that succeeds at once.
CHANGED = {"state", "attempt_count", "last_status_code", "last_error", "finished_at"}


def agree() -> dict[str, int]:
    """Assert that deliveries and what is outstanding of them say the same. Returns how many there are by state."""
    unfinished = {
        row.pk: row.state == "pending" for row in Delivery.objects.filter(state__in=["pending", "held"]).iterator()
    }
    rows = list(Outstanding.objects.select_related("delivery"))
    assert {row.pk: row.next_attempt_at is not None for row in rows} == unfinished
    for row in rows:
        same = ("organisation_id", "webhook_id", "event_id", "seq", "format", "format_version", "attempt_count")
        assert [getattr(row, name) for name in same] == [getattr(row.delivery, name) for name in same]
        assert row.lane == (row.delivery.conversation_id if row.delivery.kind == "event" else None)
    for row in Delivery.objects.all():
        assert row.exception == (row.state if row.state in ("failed", "held", "cancelled") else None)
        assert (row.finished_at is None) == (row.state in ("pending", "held"))
    return dict(Delivery.objects.order_by().values_list("state").annotate(count=models.Count("pk")))


def say(cast: Cast, *texts: str) -> None:
    for number, text in enumerate(texts):
        receive_message(channel=cast.channel, address=f"44770090000{number}", body=text)


def test_every_verb_keeps_them_in_step(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two", "three")
    dispatch()
    assert agree() == {"pending": 3}
    pause_webhook(webhook=webhook, actor=SYSTEM)
    assert agree() == {"held": 3}
    say(acme, "four")
    dispatch()
    assert agree() == {"held": 4}
    resume_webhook(webhook=webhook, actor=SYSTEM)
    assert agree() == {"pending": 4}
    endpoint.status = 500
    deliver()
    assert agree() == {"pending": 4}
    assert set(Outstanding.objects.values_list("attempt_count", "blocks")) == {(1, False)}
    disable_webhook(webhook=webhook, actor=SYSTEM)
    assert agree() == {"held": 4}
    enable_webhook(webhook=webhook, actor=SYSTEM)
    endpoint.status = 200
    Outstanding.objects.update(attempt_count=0)
    Delivery.objects.update(attempt_count=0)
    deliver()
    assert agree() == {"delivered": 4}
    resend_delivery(delivery=Delivery.objects.select_related("webhook__organisation").earliest("pk"), actor=SYSTEM)
    assert agree() == {"delivered": 4, "pending": 1}
    assert work_off(begin(webhook, states=["delivered"])).made == 3
    assert agree() == {"delivered": 4, "pending": 4}
    endpoint.status = 410
    deliver()
    counts = agree()
    assert counts["delivered"] == 4
    assert counts["held"] == 4
    archive_webhook(webhook=Webhook.objects.select_related("organisation").get(), actor=SYSTEM)
    assert agree() == {"delivered": 4, "cancelled": 4}


def test_what_is_stranded_is_settled_in_both(acme: Cast, webhook: Webhook) -> None:
    gone = make_webhook(acme, name="gone")
    for state in ("held", "pending"):
        make_delivery(acme, webhook, state=state)
        make_delivery(acme, gone, state=state)
    archive_webhook(webhook=gone, actor=SYSTEM)
    make_delivery(acme, gone)
    assert settle_stranded() == 2
    assert agree() == {"pending": 2, "cancelled": 3}


def test_states_are_told_apart_by_what_an_index_serves(acme: Cast, webhook: Webhook) -> None:
    other = make_webhook(acme, name="other")
    for one in (webhook, other):
        for state in Delivery.State.values:
            make_delivery(acme, one, state=state)
    for state in Delivery.State.values:
        assert Delivery.objects.filter(in_state(state)).values_list("state", flat=True).distinct().get() == state
        found = Delivery.objects.filter(in_state(state, webhook.pk), webhook=webhook).get()
        assert (found.state, found.webhook) == (state, webhook)


def test_no_index_of_deliveries_holds_what_a_success_changes(db: None) -> None:
    """Else PostgreSQL would write every index anew with each outcome."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, Delivery._meta.db_table)
    indexed = {column for one in found.values() if one["index"] or one["unique"] for column in one["columns"]}
    assert {"webhook_id", "exception", "created_at"} <= indexed
    conditions = {
        name for index in Delivery._meta.indexes if index.condition for name, _value in index.condition.children
    }
    assert not {name.partition("__")[0] for name in conditions} & CHANGED
    assert not indexed & CHANGED


def test_who_loses_a_deadlock_writes_its_outcomes_after_the_other(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadlock(Exception):
        sqlstate = "40P01"

    make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    write, lost = record.write, [True]

    def loses_once(*arguments: Any) -> record.Written:
        if lost and lost.pop():
            raise OperationalError("deadlock detected") from Deadlock()
        return write(*arguments)

    monkeypatch.setattr(record, "write", loses_once)
    deliver()
    assert agree() == {"delivered": 1}
    assert len(endpoint.asked) == 1
    assert lost == []


FILL = """
import django
django.setup()
import conftest
from webhooks.tests.conftest import make_delivery, make_webhook
acme = conftest.make_cast("acme")
for number in range(2):
    webhook = make_webhook(acme, name=str(number))
    make_delivery(acme, webhook, blocks=True)
    for state in ("pending", "held", "delivered", "failed", "cancelled"):
        make_delivery(acme, webhook, state=state, attempt_count=number)
"""
TELL = """
import json
import django
django.setup()
from webhooks.models import Delivery, Outstanding
print(json.dumps([list(Outstanding.objects.order_by("pk").values()), list(Delivery.objects.order_by("pk").values())],
                 default=str))
"""


@pytest.mark.long
def test_the_migration_moves_what_is_unfinished_there_and_back(environment: dict[str, str]) -> None:
    python(environment, "-c", FILL)
    before: list[list[dict[str, Any]]] = json.loads(python(environment, "-c", TELL))
    for target in ("0006", "0008"):
        python(environment, "manage.py", "migrate", "--verbosity", "0", "webhooks", target)
    assert json.loads(python(environment, "-c", TELL)) == before
    assert [len(rows) for rows in before] == [6, 12]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite changes rows in their place anyway.")
def test_postgresql_leaves_room_for_outcomes(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reloptions FROM pg_class WHERE relname = %s", [Delivery._meta.db_table])
        assert cursor.fetchone() == (["fillfactor=50"],)
