"""Several engines at once, on a database where they really run beside each other."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from django.db import connection, connections

from conftest import make_cast
from conversations import actions as conversation_actions
from conversations.models import Event
from webhooks.engine import claim, dispatch
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


def test_two_engines_fan_out_once_and_never_claim_the_same_or_out_of_order() -> None:
    acme = make_cast("acme")
    webhook = make_webhook(acme)
    for number in range(60):
        conversation_actions.receive_message(channel=acme.channel, address=f"4477000000{number % 6:02}", body="x")
    expected = Event.objects.filter(type="inboundMessage", created_at__gte=webhook.created_at).count()
    claimed: dict[int, list[claim.Claimed]] = {}
    barrier = threading.Barrier(3)

    def engine(token: int) -> None:
        try:
            barrier.wait(10)
            for _ in range(30):
                dispatch.dispatch(limit=7)
            barrier.wait(10)
            claimed[token] = [one for _ in range(20) for one in claim.claim([(webhook.pk, 5)], token)]
        finally:
            connections.close_all()

    together([threading.Thread(target=engine, args=(token,)) for token in (1, 2, 3)])
    positions = list(Event.objects.order_by("position").values_list("position", flat=True))
    assert positions == list(range(1, len(positions) + 1))
    assert Delivery.objects.filter(webhook=webhook).count() == expected
    times = Counter(one.id for own in claimed.values() for one in own)
    assert times
    assert set(times.values()) == {1}
    owners: dict[int | None, set[int]] = {}
    for token, own in claimed.items():
        for one in own:
            owners.setdefault(one.conversation_id, set()).add(token)
    # Nothing was finished, so each conversation is in the hands of whoever took its first.
    assert all(len(tokens) == 1 for tokens in owners.values())
