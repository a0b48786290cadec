"""Whether the delivery engine stays as fast as it was when the tables are full of what is over.

`python -m benchmarks.growth [--rows N] [--runs N]` measures the engine on a PostgreSQL database, fills it with N
finished deliveries, their attempts, events and messages, and measures it again, alone and beside retention. Then it
looks at the plans of the statements that engine, delivery log, retention and sweep really execute, and ends with 1 when
one reads a large table without an index. Ten million rows take some 20 GB and from ten minutes to half an hour.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.common import (
    ROOT,
    calling,
    delays,
    engine,
    figure,
    fresh_database,
    inside,
    machine,
    options,
    percentile,
    postgresql_there,
    receiving,
)

ENDPOINTS = 20
#: Enough for several seconds.
EVENTS = 60_000
IDLE_EVENTS = 150
#: Rows filled in by one statement, and bytes that a delivery with all that belongs to it takes at most.
BATCH = 100_000
BYTES_PER_ROW = 3_500
#: The history goes back so many days. Retention keeps less, so that of each kind there is something to delete; the
#: oldest events have no delivery left.
DAYS = 90
KEPT = {"attempts": 75, "deliveries": 80, "events": 85}
LARGE = ("conversations_event", "conversations_message", "webhooks_delivery", "webhooks_attempt")
#: All tables whose plans are looked at; the last has no numbers of its own.
TOLD = (*LARGE, "conversations_position")

#: Statements over the numbers `i` of a batch, in which organisations take turns (`o`).
_HISTORY = (
    """
    INSERT INTO conversations_message (
        id, organisation_id, conversation_id, channel_id, direction, body, state, outcomes, actor_kind, actor_id,
        actor_label, created_at
    )
    SELECT i, o.organisation_id, o.conversation, o.channel_id, 'inbound', 'A message of the usual length, no more.',
           'received', '[]', 'contact', '', '447700900123', o.at
    FROM {rows} AS o
    """,
    """
    INSERT INTO conversations_event (
        id, organisation_id, conversation_id, contact_id, type, seq, schema_version, data, actor_kind, actor_id,
        actor_label, created_at
    )
    SELECT i, o.organisation_id, o.conversation, o.contact_id, 'inboundMessage', o.seq, 1, o.data, 'contact', '',
           '447700900123', o.at
    FROM {rows} AS o
    """,
    """
    INSERT INTO conversations_position (event_id, organisation_id, position) SELECT i, o.organisation_id, i
    FROM {rows} AS o
    """,
    """
    INSERT INTO webhooks_delivery (
        id, organisation_id, webhook_id, event_id, copy, kind, event_type, conversation_id, seq, format, format_version,
        state, attempt_count, last_status_code, last_error, created_at, finished_at
    )
    SELECT i, o.organisation_id, o.webhook_id, i, 0, 'event', 'inboundMessage', o.conversation, o.seq, 'webio', 1,
           CASE WHEN i % 100 = 0 THEN 'failed' ELSE 'delivered' END, 1,
           CASE WHEN i % 100 = 0 THEN 410 ELSE 200 END, '', o.at, o.at + interval '50 milliseconds'
    FROM {rows} AS o WHERE o.at > o.oldest
    """,
    """
    INSERT INTO webhooks_attempt (
        id, organisation_id, delivery_id, number, attempted_at, status_code, error, error_detail, duration_ms, timings,
        response_headers, response_body, response_truncated, superseded
    )
    SELECT i, o.organisation_id, i, 1, o.at, CASE WHEN i % 100 = 0 THEN 410 ELSE 200 END, '', '', o.duration_ms,
           o.timings, o.response_headers, o.response_body, false, false
    FROM {rows} AS o WHERE o.at > o.oldest
    """,
)
_ROWS = """(
    SELECT i, sample.*, 1000000000000 + i / 200 * 20 + number AS conversation, i / 20 % 10 + 1 AS seq,
           now() - interval '{days} days' * (1 - (i - {start})::float / {total}) - interval '1 hour' AS at,
           now() - interval '{kept} days' AS oldest
    FROM generate_series({first}, {last}) AS i JOIN growth_sample AS sample ON number = i % {samples}
)"""
#: An event and an attempt of each webhook: were the rows of the history larger than those that the engine writes, each
#: of their pages would have room left for one of them, and that is where the database would write those.
_SAMPLE = """
CREATE TABLE growth_sample AS
SELECT row_number() OVER (ORDER BY webhook.id) - 1 AS number, webhook.organisation_id, webhook.id AS webhook_id,
       conversation.channel_id, event.contact_id, event.data,
       attempt.duration_ms, attempt.timings, attempt.response_headers, attempt.response_body
