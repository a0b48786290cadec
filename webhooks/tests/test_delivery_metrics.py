"""What /metrics tells about deliveries."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from benchmarks.common import free_port
from conftest import Cast
from conversations.models import Undispatched
from core import loops
from core.actors import SYSTEM
from core.clock import held_at, now
from core.models import Slot
from core.tests.receivers import hang, receiver
from webhooks.actions import archive_webhook
from webhooks.engine.drain import Drain
from webhooks.engine.leases import ask
from webhooks.metrics import collect
from webhooks.models import Attempt, Delivery, EngineTotal, FailureTotal, Outstanding, Webhook
from webhooks.signals import LOOP
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver

PREFIXES = (
    "webio_deliveries",
    "webio_attempt",
    "webio_failed_attempts",
    "webio_events",
    "webio_loop",
    "webio_webhooks",
)
DURATION = "webio_attempt_duration_seconds"

pytestmark = pytest.mark.django_db


def told(client: Client) -> dict[str, float]:
    """Figures by name with labels."""
    lines = client.get("/metrics").content.decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith(PREFIXES))
    return {name: float(value) for name, value in pairs}


def test_waiting_and_held_deliveries_and_served_webhooks_are_counted(acme: Cast, client: Client) -> None:
    webhook = make_webhook(acme)
    make_delivery(acme, webhook)
    make_delivery(acme, webhook, next_attempt_at=now() + timedelta(hours=1))
    ask(7, [webhook.pk])
    make_delivery(acme, webhook, state="held")
    figures = told(client)
    assert figures["webio_deliveries_due"] == 1
    assert figures["webio_deliveries_oldest_due_seconds"] >= 3600
    assert figures["webio_deliveries_served_webhooks"] == 1
    assert figures["webio_deliveries_held"] == 1


def test_requests_under_way_are_counted_while_their_engine_is_alive(
    acme: Cast, client: Client, endpoint: Endpoint
) -> None:
    times = {"lease_until": now() + timedelta(seconds=5), "queued_until": now()}
    slot, _new = Slot.objects.update_or_create(name=LOOP, number=0, defaults={"holder": "x", **times})
    with receiver(hang) as hanging:
        make_delivery(acme, make_webhook(acme, callback_url=hanging.url))
        drain = Drain(slot.pk)
        drain.look()
        drain.sender.start()
        drain.settle((0, 1))
        assert told(client)["webio_deliveries_in_flight"] == 1
    drain.finish()
    assert told(client)["webio_deliveries_in_flight"] == 0
    # One that died without a word.
    EngineTotal.objects.filter(slot=slot.pk).update(in_flight=3)
    assert told(client)["webio_deliveries_in_flight"] == 3
    Slot.objects.update(lease_until=now() - timedelta(seconds=1))
    assert told(client)["webio_deliveries_in_flight"] == 0


def test_attempts_are_counted_by_outcome_and_duration_and_never_fewer(
    acme: Cast, client: Client, endpoint: Endpoint
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    before = told(client)
    assert before['webio_attempts_total{outcome="delivered"}'] == before[f"{DURATION}_count"] == 0
    make_delivery(acme, webhook)
    deliver()
    endpoint.status, endpoint.delay = 500, 0.3
    make_delivery(acme, webhook)
    deliver()
    Attempt.objects.all().delete()
    figures = told(client)
    assert figures['webio_attempts_total{outcome="delivered"}'] == 1
    assert figures['webio_attempts_total{outcome="failed"}'] == 1
    assert figures[f"{DURATION}_count"] == 2
    assert 0.3 <= figures[f"{DURATION}_sum"] < 10
    assert figures[f'{DURATION}_bucket{{le="0.25"}}'] <= 1
    assert figures[f'{DURATION}_bucket{{le="+Inf"}}'] == 2


def test_the_totals_of_all_engines_are_summed_and_buckets_are_cumulative(client: Client) -> None:
    EngineTotal.objects.create(slot=0, delivered=5, failed=1, duration_ms=1500, upto_10=2, upto_50=3, longer=1)
    EngineTotal.objects.create(slot=3, delivered=1, failed=2, duration_ms=500, upto_10=1, upto_10000=2)
    figures = told(client)
    assert figures['webio_attempts_total{outcome="delivered"}'] == 6
    assert figures['webio_attempts_total{outcome="failed"}'] == 3
    assert figures[f"{DURATION}_sum"] == 2
    assert [figures[f'{DURATION}_bucket{{le="{bound}"}}'] for bound in ("0.01", "0.025", "0.05", "5.0", "10.0")] == [
        3,
        3,
        6,
        6,
        8,
    ]
    assert figures[f'{DURATION}_bucket{{le="+Inf"}}'] == figures[f"{DURATION}_count"] == 9


def test_failed_attempts_are_counted_by_reason_over_all_engines(acme: Cast, client: Client, endpoint: Endpoint) -> None:
    FailureTotal.objects.create(slot=3, reason="http_5xx", failed=4)
    assert reasons(client) == {"http_5xx": 4}
    webhook = make_webhook(acme, callback_url=endpoint.url, retry_delays=[3600])
    closed = make_webhook(acme, callback_url=f"http://127.0.0.1:{free_port()}/", retry_delays=[3600])
    for status, count in ((200, 1), (503, 2), (404, 1), (302, 1)):
        endpoint.status = status
        for _number in range(count):
            make_delivery(acme, webhook)
        deliver()
    for _round in range(2):
        make_delivery(acme, closed)
        deliver()
    assert reasons(client) == {"http_5xx": 6, "http_4xx": 1, "http_3xx": 1, "connect": 2}
    assert told(client)['webio_attempts_total{outcome="failed"}'] == 6
    FailureTotal.objects.filter(slot=3).delete()
    Attempt.objects.all().delete()
    assert reasons(client) == {"http_5xx": 2, "http_4xx": 1, "http_3xx": 1, "connect": 2}


def test_a_reason_is_told_before_its_first_failure_and_our_own_faults_are_none(client: Client) -> None:
    found = {name for name in told(client) if name.startswith("webio_failed_attempts_total")}
    for reason in ("timeout", "tls", "dns", "refused_address", "http_4xx"):
        assert f'webio_failed_attempts_total{{reason="{reason}"}}' in found
    assert not any("local" in name or "proxy" in name for name in found)


def reasons(client: Client) -> dict[str, float]:
    """Failed attempts by reason, but for those that there are none of."""
    prefix = 'webio_failed_attempts_total{reason="'
    return {
        name.removeprefix(prefix).removesuffix('"}'): value
        for name, value in told(client).items()
        if name.startswith(prefix) and value
    }


def test_what_waits_for_an_open_breaker_is_not_late(acme: Cast, client: Client) -> None:
    webhook = make_webhook(acme)
    make_delivery(acme, webhook)
    Webhook.objects.update(breaker_until=now() + timedelta(minutes=1))
    figures = told(client)
    assert figures["webio_webhooks_breaker_open"] == figures["webio_deliveries_behind_breakers"] == 1
    assert figures["webio_deliveries_due"] == figures["webio_deliveries_oldest_due_seconds"] == 0
    Webhook.objects.update(breaker_until=now())
    figures = told(client)
    assert figures["webio_webhooks_breaker_open"] == figures["webio_deliveries_behind_breakers"] == 0
    assert figures["webio_deliveries_due"] == 1


def test_webhooks_are_counted_by_state(acme: Cast, client: Client) -> None:
    make_webhook(acme)
    for state in ("paused", "disabled", "disabled"):
        Webhook.objects.filter(pk=make_webhook(acme).pk).update(state=state)
    archive_webhook(webhook=make_webhook(acme), actor=SYSTEM)
    figures = told(client)
    found = [figures[f'webio_webhooks{{state="{state}"}}'] for state in ("active", "paused", "disabled")]
    assert found == [1, 1, 2]


def test_the_number_of_statements_does_not_grow_with_webhooks(acme: Cast, django_assert_max_num_queries: Any) -> None:
    for _number in range(5):
        make_delivery(acme, make_webhook(acme))
    with django_assert_max_num_queries(11):
        list(collect())


def test_without_an_engine_the_waiting_events_and_the_silence_show_it(acme: Cast, client: Client) -> None:
    recorded = Undispatched.objects.count()
    assert recorded > 0
    assert told(client)['webio_loop_silent_seconds{loop="deliveries"}'] == math.inf
    loops.ensure(LOOP)
    Slot.objects.update(lease_until=now())
    with held_at(now() + timedelta(minutes=10)):
        figures = told(client)
    assert figures["webio_events_waiting"] == recorded
    assert 600 <= figures["webio_events_oldest_waiting_seconds"] < 700
    assert 600 <= figures['webio_loop_silent_seconds{loop="deliveries"}'] < 700
    assert figures["webio_deliveries_oldest_due_seconds"] == 0
    # One is at work.
    deliver()
    Slot.objects.update(lease_until=now() + timedelta(seconds=10))
    figures = told(client)
    assert figures["webio_events_waiting"] == figures["webio_events_oldest_waiting_seconds"] == 0
    assert figures['webio_loop_silent_seconds{loop="deliveries"}'] == 0


@pytest.mark.skipif(connection.vendor != "postgresql", reason="plans of PostgreSQL")
def test_no_statement_reads_the_whole_table_of_what_is_outstanding(acme: Cast) -> None:
    delivery = make_delivery(acme, make_webhook(acme))
    names = [field.column for field in Outstanding._meta.concrete_fields]
    other = {
        "delivery_id": "delivery_id + number",
        "next_attempt_at": "CASE WHEN number %% 50 > 0 THEN next_attempt_at + interval '1 day' END",
    }
    values = [other.get(name, name) for name in names]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Outstanding._meta.db_table} ({', '.join(names)}) SELECT {', '.join(values)} "
            f"FROM {Outstanding._meta.db_table}, generate_series(1, 20000) AS number WHERE delivery_id = %s",
            [delivery.pk],
        )
        cursor.execute("ANALYZE")
        with CaptureQueriesContext(connection) as captured:
            list(collect())
        plans = []
        for query in captured.captured_queries:
            cursor.execute(f"EXPLAIN {query['sql']}")
            plans.append("\n".join(row[0] for row in cursor.fetchall()))
    assert len([plan for plan in plans if "outstanding_due" in plan]) >= 3
    tables = (Delivery._meta.db_table, Outstanding._meta.db_table)
    assert not [plan for plan in plans for table in tables if f"Seq Scan on {table}" in plan]
