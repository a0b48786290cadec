"""Several engines at once, on a database where they really run beside each other."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from django.db import connection, connections, transaction

from conftest import Cast, make_cast
from conversations import actions as conversation_actions
from conversations.models import Event, Position, Undispatched
from core.models import Sequence
from webhooks.engine import dispatch
from webhooks.engine.leases import Leases, ask
from webhooks.models import Delivery
from webhooks.tests.conftest import make_webhook

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("sqlite" in str(connection.settings_dict["ENGINE"]), reason="SQLite has one writer"),
]


def together(work: list[threading.Thread]) -> None:
    """Run all and wait."""
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(30)


def test_engines_fan_out_once_and_one_of_them_serves_a_webhook() -> None:
    acme = make_cast("acme")
    webhooks = [make_webhook(acme) for _ in range(10)]
    for number in range(60):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477000000{number % 6:02}", body="x")
    created = webhooks[-1].created_at
    expected = Event.objects.filter(type="inboundMessage", created_at__gte=created).count()
    served: dict[int, set[int]] = {}
    barrier = threading.Barrier(3)

    def engine(token: int) -> None:
        try:
            barrier.wait(10)
            for number in range(30):
                dispatch.dispatch(limit=7, wait=bool(number % 2))
            barrier.wait(10)
            leases = Leases(token)
            for _ in range(5):
                leases.add(ask(leases.token, [webhook.pk for webhook in webhooks]))
            served[token] = set(leases)
        finally:
            connections.close_all()

    together([threading.Thread(target=engine, args=(token,)) for token in (1, 2, 3)])
    positions = list(Position.objects.order_by("position").values_list("position", flat=True))
    assert positions == list(range(1, len(positions) + 1))
    for webhook in webhooks:
        assert Delivery.objects.filter(webhook=webhook).count() == expected
    times = Counter(pk for own in served.values() for pk in own)
    assert times == {webhook.pk: 1 for webhook in webhooks}


def test_while_somebody_else_numbers_events_they_are_left_to_that_one(acme: Cast) -> None:
    webhook = make_webhook(acme)
    conversation_actions.receive_message(channel=acme.channel, address="447700900001", body="x")
    dispatch.dispatch()
    conversation_actions.receive_message(channel=acme.channel, address="447700900001", body="y")
    found: list[dispatch.Dispatched] = []

    def other() -> None:
        try:
            found.append(dispatch.dispatch(wanted=[webhook.pk], room=5))
        finally:
            connections.close_all()

    with transaction.atomic():
        Sequence.objects.select_for_update().get(name=dispatch.POSITIONS)
        together([threading.Thread(target=other)])
        assert (found[0].events, found[0].elsewhere) == (0, True)
        assert Undispatched.objects.exists()
        waits = threading.Thread(
            target=lambda: (found.append(dispatch.dispatch(wait=True)), connections.close_all()),
        )
        waits.start()
        waits.join(0.3)
        assert waits.is_alive()
    waits.join(10)
    assert found[1].events
    assert not Undispatched.objects.exists()
