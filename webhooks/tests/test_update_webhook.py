"""Changing a webhook."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from conftest import Cast
from conversations.actions import receive_message
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict, Invalid
from core.outbound import Outcome
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook, events_of, pause_webhook, update_webhook
from webhooks.custom_headers import headers_of
from webhooks.engine import due, outgoing, record
from webhooks.engine.breaker import FAILURES, PAUSE
from webhooks.engine.drain import Drain
from webhooks.engine.due import Due, Part
from webhooks.engine.lane import CAP_START
from webhooks.engine.outgoing import SETTINGS_SECONDS
from webhooks.failing import check
from webhooks.models import Delivery, Outstanding, Subscription, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain, step


def test_only_what_is_given_changes(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, name="renamed", headers={"X-A": "b"})
    webhook.refresh_from_db()
    assert webhook.name == "renamed"
    assert headers_of(webhook) == {"X-A": "b"}
    assert webhook.callback_url == "https://hooks.example.com/in"
    assert events_of(webhook) == ["inboundMessage", "payment"]


def test_a_kept_event_keeps_its_start_and_a_new_one_counts_from_now(webhook: Webhook) -> None:
    old = Subscription.objects.get(webhook=webhook, event_type="payment")
    update_webhook(webhook=webhook, actor=SYSTEM, events=["payment", "setStatus"])
    rows = {row.event_type: row for row in webhook.subscriptions.all()}
    assert set(rows) == {"payment", "setStatus"}
    assert (rows["payment"].pk, rows["payment"].created_at) == (old.pk, old.created_at)
    assert rows["setStatus"].created_at > old.created_at


def test_a_change_is_audited_by_its_wire_names_and_no_change_is_not(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, name=webhook.name, events=["payment", "inboundMessage"])
    assert not AuditEntry.objects.filter(action="webhook.update").exists()
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/", events=["payment"])
    assert AuditEntry.objects.get(action="webhook.update").data["changed"] == ["callbackUrl", "events"]


def fail(webhook: Webhook) -> None:
    """Let the endpoint have failed for three days, and be left alone for a while."""
    moment = now()
    Webhook.objects.filter(pk=webhook.pk).update(
        failing_since=moment - timedelta(hours=72),
        last_failure_at=moment,
        failing_told=50,
        consecutive_failures=40,
        breaker_until=moment + timedelta(minutes=10),
        breaker_level=8,
    )


def test_another_callback_url_begins_afresh(acme: Cast, webhook: Webhook, endpoint: Endpoint) -> None:
    fail(webhook)
    make_delivery(acme, webhook)
    make_delivery(acme, webhook)
    endpoint.status = 500
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url=endpoint.url)
    assert (webhook.failing_since, webhook.consecutive_failures, webhook.breaker_until) == (None, 0, None)
    check()
    webhook.refresh_from_db()
    assert webhook.failing_told == 0
    at = now()
    deliver(at)
    webhook.refresh_from_db()
    # One request probed, and the pause is one of the first.
    assert (len(endpoint.asked), webhook.failing_since, webhook.consecutive_failures) == (1, at, 1)
    assert webhook.breaker_until is not None
    assert webhook.breaker_until - at <= timedelta(seconds=2 * PAUSE * 1.1)


@pytest.fixture
def moving(acme: Cast, endpoint: Endpoint) -> Webhook:
    """A webhook whose endpoint has an old and a new path."""
    return make_webhook(acme, callback_url=f"{endpoint.url}/old")


def work_until(drain: Drain, done: Callable[[], bool]) -> None:
    """Rounds of the engine's loop until something has happened."""
    deadline = time.monotonic() + 10
    while not done():
        assert time.monotonic() < deadline
        drain.settle((0, 1))
        drain.look()
        drain.sender.start()
        drain.collect(0.01)


@contextmanager
def moved(webhook: Webhook, endpoint: Endpoint, status: int, count: int, *, wait: bool = True) -> Iterator[Drain]:
    """An engine that had so many requests under way, answered so, when the callback URL was changed."""
    endpoint.status, endpoint.delay = status, 0.5
    with running_drain() as drain:
        work_until(drain, lambda: len(endpoint.asked) == count)
        update_webhook(webhook=webhook, actor=SYSTEM, callback_url=f"{endpoint.url}/new")
        while wait and not drain.idle():
            drain.collect(0.01)
        endpoint.delay = 0.0
        yield drain
    webhook.refresh_from_db()


def asked_at(endpoint: Endpoint) -> Counter[str]:
    """How often the old path was asked, and the new one."""
    return Counter(asked.path.rpartition("/")[2] for asked in endpoint.asked)


