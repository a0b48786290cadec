"""How much may be under way to one webhook, and in which order it starts."""

from __future__ import annotations

import socket
import time
from bisect import bisect_left
from datetime import timedelta
from typing import Any

import pytest

from conftest import Cast
from conversations import actions as conversation_actions
from core.clock import now
from core.outbound import Outcome
from core.tests import receivers
from core.tests.receivers import Received, receiver
from webhooks.engine import lane as lanes
from webhooks.engine import sending
from webhooks.engine.due import Due, Wanting
from webhooks.engine.lane import CAP_MOST, CAP_START, Lane
from webhooks.models import Attempt, Delivery, EngineTotal, Outstanding, Tally, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain, step


def due(number: int, attempts: int = 0, conversation: int | None = None) -> Due:
    """A delivery that is due."""
    return Due(number, 1, 1, number, conversation, attempts, True, None, ("", number), b"{}", "")


def answer(seconds: float, status: int | None = 200) -> Outcome:
    """An answer after so long, or none."""
    timings = {"dns": 0, "connect": 0, "tls": 0, "firstByte": 0, "total": int(seconds * 1000)}
    return Outcome(status, "" if status else "timeout", (), b"", False, timings)


def busy(lane: Lane, seconds: float, status: int | None = 200, rounds: int = 200) -> None:
    """Keep a lane full for a while with requests that all take so long."""
    under_way = [due(number) for number in range(CAP_MOST)]
    for number in range(rounds):
        while lane.open():
            lane.started(under_way[0])
        lane.ended(under_way[number % CAP_MOST], answer(seconds, status))


def test_the_cap_grows_while_the_endpoint_keeps_up_and_stops_at_the_most() -> None:
    lane = Lane()
    assert int(lane.cap) == CAP_START
    busy(lane, 0.05)
    assert int(lane.cap) == CAP_MOST


@pytest.mark.parametrize(("seconds", "cap"), [(0.001, CAP_START), (0.004, 20)])
def test_the_cap_grows_no_further_than_an_endpoint_that_answers_at_once_can_use(seconds: float, cap: int) -> None:
    lane = Lane()
    busy(lane, seconds)
    assert int(lane.cap) == cap


def test_the_cap_does_not_grow_into_an_endpoint_that_becomes_slower() -> None:
    lane = Lane()
    busy(lane, 0.05, rounds=1)
    for seconds in (0.1, 0.2, 0.4):
        busy(lane, seconds, rounds=20)
    assert lane.cap <= CAP_START + 2


@pytest.mark.parametrize("status", [None, 429, 503])
def test_the_cap_halves_when_there_is_no_answer_or_one_that_says_slower(status: int | None) -> None:
    lane = Lane()
    busy(lane, 0.05)
    busy(lane, 0.05, status, rounds=3)
    assert int(lane.cap) == CAP_MOST // 8
    busy(lane, 0.05, status, rounds=20)
    assert int(lane.cap) == 1
    busy(lane, 0.05, rounds=40)
    assert lane.cap >= CAP_START


def test_retries_leave_room_for_first_attempts() -> None:
    lane = Lane()
    lane.waiting.extend([due(number, attempts=1) for number in range(20)] + [due(99)])
    started = []
    while lane.open():
        one = lane.next()
        if one is None:
            break
        lane.started(one)
        started.append(one.id)
    assert started == [0, 1, 2, 3, 99]
    assert len(lane.waiting) == 16


