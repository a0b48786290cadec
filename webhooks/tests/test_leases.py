"""One engine at a time serves a webhook, and what that means for its deliveries."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from core.actors import SYSTEM
from core.clock import now
from core.outbound import Outcome
from webhooks.actions import archive_webhook, pause_webhook
from webhooks.engine import dispatch, due, leases, record
from webhooks.engine.due import Due, Part
from webhooks.engine.leases import NEEDED, SECONDS, Leases, ask
from webhooks.models import Attempt, Delivery, Lease, Webhook
from webhooks.tests.conftest import URL, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, deliver, only, running_drain

pytestmark = pytest.mark.django_db


def say(cast: Cast, *texts: str) -> None:
    """Inbound messages of one contact, dispatched."""
    for text in texts:
        conversation_actions.receive_message(channel=cast.channel, address="447717472695", body=text)
    dispatch.dispatch()


def outcome(status: int) -> Outcome:
    """An answer."""
    return Outcome(status, "", (), b"", False, {"dns": 0, "connect": 0, "tls": 0, "firstByte": 0, "total": 1})


def read(webhook: Webhook) -> list[Due]:
    """What is due for a webhook."""
    return [Due(*row) for row in due.load([Part(webhook.pk, 10)])]


def judged(delivery: Due, status: int) -> tuple[Any, ...]:
    """What an outcome of `delivery` is written from."""
    return record.judge(delivery, outcome(status), now(), URL, strict=False).report


def test_a_lease_is_for_one_engine_until_it_ends(webhook: Webhook) -> None:
    mine, theirs = Leases(1), Leases(2)
    mine.add(ask(mine.token, [webhook.pk]))
    theirs.add(ask(theirs.token, [webhook.pk]))
    assert webhook.pk in mine
    assert webhook.pk not in theirs
    Lease.objects.update(until=now() - timedelta(seconds=1))
    theirs.add(ask(theirs.token, [webhook.pk]))
    assert webhook.pk in theirs


def test_a_lease_given_up_is_free_at_once(webhook: Webhook) -> None:
    mine, theirs = Leases(1), Leases(2)
    mine.add(ask(mine.token, [webhook.pk]))
    mine.give_up(mine)
    assert webhook.pk not in mine
    theirs.add(ask(theirs.token, [webhook.pk]))
    assert webhook.pk in theirs


def test_all_are_given_up_also_what_was_asked_for_and_never_heard_of(acme: Cast, webhook: Webhook) -> None:
    other, foreign = make_webhook(acme), make_webhook(acme)
    mine, theirs = Leases(1), Leases(2)
    mine.add(ask(mine.token, [webhook.pk]))
    ask(mine.token, [other.pk])
    ask(3, [foreign.pk])
    mine.give_up_all()
    assert list(mine) == []
    assert set(ask(theirs.token, [webhook.pk, other.pk, foreign.pk])) == {webhook.pk, other.pk}


def test_no_request_starts_near_the_end_of_a_lease(webhook: Webhook) -> None:
    mine = Leases(1)
    moment = time.monotonic()
    mine.add(ask(mine.token, [webhook.pk]))
    assert mine.stands(webhook.pk, moment)
    assert not mine.stands(webhook.pk, moment + SECONDS - NEEDED + 1)
    assert not mine.stands(webhook.pk + 1, moment)


def test_renewing_lengthens_what_is_kept_and_tells_what_was_lost(
    acme: Cast, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_webhook(acme)
    mine = Leases(1)
    mine.add(ask(mine.token, [webhook.pk, other.pk]))
    assert mine.renew() == set()
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.0)
    Lease.objects.filter(webhook=other).update(until=now() - timedelta(seconds=1))
    ask(2, [other.pk])
    before = Lease.objects.get(webhook=webhook).until
    assert mine.renew() == {other.pk}
    assert other.pk not in mine
    assert Lease.objects.get(webhook=webhook).until > before


def test_nothing_is_sent_while_another_engine_serves_the_webhook(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two")
    ask(2, [webhook.pk])
    deliver()
    assert endpoint.asked == []
    Lease.objects.update(until=now() - timedelta(seconds=1))
    deliver()
    assert [b'"one"' in body for body in bodies(endpoint)] == [True, False]


def test_an_engine_leaves_to_others_what_is_theirs(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    with running_drain() as drain:
        drain.look()
        assert webhook.pk in drain.serving.leases
        drain.settle(((acme.organisation.pk + 1) % 2, 2))
        assert webhook.pk not in drain.serving.leases
        drain.look()
        assert not drain.intake.found
    assert endpoint.asked == []
    deliver()
    assert len(endpoint.asked) == 1


def test_a_frozen_engine_neither_goes_on_nor_overwrites_what_the_next_one_wrote(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two")
    (frozen,) = read(webhook)[:1]
    deliver()
    assert record.write([judged(frozen, 500)]).counted == 0
    states = Delivery.objects.order_by("id").values_list("state", "attempt_count", "last_status_code")
    assert list(states) == [("delivered", 1, 200), ("delivered", 1, 200)]
    assert list(Attempt.objects.order_by("id").values_list("status_code", "superseded")) == [
        (200, False),
        (200, False),
        (500, True),
    ]


def test_an_outcome_is_not_written_for_another_delivery_that_got_its_number(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    (one,) = read(webhook)
    for name in ("event_id", "webhook_id"):
        assert record.write([judged(replace(one, **{name: getattr(one, name) + 1}), 200)]).counted == 0
    assert only(webhook).state == "pending"
    assert record.write([judged(one, 200)]).counted == 1


def test_what_a_frozen_engine_puts_off_is_not_what_another_has_tried_meanwhile(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    (one,) = read(webhook)
    due.put_off(one.id, one.attempt_count, now() + timedelta(hours=1))
    assert only(webhook).outstanding.next_attempt_at > now() + timedelta(minutes=59)
    assert record.write([judged(one, 500)]).counted == 1
    later = only(webhook).outstanding.next_attempt_at
    due.put_off(one.id, one.attempt_count, now() + timedelta(hours=1))
    assert only(webhook).outstanding.next_attempt_at == later


@pytest.mark.parametrize(("statuses", "failures"), [((500, 200), 0), ((200, 500), 1)])
def test_how_an_endpoint_does_is_told_by_what_came_last(
    acme: Cast, webhook: Webhook, statuses: tuple[int, int], failures: int
) -> None:
    say(acme, "one", "two")
    one, two = read(webhook)
    # The second began later and ended first.
    record.write([judged(two, statuses[0]), judged(one, statuses[1])])
    webhook.refresh_from_db()
    assert webhook.consecutive_failures == failures


def test_success_of_a_request_that_was_under_way_at_a_pause_counts(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    (one,) = read(webhook)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    assert record.write([judged(one, 200)]).counted == 1
    assert only(webhook).state == "delivered"


def test_failure_of_a_request_that_was_under_way_at_a_pause_leaves_it_held(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    (one,) = read(webhook)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    assert record.write([judged(one, 500)]).counted == 1
    delivery = only(webhook)
    assert (delivery.state, delivery.next_attempt_at, delivery.attempt_count) == ("held", None, 1)


def test_the_outcome_of_a_cancelled_delivery_is_kept_as_superseded(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    (one,) = read(webhook)
    archive_webhook(webhook=webhook, actor=SYSTEM)
    assert record.write([judged(one, 200)]).counted == 0
    assert (only(webhook).state, Attempt.objects.get().superseded) == ("cancelled", True)


def test_outcomes_of_one_flush_are_judged_one_by_one(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one", "two", "three")
    one, two, three = read(webhook)
    record.write([judged(two, 200)])
    assert record.write([judged(one, 200), judged(two, 500), judged(three, 503)]).counted == 2
    states = Delivery.objects.order_by("id").values_list("state", "last_status_code", "attempt_count")
    assert list(states) == [("delivered", 200, 1), ("delivered", 200, 1), ("pending", 503, 1)]


def test_any_number_of_webhooks_is_read_at_once() -> None:
    assert due.load([Part(pk, 1, held=[pk]) for pk in range(1, 1002)]) == []