def receive(cast: Cast, count: int) -> None:
    """A message of each of so many contacts."""
    for number in range(count):
        receive_message(channel=cast.channel, address=f"44771700000{number}", body="hello")


@pytest.mark.parametrize("ordering", ["first", "strict"])
def test_what_an_endpoint_no_longer_wanted_is_sent_in_order_to_another_callback_url(
    acme: Cast, moving: Webhook, endpoint: Endpoint, ordering: str
) -> None:
    update_webhook(webhook=moving, actor=SYSTEM, ordering=ordering)
    receive(acme, 3)
    with moved(moving, endpoint, 410, 3) as drain:
        receive(acme, 3)
        endpoint.status = 200
        step(drain)
    assert (moving.state, moving.consecutive_failures, moving.breaker_until) == ("active", 0, None)
    deliver(now() + timedelta(seconds=2))
    assert asked_at(endpoint) == {"old": 3, "new": 6}
    order = [int(asked.headers["webhook-id"].split("_")[1]) for asked in endpoint.asked[3:]]
    for number in range(3):
        lane = sorted(order)[number::3]
        assert [event for event in order if event in lane] == lane
    ended = sorted(Delivery.objects.values_list("state", "attempt_count"))
    assert ended == [("delivered", 1)] * 3 + [("delivered", 2)] * 3


def test_what_the_old_callback_url_failed_is_not_added_to_what_the_new_one_does(
    acme: Cast, moving: Webhook, endpoint: Endpoint
) -> None:
    count = FAILURES // 2 + 1
    update_webhook(webhook=moving, actor=SYSTEM, retry_delays=[3600, 3600])
    receive(acme, count)
    with moved(moving, endpoint, 500, count) as drain:
        moving.refresh_from_db()
        assert (moving.consecutive_failures, moving.failing_since) == (0, None)
        time.sleep(2 * SETTINGS_SECONDS)
        step(drain)
    assert asked_at(endpoint) == {"old": count, "new": count}
    assert (moving.consecutive_failures, moving.breaker_until) == (count, None)


def test_while_some_are_under_way_to_the_old_callback_url_others_go_to_the_new_one(
    acme: Cast, moving: Webhook, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "SETTINGS_SECONDS", 0.0)
    receive(acme, 3)
    with moved(moving, endpoint, 200, 3, wait=False) as drain:
        receive_message(channel=acme.channel, address="447717000009", body="hello")
        lane = drain.serving.lanes[moving.pk]
        lane.cap, lane.streak = 4.0, 5
        work_until(drain, lambda: asked_at(endpoint)["new"] == 1 and lane.in_flight == 3)
        endpoint.status = 500
        assert asked_at(endpoint)["old"] == lane.in_flight == 3
        assert (lane.cap, lane.streak) == (CAP_START, 0)
        while drain.sender.stream.in_flight:
            drain.collect(0.01)
        assert (lane.in_flight, lane.retries_in_flight) == (0, 0)
        assert (lane.attempts, lane.failures, lane.streak) == (1, 0, 0)


def test_an_outcome_that_shows_another_callback_url_has_the_settings_read_anew(
    acme: Cast, moving: Webhook, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "SETTINGS_SECONDS", 60.0)
    receive(acme, 1)
    with moved(moving, endpoint, 200, 1) as drain:
        receive(acme, 2)
        step(drain)
    assert asked_at(endpoint) == {"old": 1, "new": 2}


def test_a_new_callback_url_that_is_gone_is_asked_once_for_each(
    acme: Cast, moving: Webhook, endpoint: Endpoint
) -> None:
    receive(acme, 3)
    with moved(moving, endpoint, 410, 3) as drain:
        step(drain)
    deliver(now() + timedelta(seconds=2))
    moving.refresh_from_db()
    assert (moving.state, moving.state_reason) == ("disabled", "gone")
    assert 1 <= asked_at(endpoint)["new"] <= 3
    assert set(Delivery.objects.values_list("state", flat=True)) == {"held"}


def outcome_of(webhook: Webhook, status: int) -> Callable[[], record.Written]:
    """Read what is due of a webhook as one request that is answered so; writing what came of it is for later."""
    (one,) = (Due(*row) for row in due.load([Part(webhook.pk, 1)]))
    answer = Outcome(status, "", (), b"", False, {"dns": 0, "connect": 0, "tls": 0, "firstByte": 0, "total": 1})
    judged = record.judge(one, answer, now(), webhook.callback_url, strict=False)
    return lambda: record.write([judged.report])


