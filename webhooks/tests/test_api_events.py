"""Events by pull: the cursor neither skips nor repeats, whatever happens between two pulls."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import Client

from conftest import Cast, make_cast
from conversations import actions
from conversations.events import EVENT_TYPES
from conversations.models import Event
from core.actors import SYSTEM
from organisations.tests.calls import call, with_scopes
from payments.actions import record_payment
from webhooks.engine.dispatch import dispatch
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, deliver


def pull(client: Client, cast: Cast, after: str | None = None, limit: int = 200) -> dict[str, Any]:
    """One pull."""
    query = f"?limit={limit}" if after is None else f"?limit={limit}&after={after}"
    answer = call(client, cast, "GET", f"events{query}")
    assert answer.status_code == 200, answer.content[:300]
    found: dict[str, Any] = answer.json()
    return found


def pulls(client: Client, cast: Cast, limit: int, after: str | None = None) -> Iterator[dict[str, Any]]:
    """Pull after pull until there is nothing more now."""
    more = True
    while more:
        found = pull(client, cast, after, limit)
        after, more = found["next"], found["more"]
        yield found


def say(cast: Cast, *texts: str, address: str | None = None) -> None:
    """A contact's messages, which the engine then numbers."""
    for text in texts:
        actions.receive_message(channel=cast.channel, address=address or cast.contact.address, body=text)
    dispatch()


def texts(found: dict[str, Any]) -> list[str]:
    """The bodies of the messages pulled, in order."""
    return [event["data"]["body"] for event in found["results"]]


def test_an_event_is_told_as_a_webhook_of_the_standard_format_would_be(
    client: Client, acme: Cast, endpoint: Endpoint
) -> None:
    dispatch()
    make_webhook(acme, callback_url=endpoint.url, format="standard", events=list(EVENT_TYPES))
    start = pull(client, acme)["next"]
    where: dict[str, Any] = {
        "organisation": acme.organisation,
        "actor": SYSTEM,
        "conversation_id": acme.conversation.pk,
    }
    actions.set_status(**where, status_id=acme.status.pk)
    actions.move_to_queue(**where, queue_id=acme.queue.pk)
    actions.assign_conversation(**where, user_id=acme.agent.pk)
    actions.send_message(**where, body="Paid?")
    record_payment(**where, amount=Decimal("120.50"), currency="EUR", reference="r")
    actions.close_conversation(**where)
    deliver()
    found = pull(client, acme, start)
    assert set(found) == {"next", "more", "results"}
    assert found["results"] == [json.loads(body) for body in bodies(endpoint)]
    assert [event["type"] for event in found["results"]] == [
        "setStatus",
        "moveToQueue",
        "conversationAssignment",
        "messageSend",
        "payment",
        "conversationClosed",
    ]
    assert all(set(event) == {"id", "type", "timestamp", "data"} for event in found["results"])


def test_a_pull_begins_with_the_oldest_and_the_cursor_goes_on_behind_the_last(client: Client, acme: Cast) -> None:
    say(acme, "one", "two", "three", "four")
    found = list(pulls(client, acme, 2))
    assert [texts(one) for one in found] == [["Hello acme", "one"], ["two", "three"], ["four"]]
    assert [one["more"] for one in found] == [True, True, False]
    assert texts(pull(client, acme, found[0]["next"])) == ["two", "three", "four"]


def test_a_full_last_page_has_no_more(client: Client, acme: Cast) -> None:
    say(acme, "one")
    found = pull(client, acme, limit=2)
    assert (len(found["results"]), found["more"]) == (2, False)


def test_what_is_recorded_between_pulls_comes_next(client: Client, acme: Cast) -> None:
    say(acme)
    first = pull(client, acme)
    nothing = pull(client, acme, first["next"])
    assert nothing == {"next": first["next"], "more": False, "results": []}
    say(acme, "one")
    second = pull(client, acme, nothing["next"])
    say(acme, "two", address="353870000000")
    third = pull(client, acme, second["next"])
    assert [texts(found) for found in (first, second, third)] == [["Hello acme"], ["one"], ["two"]]


