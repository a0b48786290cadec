"""Order within a conversation, whatever fails, pauses, jumps or is handed over meanwhile."""

from __future__ import annotations

import random
import socket
import threading
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import orjson
import pytest
from django.db import connection

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event, Undispatched
from core.actors import SYSTEM
from core.clock import held_at, now
from core.tests.receivers import Received, answer, hang, raw, receiver
from webhooks.actions import pause_webhook, resume_webhook, update_webhook
from webhooks.engine.drain import Drain
from webhooks.engine.leases import Leases
from webhooks.models import Attempt, Delivery, Outstanding, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain

pytestmark = pytest.mark.django_db

#: An attempt more than there are delays, seconds.
DELAYS = [5, 60]
EVENTS = 60
CONTACTS = 4
#: How the clock moves between two steps, seconds. Back, too.
JUMPS = (0, 0, 1, 6, 70, 3600, -3600)
BREAKS_OFF = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nok")
#: SQLite has one engine.
ENGINES = 3 if connection.vendor == "postgresql" else 1


@pytest.fixture(autouse=True)
def loopback(settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]


class Fickle:
    """An endpoint that accepts, refuses and breaks off at random. `arrived`: (webhook-id, accepted) in order."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.arrived: list[tuple[str, bool]] = []
        self.lock = threading.Lock()

    def behave(self, connection: socket.socket, request: Received) -> bool:
        """Answer one request (`core.tests.receivers.Behaviour`)."""
        with self.lock:
            accepted = self.chance.random() < 0.7
            self.arrived.append((request.headers["webhook-id"], accepted))
            behaviour = answer() if accepted else self.chance.choice([answer(500), BREAKS_OFF])
            return behaviour(connection, request)


class Story:
    """Events, pauses, jumps of the clock and engines that come, go and take turns, all at random."""

    def __init__(self, cast: Cast, ordering: str, fickle: Fickle, url: str, chance: random.Random) -> None:
        self.cast, self.fickle, self.chance = cast, fickle, chance
        self.webhook = make_webhook(cast, callback_url=url, ordering=ordering)
        Webhook.objects.filter(pk=self.webhook.pk).update(retry_delays=DELAYS)
        # The clock goes back by hours: not to before the webhook was made.
        self.moment = now() + timedelta(days=2)
        self.engines: list[Drain] = []
        self.recorded = 0
        #: Deliveries that were held: they left the order.
        self.held: set[int] = set()

    def tell(self) -> None:
        """Until everything is recorded and nothing is pending any more."""
        for _ in range(1000):
            with held_at(self.moment):
                self.happen()
                self.work()
                if self.recorded >= EVENTS and self.over():
                    return
            self.moment += timedelta(seconds=self.chance.choice(JUMPS))
            if self.recorded >= EVENTS:
                self.moment += timedelta(minutes=5)
        raise AssertionError("The story does not end.")

    def happen(self) -> None:
        """What people do."""
        for _ in range(self.chance.randrange(5)):
            if self.recorded < EVENTS:
                address = f"44771700{self.chance.randrange(CONTACTS):04}"
                conversation_actions.receive_message(channel=self.cast.channel, address=address, body="x")
                self.recorded += 1
        self.webhook.refresh_from_db()
        if self.webhook.state == Webhook.State.PAUSED:
            if self.recorded >= EVENTS or self.chance.random() < 0.5:
                resume_webhook(webhook=self.webhook, actor=SYSTEM)
        elif self.recorded < EVENTS and self.chance.random() < 0.03:
            pause_webhook(webhook=self.webhook, actor=SYSTEM)

    def work(self) -> None:
        """Each engine does a step; sometimes one leaves and another comes."""
        if self.engines and self.chance.random() < 0.1:
            self.engines.pop(self.chance.randrange(len(self.engines))).finish()
        while len(self.engines) < ENGINES:
            engine = Drain()
            engine.serving.leases = Leases(self.chance.randrange(1, 2**60))
            self.engines.append(engine)
        for number, engine in enumerate(self.engines):
            engine.settle((number, len(self.engines)))
            engine.look()
            engine.sender.start()
            engine.collect(0.003)
        self.held |= set(Delivery.objects.filter(state="held").values_list("event_id", flat=True))

    def over(self) -> bool:
        """Nothing waits and nothing is under way."""
        waiting = Undispatched.objects.exists() or Delivery.objects.filter(state="pending").exists()
        return not waiting and all(engine.idle() for engine in self.engines)

    def lanes(self) -> dict[int, list[tuple[int, bool]]]:
        """(event, accepted) in the order of arrival by conversation, without what was held at any time."""
        conversation = dict(Event.objects.values_list("id", "conversation_id"))
        found: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        for identifier, accepted in self.fickle.arrived:
            event = int(identifier.split("_")[1])
            if event not in self.held:
                found[conversation[event]].append((event, accepted))
        return found


@pytest.fixture(params=range(4))
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


def told(acme: Cast, ordering: str, chance: random.Random) -> Story:
    """A whole story, checked for what holds in either order."""
    fickle = Fickle(chance)
    with receiver(fickle.behave) as server:
        story = Story(acme, ordering, fickle, server.url, chance)
        try:
            story.tell()
        finally:
            for engine in story.engines:
                engine.finish()
    assert Delivery.objects.count() == EVENTS
    states = dict(Delivery.objects.values_list("event_id", "state"))
    arrivals: dict[int, list[bool]] = defaultdict(list)
    for identifier, accepted in fickle.arrived:
        arrivals[int(identifier.split("_")[1])].append(accepted)
    for event, state in states.items():
        if event not in story.held:
            # Accepted once and not asked again, or refused as often as there are attempts.
            wanted = [False] * len(arrivals[event][:-1]) + [state == "delivered"]
            assert arrivals[event] == wanted
            assert len(wanted) == len(DELAYS) + 1 or state == "delivered"
    assert not Attempt.objects.filter(superseded=True).exists()
    assert Attempt.objects.count() == len(fickle.arrived)
    return story


def test_first_attempts_come_in_the_order_of_recording(acme: Cast, chance: random.Random) -> None:
    story = told(acme, "first", chance)
    for arrived in story.lanes().values():
        first = list(dict.fromkeys(event for event, _accepted in arrived))
        assert first == sorted(first)


def test_in_strict_order_nothing_overtakes(acme: Cast, chance: random.Random) -> None:
    story = told(acme, "strict", chance)
    for arrived in story.lanes().values():
        events = [event for event, _accepted in arrived]
        assert events == sorted(events)


def bodies(requests: list[Received]) -> list[dict[str, Any]]:
    """What arrived, in order."""
    return [orjson.loads(request.body)["data"] for request in requests]


@pytest.fixture
def conversations(acme: Cast) -> list[int]:
    """Two conversations of the cast."""
    return [say(acme, f"44771700000{number}", "before") for number in range(2)]


def say(cast: Cast, address: str, body: str) -> int:
    """A message of a contact; the conversation's id."""
    message = conversation_actions.receive_message(channel=cast.channel, address=address, body=body)
    assert message.conversation_id is not None
    return message.conversation_id