FROM webhooks_webhook AS webhook
JOIN conversations_conversation AS conversation ON conversation.organisation_id = webhook.organisation_id
JOIN conversations_event AS event ON event.conversation_id = conversation.id AND event.seq = 2
CROSS JOIN LATERAL (
    SELECT * FROM webhooks_attempt WHERE delivery_id = (
        SELECT max(id) FROM webhooks_delivery WHERE webhook_id = webhook.id AND state = 'delivered'
    ) LIMIT 1
) AS attempt
"""

#: How a statement is told from others, by what only it has, in the order in which they are tried.
STATEMENTS = {
    "number and fan out events": "facts AS MATERIALIZED",
    "read due deliveries": "CROSS JOIN LATERAL",
    "write outcomes and attempts": "WITH result(",
}


def fill(rows: str) -> dict[str, float]:
    """Make the history, its times spread evenly. Returns how long it took and how large the database is."""
    from django.db import connection

    total = int(rows)
    began = time.monotonic()
    with connection.cursor() as cursor:
        # Nobody refers to these rows: foreign keys and tenancy need not be checked ten million times.
        cursor.execute("SET session_replication_role = replica; SET synchronous_commit = off")
        cursor.execute(_SAMPLE)
        cursor.execute(f"SELECT greatest({', '.join(f'(SELECT max(id) FROM {table})' for table in LARGE)})")
        start = cursor.fetchone()[0]
        known = {"days": DAYS, "kept": KEPT["events"], "start": start, "total": total, "samples": ENDPOINTS}
        for first in range(start + 1, start + total + 1, BATCH):
            batch = _ROWS.format(**known, first=first, last=min(start + total, first + BATCH - 1))
            for statement in _HISTORY:
                cursor.execute(statement.format(rows=batch))
        for table in LARGE:
            cursor.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))")
        cursor.execute("UPDATE core_sequence SET value = %s WHERE name = 'event_position'", [start + total])
        cursor.execute("DROP TABLE growth_sample")
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("SELECT pg_database_size(current_database())")
        size = cursor.fetchone()[0]
    return {"seconds": time.monotonic() - began, "gigabytes": size / 2**30}


def keep() -> dict[str, int]:
    """Have what is older than `KEPT` expire."""
    from organisations.models import Organisation

    fields = {"attempts": "attempt", "deliveries": "delivery", "events": "event"}
    return {"changed": Organisation.objects.update(**{f"{fields[name]}_retention_days": KEPT[name] for name in KEPT})}


def expired(policy: str) -> int:
    """How many rows of one kind retention would delete now."""
    from core import retention

    return sum(rows.count() for rows in retention.POLICIES[policy].expired(retention.now()))


def retain(policy: str, seconds: str = "600") -> dict[str, int]:
    """Retention of one kind, for a while."""
    from core import retention

    retention.POLICIES = {policy: retention.POLICIES[policy]}
    return retention.run(float(seconds))[0]


class Plans:
    """The plans with which statements of this process were executed, as PostgreSQL tells them (auto_explain)."""

    def __init__(self) -> None:
        from django.db import connection

        self.found: list[dict[str, Any]] = []
        connection.ensure_connection()
        assert connection.connection is not None
        connection.connection.add_notice_handler(self.take)
        with connection.cursor() as cursor:
            cursor.execute("LOAD 'auto_explain'")
            for name, value in {
                "log_min_duration": "0",
                "log_analyze": "on",
                "log_buffers": "on",
                "log_format": "json",
                "log_level": "notice",
            }.items():
                cursor.execute(f"SET auto_explain.{name} = '{value}'")

    def take(self, diagnostic: Any) -> None:
        """Keep the plan that a notice tells, if it tells one of a large table."""
        head, _plan, document = (diagnostic.message_primary or "").partition("plan:\n")
        if not head.startswith("duration:"):
            return
        told = json.loads(document)
        scans = [
            (node.get("Relation Name", ""), node["Node Type"], node.get("Index Name", ""))
            for node in nodes(told["Plan"])
        ]
        touched = [scan for scan in scans if scan[0] in TOLD and scan[1].endswith("Scan")]
        if touched:
            pages = told["Plan"].get("Shared Hit Blocks", 0) + told["Plan"].get("Shared Read Blocks", 0)
            self.found.append(
                {
                    "text": told["Query Text"],
                    "milliseconds": float(head.split()[1]),
                    "pages": pages,
                    "whole": sorted({table for table, kind, _index in touched if "Seq" in kind}),
                    "indexes": sorted({index for _table, _kind, index in scans if index}),
                }
            )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def plans(seconds: str) -> list[dict[str, Any]]:
    """What engine, delivery log, retention, sweep and metrics execute on large tables: one entry for each statement."""
    told = Plans()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    work: dict[str, Callable[[], object]] = {
        "engine": lambda: _deliver(float(seconds)),
        "log": _read_log,
        "retention": lambda: _retain_briefly(1.5),
        "sweep": _sweep,
        "metrics": _metrics,
    }
    for who, act in work.items():
        told.found.clear()
        act()
        for one in told.found:
            text = re.sub(r"'[^']*'|\b\d+\b", "?", " ".join(one["text"].split()))
            text = re.sub(r"(\?(::\w+)?, )+\?", "?", text)
            entry = found.setdefault(
                (who, text),
                {
                    "who": who,
                    "text": text,
                    "calls": 0,
                    "total": 0.0,
                    "slowest": 0.0,
                    "pages": 0,
                    "whole": [],
                    "indexes": [],
                },
            )
            entry["calls"] += 1
            entry["total"] += one["milliseconds"]
            entry["slowest"] = max(entry["slowest"], one["milliseconds"])
            entry["pages"] = max(entry["pages"], one["pages"])
            for name in ("whole", "indexes"):
                entry[name] = sorted({*entry[name], *one[name]})
    return list(found.values())


def _deliver(seconds: float) -> None:
    """A slice of the real engine, in this process."""
    from core import loops
    from core.wakeup import Waiter
    from webhooks.engine.drain import Drain

    loops.ensure("deliveries")
    waiter = Waiter("deliveries")
    with loops.hold("deliveries") as run:
        if run is None:
            raise RuntimeError("Another engine runs.")
        run.ends_at = time.monotonic() + seconds
        Drain(run.slot_id).run(run, waiter)
    waiter.close()


def _read_log() -> None:
    """The pages of the log: an organisation's, a webhook's, filtered, a page further, one delivery."""
    from django.conf import settings
    from django.test import Client
    from django.test.utils import setup_test_environment
    from django.urls import reverse

    from organisations.models import Membership, Role, User
    from webhooks.models import Delivery, Webhook

    # Makes templates tell the client their context.
    setup_test_environment()
    webhook = Webhook.objects.select_related("organisation").order_by("pk")[0]
    user = User.objects.create_user("reader@bench.example", "bench-password")
    Membership.objects.create(organisation=webhook.organisation, user=user, role=Role.OWNER)
    client = Client()
    client.force_login(user, backend=settings.AUTHENTICATION_BACKENDS[0])
    slug = webhook.organisation.slug
    every = reverse("integrations:log", args=[slug])
    one = reverse("integrations:deliveries", args=[slug, webhook.pk])
    newest = Delivery.objects.filter(webhook=webhook).order_by("-pk").values_list("pk", flat=True)[0]
    for start, query in ((every, ""), (one, ""), (every, "?state=failed"), (one, "?state=failed")):
        page = client.get(start + query)
        if page.status_code != 200:
            raise RuntimeError(f"{start}{query} answered {page.status_code}.")
        if older := page.context["older"]:
            client.get(f"{start}?{older}")
    client.get(reverse("integrations:delivery", args=[slug, newest]))


def _retain_briefly(seconds: float) -> None:
    """Every kind of retention for a moment."""
    from core import retention

    every = dict(retention.POLICIES)
    for name, policy in every.items():
        retention.POLICIES = {name: policy}
        retention.run(seconds)


def _sweep() -> None:
    from webhooks import failing
    from webhooks.stranded import settle_stranded

    settle_stranded()
    failing.check()


def _metrics() -> None:
    from webhooks import metrics

    list(metrics.collect())


def speed(url: str, receiver: str, runs: int) -> list[dict[str, float]]:
    """The engine's rate and its latency when idle."""
    found = []
    for _ in range(runs):
        inside(url, "benchmarks.common", "vacuum")
        after = inside(url, "benchmarks.common", "events", EVENTS)["after"]
        with engine(url) as process:
            rate = inside(url, "benchmarks.jobs", "drained", EVENTS, after, process.pid)["rate"]
            waits = delays(receiver, inside(url, "benchmarks.jobs", "idle", IDLE_EVENTS, 0.05, 0.07))
        found.append({"rate": rate, "p50": percentile(waits, 0.5), "p99": percentile(waits, 0.99)})
    return found


