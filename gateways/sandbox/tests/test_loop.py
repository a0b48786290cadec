"""The carrier's loop, run for real."""

import threading
import time

import pytest
from django.db import connection, connections

from conftest import make_cast
from conversations import actions
from conversations.models import Message
from core import loops
from core.actors import SYSTEM
from core.clock import now
from gateways.sandbox import carrier, tasks
from gateways.sandbox.models import SandboxReport

pytestmark = pytest.mark.django_db(transaction=True)
#: The tests' SQLite lives in memory, where threads refuse each other's locks instead of waiting.
needs_threads = pytest.mark.skipif(connection.vendor == "sqlite", reason="needs a database with several writers")


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "It did not happen in time."
        time.sleep(0.01)


def in_threads(count, run):
    def body():
        try:
            run()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def start(cast, address):
    return actions.start_conversation(
        organisation=cast.organisation, actor=SYSTEM, channel_id=cast.channel.pk, address=address, body="Hello"
    )[1]


@pytest.fixture
def carrying(monkeypatch):
    """The loop in a thread, for slices of a few seconds."""
    monkeypatch.setattr(loops, "SLICE_SECONDS", 4.0)
    monkeypatch.setattr(loops, "enqueue", lambda *args: None)
    loops.ensure("sandbox")
    threads = in_threads(1, tasks.carry)
    wait_for(lambda: loops.alive("sandbox") == 1)
    yield
    for thread in threads:
        thread.join(15)


def test_a_slice_reports_what_falls_due_in_it(monkeypatch):
    monkeypatch.setattr(loops, "SLICE_SECONDS", 0.6)
    queued = []
    monkeypatch.setattr(loops, "enqueue", lambda *args: queued.append(args))
    loops.ensure("sandbox")
    message = start(make_cast("acme"), "447700900005")
    assert tasks.carry() == 1
    message.refresh_from_db()
    assert (message.state, message.status_code) == ("failed", 5)
    assert queued[-1] == (tasks.LOOP.task, tasks.LOOP.cluster)


@needs_threads
def test_an_idle_loop_reports_a_new_message_about_300_ms_after_it_was_sent(carrying):
    cast = make_cast("acme")
    message = start(cast, "447700900005")
    sent = now()
    wait_for(lambda: not SandboxReport.objects.exists())
    message.refresh_from_db()
    assert (message.state, message.status_code) == ("failed", 5)
    reported = message.outcomes[-1]["at"]
    assert 0.2 < (type(sent).fromisoformat(reported) - sent).total_seconds() < 1.5


@needs_threads
def test_several_processes_make_each_report_once():
    cast = make_cast("acme")
    for number in range(30):
        start(cast, f"4477009011{number:02}")
    SandboxReport.objects.update(due_at=now())

    def drain():
        while carrier.report_due():
            pass

    for thread in in_threads(3, drain):
        thread.join(30)
    assert not SandboxReport.objects.exists()
    states = Message.objects.filter(direction="outbound").values_list("state", "outcomes")
    assert {(state, len(outcomes)) for state, outcomes in states} == {("delivered", 2)}
