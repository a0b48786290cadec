"""`manage.py listen`, with a real platform at one end and a real endpoint at the other."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from django.conf import settings

from conftest import Cast
from conversations import actions
from conversations.events import EVENT_TYPES
from conversations.models import Event
from core.actors import SYSTEM
from core.signing import new_secret, verify
from payments.actions import record_payment
from webhooks.actions import disable_webhook
from webhooks.listening import body_of
from webhooks.payloads import render, standard
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint, running_endpoint
from webhooks.tests.running import wait_for
from webhooks.tests.serving import Platform, ready, served, two_organisations, until

pytestmark = pytest.mark.once


class Listening:
    """The command, running on a machine that has no database and none of the platform's settings."""

    def __init__(self, platform: Platform, endpoint: Endpoint, *arguments: str, key: str | None = None) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in ("DEMO", "SECRET_KEY")}
        environment |= {
            "DATABASE_URL": "postgres://nobody@127.0.0.1:1/nothing",
            "WEBIO_API_KEY": platform.keys["acme"] if key is None else key,
        }
        command = [sys.executable, "manage.py", "listen", "--url", platform.url, "--forward", endpoint.url, *arguments]
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=settings.BASE_DIR,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell's background job, such as a run of all tests, hands down that it ignores Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._queue.put(line)

    def says(self, text: str, seconds: float = 30) -> str:
        """The next line that contains `text`, skipping others."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{text!r} was not said: {self.lines}") from None
            if text in line:
                return line

    def interrupt(self, how: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C, or what a supervisor does."""
        self.process.send_signal(how)
        assert self.process.wait(10) == 0