@pytest.mark.parametrize("status", [410, 500])
def test_what_was_under_way_when_a_webhook_was_moved_and_paused_stays_held(
    acme: Cast, webhook: Webhook, status: int
) -> None:
    make_delivery(acme, webhook)
    write = outcome_of(webhook, status)
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/")
    pause_webhook(webhook=webhook, actor=SYSTEM)
    assert write().counted == 1
    delivery = Delivery.objects.select_related("outstanding").get()
    assert (delivery.state, delivery.attempt_count, delivery.outstanding.next_attempt_at) == ("held", 1, None)


@pytest.mark.parametrize(("status", "state"), [(200, "delivered"), (410, "pending"), (500, "pending")])
def test_what_another_callback_url_answers_neither_heals_nor_harms(
    acme: Cast, webhook: Webhook, status: int, state: str
) -> None:
    make_delivery(acme, webhook)
    write = outcome_of(webhook, status)
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/")
    Webhook.objects.update(breaker_level=1, consecutive_failures=3)
    written = write()
    webhook.refresh_from_db()
    assert (written.counted, written.moved, written.healed, written.stopped) == (1, {webhook.pk}, set(), set())
    assert (webhook.state, webhook.breaker_level, webhook.consecutive_failures) == ("active", 1, 3)
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempt_count) == (state, 1)
    for left in Outstanding.objects.all():
        assert left.next_attempt_at is not None
        assert left.next_attempt_at <= now() + timedelta(seconds=SETTINGS_SECONDS)


def test_what_comes_of_a_callback_url_that_was_changed_and_changed_back_counts(acme: Cast, webhook: Webhook) -> None:
    make_delivery(acme, webhook)
    write, before = outcome_of(webhook, 500), webhook.callback_url
    for url in ("https://other.example/", before):
        update_webhook(webhook=webhook, actor=SYSTEM, callback_url=url)
    assert write().moved == set()
    webhook.refresh_from_db()
    assert webhook.consecutive_failures == 1


def test_any_other_change_leaves_what_is_held_against_the_endpoint(webhook: Webhook) -> None:
    fail(webhook)
    before = Webhook.objects.get()
    update_webhook(webhook=webhook, actor=SYSTEM, name="renamed", callback_url=before.callback_url)
    after = Webhook.objects.get()
    for name in ("failing_since", "failing_told", "consecutive_failures", "breaker_until", "breaker_level"):
        assert getattr(after, name) == getattr(before, name)


def test_owners_of_one_that_was_disabled_are_not_told_again_after_a_change(webhook: Webhook) -> None:
    fail(webhook)
    Webhook.objects.update(failing_since=now() - timedelta(days=6))
    check()
    update_webhook(webhook=webhook, actor=SYSTEM, callback_url="https://other.example/")
    check()
    assert (webhook.state, len(mail.outbox)) == ("disabled", 1)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("name", {"name": ""}),
        ("callbackUrl", {"callback_url": "https://127.0.0.1/"}),
        ("events", {"events": ["nothing"]}),
        ("events", {"events": []}),
        ("customValues", {"custom_values": None}),
        ("format", {"format": "xml"}),
        ("ordering", {"ordering": ""}),
        ("headers", {"headers": {"Host": "x"}}),
        ("headers", {"headers": None}),
    ],
)
def test_a_refused_change_changes_nothing(webhook: Webhook, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, **{"name": "other", **change})
    assert list(refusal.value.errors) == [field]
    webhook.refresh_from_db()
    assert webhook.name == "orders"
    assert events_of(webhook) == ["inboundMessage", "payment"]
    assert not AuditEntry.objects.filter(action="webhook.update").exists()


def test_custom_values_alone_are_enough(webhook: Webhook) -> None:
    update_webhook(webhook=webhook, actor=SYSTEM, events=[], custom_values=True)
    with pytest.raises(Invalid):
        update_webhook(webhook=webhook, actor=SYSTEM, custom_values=False)
    webhook.refresh_from_db()
    assert webhook.custom_values


def test_a_second_custom_value_endpoint_is_refused(acme: Cast, webhook: Webhook) -> None:
    make_webhook(acme, custom_values=True)
    with pytest.raises(Invalid) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, custom_values=True)
    assert (refusal.value.code, list(refusal.value.errors)) == ("custom_values_taken", ["customValues"])
    webhook.refresh_from_db()
    assert not webhook.custom_values


def test_what_is_no_setting_cannot_be_changed(webhook: Webhook) -> None:
    with pytest.raises(TypeError):
        update_webhook(webhook=webhook, actor=SYSTEM, state="disabled")


def test_a_deleted_webhook_is_left_alone(webhook: Webhook) -> None:
    archive_webhook(webhook=webhook, actor=SYSTEM)
    with pytest.raises(Conflict) as refusal:
        update_webhook(webhook=webhook, actor=SYSTEM, name="other")
    assert refusal.value.code == "webhook_archived"