def test_an_old_cursor_gives_the_same_again_and_the_new_behind_it(client: Client, acme: Cast) -> None:
    say(acme)
    start = pull(client, acme)["next"]
    say(acme, "one")
    assert texts(pull(client, acme, start)) == ["one"]
    say(acme, "two")
    assert texts(pull(client, acme, start)) == ["one", "two"]


def test_latest_begins_behind_all_there_is(client: Client, acme: Cast, globex: Cast) -> None:
    say(acme, "old")
    say(globex, "of others, later")
    found = pull(client, acme, "latest")
    assert (found["more"], found["results"]) == (False, [])
    say(acme, "new")
    assert texts(pull(client, acme, found["next"])) == ["new"]
    assert pull(client, acme, "latest")["next"] == pull(client, acme, found["next"])["next"]


def test_latest_of_no_events_is_the_beginning(client: Client, acme: Cast) -> None:
    Event.objects.all().delete()
    found = pull(client, acme, "latest")
    say(acme, "first")
    assert texts(pull(client, acme, found["next"])) == ["first"]


def test_with_no_events_at_all_there_is_a_cursor_to_begin_with(client: Client, acme: Cast) -> None:
    Event.objects.all().delete()
    found = pull(client, acme)
    assert (found["more"], found["results"]) == (False, [])
    say(acme, "first")
    assert texts(pull(client, acme, found["next"])) == ["first"]


def test_what_the_engine_has_not_numbered_yet_is_not_told_and_not_lost(client: Client, acme: Cast) -> None:
    dispatch()
    start = pull(client, acme)["next"]
    actions.receive_message(channel=acme.channel, address=acme.contact.address, body="late")
    assert pull(client, acme, start)["results"] == []
    dispatch()
    assert texts(pull(client, acme, start)) == ["late"]


def test_internal_events_are_not_told_and_do_not_hold_the_cursor_up(client: Client, acme: Cast) -> None:
    say(acme)
    start = pull(client, acme)["next"]
    where: dict[str, Any] = {
        "organisation": acme.organisation,
        "actor": SYSTEM,
        "conversation_id": acme.conversation.pk,
    }
    actions.close_conversation(**where)
    actions.reopen_conversation(**where)
    dispatch()
    assert Event.objects.filter(type="conversationReopened").exists()
    found = pull(client, acme, start, limit=1)
    assert ([event["type"] for event in found["results"]], found["more"]) == (["conversationClosed"], False)
    assert pull(client, acme, found["next"])["results"] == []


def test_each_organisation_pulls_its_own(client: Client, acme: Cast, globex: Cast) -> None:
    for number in range(3):
        say(acme, f"acme {number}")
        say(globex, f"globex {number}")
    for cast, name in ((acme, "acme"), (globex, "globex")):
        found = [text for one in pulls(client, cast, 1) for text in texts(one)]
        assert found == [f"Hello {name}", *(f"{name} {number}" for number in range(3))]