@contextmanager
def listening(platform: Platform, endpoint: Endpoint, *arguments: str) -> Iterator[Listening]:
    """The command, once it listens."""
    found = Listening(platform, endpoint, *arguments)
    try:
        found.says("events of Acme")
        # The end of what there is has been asked for.
        time.sleep(0.5)
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
        found.process.wait(10)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One that all tests share."""
    with two_organisations(tmp_path_factory.mktemp("own")) as made, served(*made) as found:
        yield found


@pytest.fixture
def local() -> Iterator[Endpoint]:
    """What the developer works on."""
    with running_endpoint() as found:
        yield found


def text_of(endpoint: Endpoint, number: int) -> str:
    """The message in a request."""
    found: str = json.loads(endpoint.asked[number].body)["body"]
    return found


def test_an_event_is_posted_at_once_as_a_webhook_would(platform: Platform, local: Endpoint) -> None:
    secret = new_secret()
    platform.do("say", text="before")
    with listening(platform, local, "--secret", secret, "--header", "X-Webio-Token: abc") as listener:
        began = time.monotonic()
        platform.do("say", text="hello")
        wait_for(local, 1, 10)
        assert time.monotonic() - began < 2
        line = listener.says("inboundMessage")
    asked = local.asked[0]
    assert (asked.method, asked.path) == ("POST", "/hook")
    body = json.loads(asked.body)
    assert list(body) == [
        *("type", "conversationId", "communicationActionId", "outboundChannelAddress", "inboundChannelAddress"),
        *("customerUID", "body", "dateCreated"),
    ]
    assert (body["type"], body["body"]) == ("inboundMessage", "hello")
    assert verify([secret], asked.headers, asked.body, at=time.time()).valid
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("Webio/")
    assert asked.headers["x-webio-token"] == "abc"
    assert set(asked.headers) <= {
        *("host", "content-length", "accept-encoding", "content-type", "user-agent", "x-webio-token"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    }
    assert "evt_" in line
    assert "→ 200 in " in line


def test_without_a_secret_it_prints_one_that_verifies(platform: Platform, local: Endpoint) -> None:
    found = Listening(platform, local, "--format", "standard")
    try:
        secret = found.says("signed with").split()[-1]
        found.says("events of Acme")
        time.sleep(0.5)
        platform.do("say", text="signed")
        wait_for(local, 1, 10)
    finally:
        found.interrupt()
    asked = local.asked[0]
    assert verify([secret], asked.headers, asked.body, at=time.time()).valid
    assert json.loads(asked.body)["data"]["body"] == "signed"


def test_a_refusal_here_is_told_and_does_not_hold_up_the_next(platform: Platform, local: Endpoint) -> None:
    with listening(platform, local) as listener:
        local.status = 500
        platform.do("say", text="one")
        assert "→ 500 in " in listener.says("inboundMessage")
        local.status = 302
        local.headers = {"location": "http://127.0.0.1:1/"}
        platform.do("say", text="two")
        assert "→ 302 in " in listener.says("inboundMessage")
    assert [text_of(local, number) for number in range(len(local.asked))] == ["one", "two"]


def test_what_nobody_took_is_posted_again(platform: Platform, local: Endpoint) -> None:
    local.drops = 1
    with listening(platform, local) as listener:
        platform.do("say", text="dropped")
        assert "no connection; again in 1 s" in listener.says("inboundMessage")
        assert "→ 200 in " in listener.says("inboundMessage")
    assert local.asked[0].body == local.asked[1].body
    assert local.asked[0].headers["webhook-id"] == local.asked[1].headers["webhook-id"]


def test_only_the_events_asked_for_are_posted(platform: Platform, local: Endpoint) -> None:
    with listening(platform, local, "--events", "conversationClosed, payment") as listener:
        platform.do("say", text="not asked for")
        platform.do("close")
        platform.do("dispatch")
        listener.says("conversationClosed")
    assert [json.loads(asked.body)["type"] for asked in local.asked] == ["conversationClosed"]


def test_it_goes_on_when_the_platform_was_away(platform: Platform, local: Endpoint) -> None:
    with listening(platform, local) as listener:
        assert platform.web is not None
        platform.web.terminate()
        platform.web.wait(20)
        listener.says("no connection; again in")
        platform.do("say", text="meanwhile")
        platform.start_web()
        until(lambda: ready(platform.port), 60)
        wait_for(local, 1, 40)
        platform.do("say", text="after")
        wait_for(local, 2, 10)
    assert [text_of(local, 0), text_of(local, 1)] == ["meanwhile", "after"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_to_go_on_from(platform: Platform, local: Endpoint, how: signal.Signals) -> None:
    with listening(platform, local) as listener:
        platform.do("say", text="first")
        listener.says("→ 200")
        time.sleep(0.2)
        listener.interrupt(how)
        after = listener.says("--after").split()[-1]
    platform.do("say", text="between")
    with listening(platform, local, "--after", after) as listener:
        listener.says("→ 200")
    assert [text_of(local, number) for number in range(len(local.asked))] == ["first", "between"]


def test_a_key_that_is_revoked_costs_no_event(platform: Platform, local: Endpoint) -> None:
    with listening(platform, local) as listener:
        platform.do("say", text="first")
        listener.says("→ 200")
        platform.do("revoke", text="on")
        try:
            platform.do("say", text="second")
            after = listener.says("--after").split()[-1]
            listener.says("401")
            assert listener.process.wait(10) == 1
        finally:
            platform.do("revoke", text="off")
    platform.do("say", text="third")
    with listening(platform, local, "--after", after) as listener:
        wait_for(local, 3, 10)
    assert [text_of(local, number) for number in range(len(local.asked))] == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("arguments", "key", "sentence"),
    [
        ((), "wk_live_unknown", "401"),
        ((), "", "Give an API key"),
        (("--after", "x"), None, "after: Is not a cursor"),
        (("--secret", "abc"), None, "--secret: Must begin with whsec_"),
        (("--events", "payment,lunch"), None, "there is no lunch"),
        (("--url", "ftp://x"), None, "--url: 'ftp://x'"),
        (("--forward", "localhost:3000"), None, "--forward: 'localhost:3000'"),
        (("--header", "a"), None, "--header: 'a'"),
    ],
)
def test_what_cannot_work_is_said_and_ends_it(
    platform: Platform, local: Endpoint, arguments: tuple[str, ...], key: str | None, sentence: str
) -> None:
    found = Listening(platform, local, *arguments, key=key)
    assert found.process.wait(30) == 1
    until(lambda: sentence in "".join(found.lines), 5)
    assert "Traceback" not in "".join(found.lines)
    assert "to go on" not in "".join(found.lines)
    assert local.asked == []


@pytest.mark.parametrize("format", ["webio", "standard"])
def test_every_body_is_byte_for_byte_what_a_webhook_would_get(acme: Cast, format: str) -> None:
    acme.organisation.time_zone = "Europe/Dublin"
    acme.organisation.save()
    where: dict[str, Any] = {
        "organisation": acme.organisation,
        "actor": SYSTEM,
        "conversation_id": acme.conversation.pk,
    }
    actions.receive_message(channel=acme.channel, address=acme.contact.address, body="Größe <b>")
    actions.set_status(**where, status_id=acme.status.pk)
    actions.move_to_queue(**where, queue_id=acme.queue.pk)
    actions.assign_conversation(**where, user_id=acme.agent.pk)
    message = actions.send_message(**where, body="Paid?")
    actions.report_outcome(channel=acme.channel, message_id=message.pk, status_code=2)
    record_payment(**where, amount=Decimal("120.50"), currency="EUR", reference="r")
    actions.close_conversation(**where)
    disable_webhook(webhook=make_webhook(acme), actor=SYSTEM)
    rows = list(Event.objects.filter(organisation=acme.organisation, type__in=EVENT_TYPES).order_by("id")[1:])
    assert {row.type for row in rows} == set(EVENT_TYPES)
    for row in rows:
        heard = json.loads(json.dumps(standard(row)))
        assert body_of(heard, format, "Europe/Dublin") == render(row, format), row.type
