"""A request that hangs when an engine's slice ends: the engine waits for it, and the others do not."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import pytest
from django.db import connections

from conftest import Cast
from conversations.actions import receive_message
from core.clock import now
from core.loops import LEASE, Run
from core.models import Slot
from core.tests import receivers
from core.tests.receivers import receiver
from core.wakeup import Waiter
from webhooks.engine import outgoing
from webhooks.engine.desk import Course, Inline, Job, Line
from webhooks.engine.drain import Drain
from webhooks.models import Delivery
from webhooks.signals import LOOP
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, deliver, step

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds that a request may take, and that the slice lasts.
DEADLINE = 4.0
SLICE = 0.5


class Late(Inline):
    """Does jobs in this process, while `held` only when it is asked to wait for them."""

    def __init__(self) -> None:
        self.busy = 0
        self.held = False
        self.waiting: deque[tuple[Course, Job]] = deque()

    def follow(self, course: Course, line: Line = Line.LOOK) -> None:
        self.busy += 1
        self.step(course, None)

    def step(self, course: Course, result: Any) -> None:
        try:
            self.waiting.append((course, course.send(result)))
        except StopIteration:
            self.busy -= 1

    def proceed(self) -> None:
        if not self.held:
            self.wait()

    def wait(self) -> None:
        while self.waiting:
            course, job = self.waiting.popleft()
            self.step(course, job())


def test_nothing_begins_any_more_when_a_look_comes_back_after_the_end(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    desk = Late()
    drain = Drain(desk=desk)
    receive_message(channel=acme.channel, address="447717470000", body="before the end")
    drain.look()
    step(drain)
    # Something else is being asked, so that the next look is not done in the engine's own process.
    desk.held, drain.told = True, -1
    drain.tell()
    receive_message(channel=acme.channel, address="447717470001", body="at the end")
    drain.look(hinted=True)
    assert drain.intake.looking
    drain.finish()
    assert not drain.sender.under_way
    assert len(endpoint.asked) == 1
    # Whoever comes next sends it, once.
    deliver()
    assert [b"at the end" in body for body in bodies(endpoint)] == [False, True]
    assert list(Delivery.objects.values_list("state", "attempt_count")) == [("delivered", 1)] * 2


def test_others_are_served_while_it_hangs_and_it_gets_no_more(
    acme: Cast, globex: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "DEADLINE", DEADLINE)
    times = {"lease_until": now() + LEASE, "queued_until": now()}
    slot, _new = Slot.objects.update_or_create(name=LOOP, number=0, defaults={"holder": "this test", **times})
    make_webhook(globex, callback_url=endpoint.url)
    with receiver(receivers.hang) as hanging:
        stuck = make_webhook(acme, callback_url=hanging.url)

        def say(text: str) -> None:
            for cast in (acme, globex):
                receive_message(channel=cast.channel, address=cast.contact.address, body=text)

        def say_later() -> None:
            try:
                time.sleep(2 * SLICE)
                say("after the slice")
            finally:
                connections.close_all()

        say("before")
        later = threading.Thread(target=say_later)
        later.start()
        began = time.monotonic()
        waiter = Waiter(LOOP)
        try:
            Drain(slot.pk).run(Run(LOOP, slot.pk, "this test", began + SLICE), waiter)
        finally:
            waiter.close()
            later.join()
        assert time.monotonic() - began >= DEADLINE
        assert [b"after the slice" in asked.body for asked in endpoint.asked] == [False, True]
        assert len(hanging.requests) == 1
    assert sorted(Delivery.objects.filter(webhook=stuck).values_list("state", "attempt_count")) == [
        ("pending", 0),
        ("pending", 1),
    ]