def test_another_organisations_cursor_is_refused(client: Client, acme: Cast, globex: Cast) -> None:
    say(globex, "one")
    theirs = pull(client, globex, limit=1)["next"]
    answer = call(client, acme, "GET", f"events?after={theirs}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["after"])


@pytest.mark.parametrize("after", ["", "0", "1", "x", "1:x", ":", "-1", "%00", "٣", "9" * 40, "a" * 5000])
def test_what_is_no_cursor_is_refused(client: Client, acme: Cast, after: str) -> None:
    answer = call(client, acme, "GET", f"events?after={after}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["after"])


def test_a_cursor_that_was_changed_or_is_of_a_list_is_refused(client: Client, acme: Cast) -> None:
    say(acme, "one")
    number, signature = pull(client, acme, limit=1)["next"].split(":")
    of_list = call(client, acme, "GET", "queues?limit=1").json()["next"].rpartition("cursor=")[2]
    for after in (f"{int(number) + 1}:{signature}", f"{number}:{signature[:-1]}", signature, of_list):
        answer = call(client, acme, "GET", f"events?after={after}")
        assert (answer.status_code, list(answer.json()["errors"])) == (400, ["after"]), after


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1&limit=2", "limit"),
        ("wait=31", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("wait=", "wait"),
        ("wait=%D9%A3", "wait"),
        ("wait=1&wait=2", "wait"),
        ("after=x&after=y", "after"),
        ("cursor=x", "cursor"),
        ("type=payment", "type"),
        ("organisationId=1", "organisationId"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client: Client, acme: Cast, query: str, name: str) -> None:
    answer = call(client, acme, "GET", f"events?{query}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [name])


def test_pulling_takes_its_scope_and_a_key(client: Client, acme: Cast) -> None:
    headers = with_scopes(acme, "conversations:read", "deliveries:read", "webhooks:read")
    answer = call(client, acme, "GET", "events", headers=headers)
    assert (answer.status_code, answer.json()["scope"]) == (403, "events:read")
    assert call(client, acme, "GET", "events", headers={}).status_code == 401
    assert call(client, acme, "POST", "events", {}).status_code == 405


def test_a_pull_takes_as_many_queries_for_many_as_for_one(
    client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.API_RATE_LIMIT = "0"
    say(acme)
    pull(client, acme)
    with django_assert_max_num_queries(2):
        pull(client, acme)
    say(acme, *map(str, range(30)))
    with django_assert_max_num_queries(2):
        assert len(pull(client, acme)["results"]) == 31


@pytest.mark.django_db(transaction=True)
def test_while_many_record_at_once_nothing_is_skipped_or_repeated(settings: Any) -> None:
    settings.API_RATE_LIMIT = "0"
    acme, globex = make_cast("acme"), make_cast("globex")
    writers, each = 6, 15
    recorded = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Any, *given: Any) -> threading.Thread:
        def run() -> None:
            try:
                work(*given)
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                connections.close_all()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def write(number: int) -> None:
        chance = random.Random(number)
        cast = globex if number == 0 else acme
        for count in range(each):
            with transaction.atomic():
                # Two writers share each contact, and ids commit out of their order.
                address = f"44770000000{number // 2}"
                actions.receive_message(channel=cast.channel, address=address, body=f"{number}.{count}")
                time.sleep(chance.random() / 50)

    def number_events() -> None:
        while not recorded.is_set():
            dispatch(limit=3)
        while dispatch().events:
            pass

    def read(into: list[dict[str, Any]]) -> None:
        client, after = Client(), None
        while True:
            last = numbered.is_set()
            found = pull(client, acme, after, limit=4)
            into += found["results"]
            after = found["next"]
            if last and not found["more"]:
                return

    numbered = threading.Event()
    readers: list[list[dict[str, Any]]] = [[], []]
    reading = [guarded(read, into) for into in readers]
    numbering = [guarded(number_events) for _ in range(2)]
    for thread in [guarded(write, number) for number in range(writers)]:
        thread.join(60)
    recorded.set()
    for thread in numbering:
        thread.join(60)
    numbered.set()
    for thread in reading:
        thread.join(60)
    assert failures == []
    rows = Event.objects.filter(organisation=acme.organisation, type="inboundMessage").order_by("place__position")
    expected = [f"evt_{pk}" for pk in rows.values_list("pk", flat=True)]
    assert len(expected) == (writers - 1) * each + 1
    for events in readers:
        assert [event["id"] for event in events] == expected
        by_conversation: dict[str, list[int]] = {}
        for event in events:
            by_conversation.setdefault(event["data"]["conversationId"], []).append(event["data"]["sequence"])
        assert all(numbers == sorted(numbers) for numbers in by_conversation.values())