def test_retries_that_wait_take_no_more_than_half_of_what_is_read() -> None:
    lane = Lane(more=True)
    for number in range(CAP_START):
        lane.take(due(number, attempts=1))
    assert (lane.quota(), lane.room_for_retries()) == (CAP_START // 2, -CAP_START // 2)
    for number in range(CAP_START // 2):
        lane.take(due(100 + number))
    assert lane.quota() == 0
    one = lane.next()
    assert one is not None
    lane.started(one)
    assert lane.room_for_retries() == -CAP_START // 2
    lane.left(one)
    assert lane.room_for_retries() == 1 - CAP_START // 2
    lane.forget_waiting()
    assert (lane.quota(), lane.room_for_retries()) == (CAP_START, CAP_START // 2)


def test_where_one_is_under_way_at_a_time_retries_and_first_attempts_take_turns() -> None:
    lane = Lane(cap=1.0)
    for number in range(3):
        lane.take(due(number, attempts=1))
    for number in range(3, 5):
        lane.take(due(number))
    started = []
    while (one := lane.next()) is not None:
        lane.started(one)
        lane.left(one)
        started.append(one.id)
    assert started == [0, 3, 1, 4, 2]
    assert (lane.retries_waiting, lane.retries_in_flight) == (0, 0)


@pytest.mark.django_db
def test_nobody_looks_again_and_again_for_first_attempts_where_only_retries_are_due(
    acme: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make_webhook(acme)
    Webhook.objects.filter(pk=webhook.pk).update(rate_limit=1, rate_seconds=1)
    make_delivery(acme, webhook, state="failed")
    for _ in range(20):
        make_delivery(acme, webhook, attempt_count=1)
    with running_drain() as drain:
        drain.look()
        lane = drain.serving.lanes[webhook.pk]
        assert lane.retries_waiting == lane.soon() > 1
        # The oldest were read, and there are more; then none that there is room for.
        assert drain.intake.found
        drain.look()
        assert (drain.intake.found, lane.more, lane.more_retries) == (False, False, True)
        while lane.room_for_retries() <= 0:
            assert not drain.intake.starving()
            assert lane.next() is not None
        assert drain.intake.starving()
        lane.forget_waiting()


@pytest.mark.parametrize("ordering", ["first", "strict"])
@pytest.mark.django_db
def test_what_an_endpoint_never_takes_does_not_keep_back_what_it_does_take(
    acme: Cast, ordering: str, settings: Any
) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]

    def behave(connection: socket.socket, request: Received) -> bool:
        return receivers.answer(500 if b"poison" in request.body else 200)(connection, request)

    def say(count: int, text: str) -> None:
        for number in range(count):
            address = f"44771747{text[:1].encode().hex()}{number:02}"
            conversation_actions.receive_message(channel=acme.channel, address=address, body=text)

    with receiver(behave) as server:
        webhook = make_webhook(acme, callback_url=server.url, ordering=ordering)
        say(30, "poison")
        at = now()
        deliver(at)
        webhook.refresh_from_db()
        assert webhook.breaker_level == 1
        # All were tried but for those that the breaker kept back; what can be taken comes after them.
        Outstanding.objects.filter(attempt_count=0).update(attempt_count=1)
        Outstanding.objects.update(next_attempt_at=at)
        say(3, "good")
        for _probe in range(2):
            at += timedelta(seconds=100)
            deliver(at)
    assert sum(b"good" in request.body for request in server.requests) == 3


@pytest.mark.django_db
def test_a_new_event_does_not_wait_until_all_retries_are_made(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "AHEAD_MOST", CAP_START)
    endpoint.delay = 0.05
    webhook = make_webhook(acme, callback_url=endpoint.url)
    make_delivery(acme, webhook, state="failed")
    old = [make_delivery(acme, webhook, attempt_count=1).pk for _ in range(60)]
    # Found by reading, not taken as it was made.
    waiting = make_delivery(acme, webhook, next_attempt_at=now())
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        conversation_actions.receive_message(channel=acme.channel, address="447717470000", body="new")
        step(drain)
    assert len(endpoint.asked) == 62
    first = Attempt.objects.order_by("attempted_at").values_list("delivery", flat=True)
    fresh = Delivery.objects.latest("id")
    order = list(first)
    assert max(order.index(waiting.pk), order.index(fresh.pk)) < len(old) / 2


def test_conversations_take_turns_but_never_overtake_themselves() -> None:
    lane = Lane()
    lane.waiting.extend([due(1, conversation=7), due(2, conversation=7), due(3, conversation=8)])
    first = lane.next()
    assert first is not None
    lane.started(first)
    second = lane.next()
    assert (first.id, second.id if second else None) == (1, 3)
    assert lane.next() is None
    lane.ended(first, answer(0.01))
    lane.busy.discard(7)
    third = lane.next()
    assert third is not None
    assert third.id == 2


def test_what_waits_for_retry_room_is_not_overtaken_in_its_conversation() -> None:
    lane = Lane(cap=2.0)
    lane.started(due(1, conversation=1, attempts=1))
    lane.waiting.extend([due(2, conversation=7, attempts=1), due(3, conversation=7)])
    assert lane.next() is None
    assert [one.id for one in lane.waiting] == [2, 3]


@pytest.mark.parametrize(
    ("limit", "seconds"), [(1, 1), (10, 1), (100, 1), (1000, 1), (10, 60), (600, 60), (10_000, 60)]
)
def test_in_no_second_or_minute_do_more_begin_than_the_rate_limit(limit: int, seconds: int) -> None:
    lane = Lane()
    lane.settle(Wanting(1, 1, 1, 0, limit, seconds, None, None))
    moment = time.monotonic()
    started: list[float] = []
    for tick in range(3000):
        at = tick * seconds / 1000
        while lane.wait(moment + at) == 0.0:
            lane.started(due(len(started)))
            started.append(at)
    most = max(bisect_left(started, at + seconds - 1e-6) - number for number, at in enumerate(started))
    assert most <= limit
    assert len(started) >= 3 * limit * 0.95 - 1


def test_an_engine_goes_on_with_a_rate_limit_where_the_one_before_left_off() -> None:
    lane = Lane()
    lane.settle(Wanting(1, 1, 1, 0, 1, 60, 20.0, None))
    assert 39.0 <= lane.wait(time.monotonic()) <= 40.0


@pytest.mark.django_db
def test_a_rate_limit_holds_in_the_engine_and_nothing_is_lost(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.filter(pk=webhook.pk).update(rate_limit=5, rate_seconds=1)
    for number in range(12):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477174700{number:02}", body="x")
    began = time.monotonic()
    deliver()
    assert len(endpoint.asked) == 12
    # Five a second.
    assert time.monotonic() - began >= 2.1


@pytest.mark.django_db
def test_an_organisation_leaves_room_for_the_others(
    acme: Cast, globex: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "IN_FLIGHT", 8)
    endpoint.delay = 0.3
    for cast in (acme, globex):
        make_webhook(cast, callback_url=endpoint.url)
    for number in range(10):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477174700{number:02}", body="x")
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        assert drain.sender.stream.in_flight == 6
        conversation_actions.receive_message(channel=globex.channel, address="447717470000", body="x")
        drain.look()
        drain.sender.start()
        assert drain.sender.in_flight == {acme.organisation.pk: 6, globex.organisation.pk: 1}
        step(drain)
    assert len(endpoint.asked) == 11


@pytest.mark.django_db
def test_organisations_whose_endpoints_never_answer_leave_room_for_another(
    acme: Cast, globex: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "IN_FLIGHT", 16)
    endpoint.delay = 1.0
    for cast in (acme, globex):
        for number in range(4):
            make_webhook(cast, callback_url=endpoint.url, name=str(number))
        for number in range(8):
            conversation_actions.receive_message(channel=cast.channel, address=f"4477174700{number:02}", body="x")
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        under_way = drain.sender.in_flight
        # Not all sixteen, and nearly equal parts.
        assert 12 <= sum(under_way.values()) <= 14
        assert abs(under_way[acme.organisation.pk] - under_way[globex.organisation.pk]) <= 1
        step(drain)
    assert len(endpoint.asked) == 64


@pytest.mark.django_db
def test_only_so_many_begin_at_once_and_the_others_soon_after(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "YOUNG", 3)
    monkeypatch.setattr(sending, "YOUNG_SECONDS", 0.2)
    endpoint.delay = 1.0
    make_webhook(acme, callback_url=endpoint.url)
    for number in range(8):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477174700{number:02}", body="x")
    with running_drain() as drain:
        drain.look()
        began = time.monotonic()
        assert drain.sender.start() == 0.2
        assert drain.sender.stream.in_flight == 3
        assert drain.sender.start() == 0.2
        assert drain.sender.stream.in_flight == 3
        time.sleep(max(0.0, began + 0.21 - time.monotonic()))
        drain.sender.start()
        # Those that have not answered by then are the endpoint's, and keep nobody back.
        assert drain.sender.stream.in_flight == 6
        step(drain)
    assert len(endpoint.asked) == 8
    assert drain.sender.in_flight == {acme.organisation.pk: 0}


@pytest.mark.django_db
def test_attempts_are_counted_by_outcome_and_duration(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    for number in range(3):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477174700{number:02}", body="x")
    deliver()
    endpoint.status = 500
    endpoint.delay = 0.06
    conversation_actions.receive_message(channel=acme.channel, address="447717470000", body="x")
    deliver()
    tally = Tally.objects.get(webhook=webhook)
    total = EngineTotal.objects.get(slot=0)
    assert tally.period.minute % 15 == 0
    for counted in (tally, total):
        assert (counted.delivered, counted.failed) == (3, 1)
        assert counted.upto_100 + counted.upto_250 + counted.upto_500 >= 1
        assert counted.duration_ms >= 60