def test_what_is_to_be_repeated_keeps_back_what_comes_after_a_change_to_strict_order(
    acme: Cast, endpoint: Endpoint
) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, ordering="first")

    def say(text: str) -> None:
        conversation_actions.receive_message(channel=acme.channel, address=acme.contact.address, body=text)

    def texts() -> list[str]:
        return [orjson.loads(asked.body)["body"] for asked in endpoint.asked]

    endpoint.status = 500
    say("one")
    deliver()
    update_webhook(webhook=webhook, actor=SYSTEM, ordering="strict")
    endpoint.status = 200
    say("two")
    deliver()
    assert texts() == ["one"]
    deliver(now() + timedelta(minutes=1))
    assert texts() == ["one", "one", "two"]


def test_so_does_what_was_under_way_at_the_change(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, ordering="first")
    endpoint.status, endpoint.delay = 500, 0.3
    conversation_actions.receive_message(channel=acme.channel, address=acme.contact.address, body="one")
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        update_webhook(webhook=webhook, actor=SYSTEM, ordering="strict")
    assert Outstanding.objects.get(webhook=webhook).blocks


@pytest.mark.parametrize("ordering", ["first", "strict"])
def test_a_conversation_that_hangs_holds_up_no_other(acme: Cast, conversations: list[int], ordering: str) -> None:
    stuck, free = (str(pk) for pk in conversations)

    def behave(connection: socket.socket, request: Received) -> bool:
        hangs = orjson.loads(request.body)["data"]["conversationId"] == stuck
        return (hang if hangs else answer())(connection, request)

    with receiver(behave) as server:
        make_webhook(acme, callback_url=server.url, ordering=ordering, format="standard")
        for number in range(30):
            for address in ("447717000000", "447717000001"):
                say(acme, address, str(number))
        drain = Drain()
        for _ in range(300):
            drain.look()
            drain.sender.start()
            drain.collect(0.01)
            if Delivery.objects.filter(conversation_id=int(free), state="delivered").count() == 30:
                break
        came = bodies(server.requests)
    assert [data["body"] for data in came if data["conversationId"] == free] == [str(number) for number in range(30)]
    assert [data["body"] for data in came if data["conversationId"] == stuck] == ["0"]
    drain.finish()


@pytest.mark.parametrize("ordering", ["first", "strict"])
def test_the_gap_is_visible(acme: Cast, conversations: list[int], ordering: str) -> None:
    """The sequence in the body shows a receiver that one is missing, and the log shows which."""

    def behave(connection: socket.socket, request: Received) -> bool:
        refuse = orjson.loads(request.body)["data"]["body"] == "two"
        return answer(500 if refuse else 200)(connection, request)

    with receiver(behave) as server:
        webhook = make_webhook(acme, callback_url=server.url, ordering=ordering, format="standard")
        Webhook.objects.filter(pk=webhook.pk).update(retry_delays=DELAYS)
        for body in ("one", "two", "three"):
            say(acme, "447717000000", body)
        at: datetime = now()
        deliver(at)
        accepted = [data["sequence"] for data in bodies(server.requests) if data["body"] != "two"]
        start = accepted[0]
        assert accepted == ([start, start + 2] if ordering == "first" else [start])
        for _ in DELAYS:
            at += timedelta(minutes=2)
            deliver(at)
        accepted = [data["sequence"] for data in bodies(server.requests) if data["body"] != "two"]
        assert accepted == [start, start + 2]
    assert list(Delivery.objects.order_by("seq").values_list("seq", "state")) == [
        (start, "delivered"),
        (start + 1, "failed"),
        (start + 2, "delivered"),
    ]
