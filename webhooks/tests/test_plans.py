"""What PostgreSQL does for the engine's statements, also when it planned them while there was nothing to do."""

from __future__ import annotations

import re
from itertools import cycle

import pytest
from django.db import connection, transaction

from conftest import Cast, make_cast
from conversations.actions import receive_message
from conversations.models import Event, Position
from core.clock import now
from core.outbound import Outcome, no_answer
from webhooks.engine import due, record, sql
from webhooks.engine.dispatch import dispatch, waiting
from webhooks.engine.due import Due, Part
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.tests.conftest import URL, make_webhook

pytestmark = [
    pytest.mark.skipif("sqlite" in str(connection.settings_dict["ENGINE"]), reason="plans of PostgreSQL"),
    pytest.mark.django_db(transaction=True),
]

ARRIVED = Outcome(200, "", (), b"", False, {"total": 1})


#: How many messages there had been when the server last looked at the tables, how many of them waited to be sent, and
#: whether what had been sent was still there.
LEARNED = {
    "never anything": (0, 0, False),
    "all sent": (400, 0, True),
    "little to send": (400, 20, True),
    "all deleted": (400, 0, False),
}


@pytest.fixture(params=LEARNED)
def acme(request: pytest.FixtureRequest) -> Cast:
    """A cast with a webhook. What the server knows of the tables is of earlier, and every plan is of then."""
    cast = make_cast("acme")
    webhook = make_webhook(cast)
    # Of one row the server does not care by which index it finds it, and it learns of further ones soon enough.
    for name in ("globex", "initech"):
        make_webhook(make_cast(name))
    messages, left, kept = LEARNED[request.param]
    for _ in range(messages):
        say(cast)
    while send(webhook.pk, ARRIVED):
        pass
    for _ in range(left):
        say(cast)
    if not kept:
        for model in (Attempt, Delivery, Position, Event):
            model.objects.all().delete()
    with connection.cursor() as cursor:
        # Pages stay, as when an engine tidies up, so that there seem to be pages without rows.
        cursor.execute("VACUUM (ANALYZE, TRUNCATE FALSE)")
    connection.close()
    while send(webhook.pk, ARRIVED):
        pass
    return cast


def say(cast: Cast) -> None:
    receive_message(channel=cast.channel, address=cast.contact.address, body="Hello")


def send(webhook_id: int, *answers: Outcome) -> int:
    """Dispatch, read and write what came of it, as an engine does. Returns how many outcomes counted."""
    while dispatch(wanted=[webhook_id], room=2).events:
        pass
    wanting = due.webhooks_with_due_work()
    read = [Due(*row) for row in due.load([Part(webhook_id, 1000)])]
    assert bool(wanting) == bool(read)
    judged = [record.judge(one, answer, now(), URL, strict=False) for one, answer in zip(read, cycle(answers))]
    return record.write([one.report for one in judged]).counted