def beside_retention(url: str, policy: str) -> dict[str, float]:
    """The engine's rate while retention deletes rows of one kind, and how many of them it deletes in a second."""
    inside(url, "benchmarks.common", "vacuum")
    before = inside(url, "benchmarks.growth", "expired", policy)
    after = inside(url, "benchmarks.common", "events", EVENTS)["after"]
    began = time.monotonic()
    with calling(url, "benchmarks.growth", "retain", policy):
        with engine(url) as process:
            rate = inside(url, "benchmarks.jobs", "drained", EVENTS, after, process.pid)["rate"]
        seconds = time.monotonic() - began
    return {"rate": rate, "deleted": (before - inside(url, "benchmarks.growth", "expired", policy)) / seconds}


def column(runs: list[dict[str, float]], name: str) -> list[float]:
    """One figure of all runs."""
    return [run[name] for run in runs]


def show_plans(found: list[dict[str, Any]]) -> bool:
    """Print a line for each statement. Returns whether all read large tables by indexes only."""
    print("  statements on large tables: mean ms, slowest ms, most pages, calls, and what they read", flush=True)
    for one in found:
        name = next((name for name, part in STATEMENTS.items() if part in one["text"]), one["text"][:160])
        read = ("WHOLE TABLE " + ", ".join(one["whole"]) + "; " if one["whole"] else "") + ", ".join(one["indexes"])
        mean = one["total"] / one["calls"]
        print(f"  {mean:8.1f} {one['slowest']:8.1f} {one['pages']:8} {one['calls']:6}  {one['who']}: {name}")
        print(f"{'':38}{read}")
    return not any(one["whole"] for one in found)


