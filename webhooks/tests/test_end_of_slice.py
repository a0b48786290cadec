"""A request that hangs when an engine's slice ends: the engine waits for it, and the others do not."""

from __future__ import annotations

import threading
import time

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
from webhooks.engine.drain import Drain
from webhooks.models import Delivery
from webhooks.signals import LOOP
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint

pytestmark = pytest.mark.django_db(transaction=True)

#: Seconds that a request may take, and that the slice lasts.
DEADLINE = 4.0
SLICE = 0.5


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