def prepared(words: str) -> list[tuple[str, int, bool]]:
    """Of each statement that was executed more than once: its name, number of parameters, whether one plan served."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, cardinality(parameter_types), generic_plans > 1 AND custom_plans = 0"
            " FROM pg_prepared_statements"
            " WHERE regexp_replace(statement, '\\s+', ' ', 'g') LIKE %s AND generic_plans + custom_plans > 1",
            [f"%{words}%"],
        )
        found: list[tuple[str, int, bool]] = cursor.fetchall()
    return found


def plans(words: str, explain: str = "EXPLAIN") -> list[str]:
    """How PostgreSQL executes each of these."""
    found = []
    for name, count, once in prepared(words):
        assert once
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql.IN_ORDER)
            parameters = f"({', '.join(['NULL'] * count)})" if count else ""
            cursor.execute(f'{explain} EXECUTE "{name}"{parameters}')
            found.append("\n".join(row[0] for row in cursor.fetchall()))
    assert found
    for plan in found:
        assert "Seq Scan" not in plan, plan
        assert "Bitmap" not in plan, plan
    return found


def accesses(plan: str, table: str) -> set[tuple[str, str]]:
    """Each index by which a plan reads a table, and the first condition, "" for none."""
    lines = [line.strip(" ->") for line in plan.splitlines()]
    found = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        using = re.search(rf"using (\w+) on {table}\b", line)
        if using:
            condition = re.match(r"Index Cond: \(+(.*?) [=<>]", following)
            found.add((using[1], condition[1] if condition else ""))
    return found


def dispatching_reads_no_table_as_a_whole_and_joins_by_hashing(acme: Cast) -> None:
    webhook = Webhook.objects.get(organisation=acme.organisation)
    for _ in range(3):
        say(acme)
        send(webhook.pk, ARRIVED)
    (plan,) = plans("facts AS MATERIALIZED")
    assert accesses(plan, "conversations_undispatched") == {
        ("conversations_undispatched_pkey", ""),
        ("conversations_undispatched_pkey", "event_id"),
    }
    assert accesses(plan, "conversations_event") == {("conversations_event_pkey", "id")}
    assert accesses(plan, "webhooks_outstanding") == {("outstanding_lane", "webhook_id")}
    assert plan.count("Hash Join") == 2, plan
    # In the words of PostgreSQL 14 to 18.
    assert re.search(r"Hash (Right )?Semi Join", plan), plan
    assert "hashed SubPlan" in plan


def whether_events_wait_is_seen_in_their_order(acme: Cast) -> None:
    assert not waiting()
    say(acme)
    assert waiting()
    (plan,) = plans("SELECT 1 FROM conversations_undispatched ORDER BY")
    assert accesses(plan, "conversations_undispatched") == {("conversations_undispatched_pkey", "")}
    assert "Sort" not in plan, plan


def who_has_something_due_is_found_by_one_look_for_each_webhook(acme: Cast) -> None:
    for _ in range(3):
        say(acme)
        send(Webhook.objects.get(organisation=acme.organisation).pk, ARRIVED)
    # Of what comes behind another PostgreSQL tells only when it has executed it.
    (plan,) = plans("WITH RECURSIVE pending", "EXPLAIN ANALYZE")
    # The first, those behind another, and when the first of one is due.
    assert accesses(plan, "webhooks_outstanding") == {("outstanding_due", "webhook_id")}
    assert (plan.count("Limit"), plan.count("using outstanding_due on")) == (3, 3), plan
    assert accesses(plan, "webhooks_webhook") >= {("webhooks_webhook_pkey", "id")}


def what_is_due_is_read_in_its_order_and_no_further_than_asked_for(acme: Cast) -> None:
    for _ in range(3):
        say(acme)
        send(Webhook.objects.get(organisation=acme.organisation).pk, ARRIVED)
    (plan,) = plans("AS behind FROM webhooks_outstanding")
    assert accesses(plan, "webhooks_outstanding") == {
        ("outstanding_due", "webhook_id"),
        ("outstanding_lane", "webhook_id"),
    }
    # That of each webhook and the two looks into its lanes; put in order is only what was read.
    assert (plan.count("Limit"), plan.count("Sort  (")) == (3, 1), plan
    assert accesses(plan, "conversations_event") == {("conversations_event_pkey", "id")}


def first_attempts_alone_are_read_among_the_oldest(acme: Cast) -> None:
    webhook = Webhook.objects.get(organisation=acme.organisation)
    for _ in range(3):
        say(acme)
        while dispatch(wanted=[webhook.pk], room=2).events:
            pass
        assert due.load([Part(webhook.pk, 1000, retries=False)])
        send(webhook.pk, ARRIVED)
    (plan,) = plans("AND d.attempt_count = 0")
    assert accesses(plan, "webhooks_outstanding") == {
        ("outstanding_due", "webhook_id"),
        ("outstanding_lane", "webhook_id"),
    }
    # One more ends the walk along all that is due, and one looks for a retry before each.
    assert (plan.count("Limit"), plan.count("Sort  (")) == (5, 1), plan


def outcomes_are_written_by_the_numbers_of_their_deliveries(acme: Cast) -> None:
    webhook = Webhook.objects.get(organisation=acme.organisation)
    for answers in (ARRIVED, ARRIVED), (ARRIVED, no_answer("timeout")):
        for _ in range(3):
            say(acme)
            say(acme)
            assert send(webhook.pk, *answers) == 2
    both = plans("DELETE FROM webhooks_outstanding")
    assert len(both) == 2
    for plan in both:
        assert accesses(plan, "webhooks_outstanding") == {("webhooks_outstanding_pkey", "delivery_id")}
        assert accesses(plan, "webhooks_delivery") == {("webhooks_delivery_pkey", "id")}
        assert "Nested Loop" not in plan, plan


def test_all_keep_to_indexes_in_order(acme: Cast) -> None:
    dispatching_reads_no_table_as_a_whole_and_joins_by_hashing(acme)
    whether_events_wait_is_seen_in_their_order(acme)
    who_has_something_due_is_found_by_one_look_for_each_webhook(acme)
    what_is_due_is_read_in_its_order_and_no_further_than_asked_for(acme)
    first_attempts_alone_are_read_among_the_oldest(acme)
    outcomes_are_written_by_the_numbers_of_their_deliveries(acme)


def test_after_a_statement_in_order_a_transaction_goes_on_as_usual() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        assert sql.run_in_order("SELECT current_setting('enable_nestloop'), %s::int", [7]) == [("off", 7)]
        cursor.execute("SELECT current_setting('enable_nestloop'), current_setting('plan_cache_mode')")
        assert cursor.fetchone() == ("on", "auto")
