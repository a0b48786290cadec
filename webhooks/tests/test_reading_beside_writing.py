"""Outcomes are written beside what else the database is asked: what a reading has not seen of them misleads nobody."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import pytest

from conftest import Cast
from conversations.actions import receive_message
from webhooks.engine import dispatch
from webhooks.engine.breaker import FAILURES
from webhooks.engine.desk import Course, Inline
from webhooks.engine.drain import Drain
from webhooks.engine.writing import LINE
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, step

pytestmark = pytest.mark.django_db

READING = 0


class Slow(Inline):
    """Does each job at once; what came of it is told when the test says, line by line."""

    def __init__(self) -> None:
        self.busy = 0
        self.done: tuple[deque[tuple[Course, Any]], ...] = (deque(), deque())

    def follow(self, course: Course, line: int = 0) -> None:
        self.busy += 1
        self.step(course, line, None)

    def step(self, course: Course, line: int, result: Any) -> None:
        try:
            job = course.send(result)
        except StopIteration:
            self.busy -= 1
        else:
            self.done[line].append((course, job()))

    def tell(self, line: int) -> None:
        """Tell what came of the oldest job of a line."""
        course, result = self.done[line].popleft()
        self.step(course, line, result)

    def wait(self) -> None:
        for line in (READING, LINE):
            while self.done[line]:
                self.tell(line)

    proceed = wait


def sent_and_read_again(cast: Cast, desk: Slow) -> Drain:
    """An engine that has an answer to a message, wrote nothing of it, and reads the next one, which has come since."""
    drain = Drain(desk=desk)
    drain.settle((0, 1))
    receive_message(channel=cast.channel, address="447717470000", body="first")
    drain.look()
    drain.sender.start()
    deadline = time.monotonic() + 20.0
    while not drain.writer.results and time.monotonic() < deadline:
        drain.sender.collect(0.01)
    receive_message(channel=cast.channel, address="447717470000", body="second")
    dispatch.dispatch()
    desk.follow(drain.intake.read())
    return drain


def finished(drain: Drain) -> None:
    drain.desk.wait()
    drain.finish()


def test_a_breaker_that_opens_while_deliveries_are_read_is_open(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.update(consecutive_failures=FAILURES - 1)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    # The reading has found the webhook as it was.
    drain.writer.flush()
    assert Webhook.objects.get().breaker_level == 1
    desk.tell(LINE)
    desk.wait()
    lane = drain.serving.lanes[webhook.pk]
    assert (lane.probing, lane.settled, len(lane.waiting)) == (True, False, 0)
    drain.sender.start()
    assert not drain.sender.under_way
    finished(drain)
    assert len(endpoint.asked) == 1
    assert list(Delivery.objects.order_by("pk").values_list("state", "attempt_count")) == [
        ("pending", 1),
        ("pending", 0),
    ]


def test_one_that_heals_meanwhile_is_not_taken_for_ill(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    Webhook.objects.update(breaker_level=1)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    lane = drain.serving.lanes[webhook.pk]
    assert lane.probing
    drain.writer.flush()
    desk.tell(LINE)
    desk.wait()
    assert not lane.probing
    # What it left out is read soon.
    assert lane.more
    step(drain)
    finished(drain)
    assert [b"first" in body for body in bodies(endpoint)] == [True, False]


def test_what_follows_one_that_is_written_meanwhile_is_taken_at_once(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    # The second has been read, behind the first.
    desk.tell(READING)
    drain.writer.flush()
    desk.tell(LINE)
    desk.wait()
    lane = drain.serving.lanes[webhook.pk]
    first, second = Delivery.objects.order_by("pk")
    assert [(one.id, one.behind) for one in lane.waiting] == [(second.pk, first.pk)]
    step(drain)
    finished(drain)
    assert [b"first" in body for body in bodies(endpoint)] == [True, False]
    assert set(Delivery.objects.values_list("state", "attempt_count")) == {("delivered", 1)}


def test_in_strict_order_what_follows_one_that_failed_meanwhile_waits(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url, ordering="strict")
    desk = Slow()
    drain = sent_and_read_again(acme, desk)
    desk.tell(READING)
    drain.writer.flush()
    desk.tell(LINE)
    desk.wait()
    assert not drain.serving.lanes[webhook.pk].waiting
    step(drain)
    finished(drain)
    assert len(endpoint.asked) == 1
    assert list(Delivery.objects.order_by("pk").values_list("state", "attempt_count")) == [
        ("pending", 1),
        ("pending", 0),
    ]