def main() -> None:
    """Measure and print; the exit code is 1 when a statement reads a large table without an index."""
    parser = options("growth")
    parser.add_argument("--rows", type=int, default=10_000_000, help="finished deliveries in the tables")
    chosen = parser.parse_args()
    print(f"machine   {machine()}")
    if not postgresql_there():
        print("PostgreSQL does not answer at BENCH_POSTGRESQL_URL: nothing is measured.")
        return
    if shutil.disk_usage(ROOT).free < chosen.rows * BYTES_PER_ROW:
        print(f"Less than {chosen.rows * BYTES_PER_ROW / 2**30:.0f} GiB are free: choose fewer --rows.")
        sys.exit(1)
    print(f"postgresql, {chosen.rows:,} finished deliveries, median of {chosen.runs} (least-most)", flush=True)
    with receiving() as receiver, fresh_database("postgresql") as url:
        inside(url, "benchmarks.common", "endpoints", receiver, ENDPOINTS)
        empty = speed(url, receiver, chosen.runs)
        filled = inside(url, "benchmarks.growth", "fill", chosen.rows)
        print(f"  filled in {filled['seconds']:.0f} s, {filled['gigabytes']:.1f} GiB", flush=True)
        full = speed(url, receiver, chosen.runs)
        for name, label in (("rate", "deliveries/s"), ("p50", "ms when idle, p50"), ("p99", "ms when idle, p99")):
            print(figure(column(empty, name), f"{label}, empty tables"))
            print(figure(column(full, name), f"{label}, full tables"))
        for name, label, target in (
            ("rate", "of the rate of empty tables", ">= 0.85"),
            ("p50", "times the latency of empty tables, p50", "<= 1.3"),
            ("p99", "times the latency of empty tables, p99", "<= 1.3"),
        ):
            before = statistics.median(column(empty, name))
            print(figure([value / before for value in column(full, name)], label, target), flush=True)
        before = statistics.median(column(full, "rate"))
        inside(url, "benchmarks.growth", "keep")
        for policy in KEPT:
            beside = [beside_retention(url, policy) for _ in range(chosen.runs)]
            rates = [value / before for value in column(beside, "rate")]
            print(figure(rates, f"of the rate while retention deletes {policy}", ">= 0.8"))
            print(figure(column(beside, "deleted"), f"{policy}/s deleted meanwhile"), flush=True)
        inside(url, "benchmarks.common", "vacuum")
        inside(url, "benchmarks.common", "events", EVENTS)
        good = show_plans(inside(url, "benchmarks.growth", "plans", 6))
    print("Large tables are read by indexes only." if good else "NOT GOOD: a large table is read as a whole.")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
