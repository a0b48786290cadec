"""From a recorded event to the customer's endpoint, with a real server at the other end."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from django.db import transaction

from conftest import Cast
from conversations import actions as conversation_actions
from conversations.models import Event, Position, Undispatched
from core.actors import SYSTEM
from core.clock import held_at, now
from core.outbound import Outcome
from core.signing import verify
from organisations.models import WebioToken
from webhooks.actions import pause_webhook, resume_webhook, rotate_secret
from webhooks.engine import dispatch, outgoing, record, writing
from webhooks.engine.due import Due
from webhooks.engine.schedule import DELAYS, JITTER, RETRY_AFTER_MAXIMUM, next_delay, retry_after
from webhooks.models import Attempt, Delivery, Outstanding, Webhook
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import bodies, deliver, only, running_drain, step

pytestmark = pytest.mark.django_db


def say(cast: Cast, *texts: str, address: str = "447717472695") -> None:
    """Inbound messages of one contact."""
    for text in texts:
        conversation_actions.receive_message(channel=cast.channel, address=address, body=text)


def texts(endpoint: Endpoint) -> list[str]:
    """The message texts that arrived, in order."""
    return [json.loads(body)["body"] for body in bodies(endpoint)]


def outcome(status: int | None, headers: list[tuple[str, str]] | None = None) -> Outcome:
    """An answer with `status`, or none at all."""
    timings = {"dns": 0, "connect": 0, "tls": 0, "firstByte": 0, "total": 1}
    return Outcome(status, "" if status else "connect", tuple(headers or ()), b"", False, timings)


def test_outcomes_are_written_so_many_at_once_and_none_is_left_at_the_end(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def write(reports: list[tuple[Any, ...]], *rest: Any) -> record.Written:
        sizes.append(len(reports))
        return record.write(reports, *rest)

    monkeypatch.setattr(writing, "FLUSH_COUNT", 2)
    monkeypatch.setattr(writing, "write", write)
    webhook = make_webhook(acme, callback_url=endpoint.url)
    for number in range(7):
        say(acme, "Hello", address=f"44771747{number:04d}")
    with running_drain() as drain:
        # All have ended before any is written.
        monkeypatch.setattr(drain.writer, "due", lambda _in_flight: False)
        drain.settle((0, 1))
        drain.look()
        deadline = time.monotonic() + 20.0
        while len(drain.writer.results) < 7 and time.monotonic() < deadline:
            drain.sender.start()
            drain.collect(0.01)
        assert sizes == []
    assert sizes == [2, 2, 2, 1]
    assert Delivery.objects.filter(webhook=webhook, state="delivered").count() == 7


def test_an_event_is_posted_signed_and_its_attempt_recorded(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url, headers={"X-Mine": "yes"})
    WebioToken.objects.create(organisation=acme.organisation, token="older.jwt")
    WebioToken.objects.create(organisation=acme.organisation, token="newest.jwt")
    say(acme, "¡Hola!")
    deliver()
    (asked,) = endpoint.asked
    assert (asked.method, asked.headers["content-type"]) == ("POST", "application/json")
    assert asked.headers["user-agent"].startswith("Webio/")
    assert asked.headers["x-webio-token"] == "newest.jwt"
    assert asked.headers["x-mine"] == "yes"
    standardwebhooks.Webhook(webhook.secret).verify(asked.body, asked.headers)
    svix.webhooks.Webhook(webhook.secret).verify(asked.body, asked.headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(webhook.secret).verify(asked.body + b" ", asked.headers)
    delivery = only(webhook)
    assert (delivery.state, delivery.attempt_count) == ("delivered", 1)
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.status_code, attempt.error, attempt.superseded) == (1, 200, "", False)
    assert attempt.response_body == "ok"
    assert ["content-length", "2"] in attempt.response_headers
    webhook.refresh_from_db()
    assert webhook.last_success_at is not None


def test_while_a_secret_rotates_both_sign(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    old = webhook.secret
    rotate_secret(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    say(acme, "one")
    deliver()
    (asked,) = endpoint.asked
    assert len(asked.headers["webhook-signature"].split(" ")) == 2
    for secret in (old, webhook.secret):
        standardwebhooks.Webhook(secret).verify(asked.body, asked.headers)


def test_24_hours_after_a_rotation_the_engine_signs_with_the_new_secret_alone(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "SETTINGS_SECONDS", 0.0)
    webhook = make_webhook(acme, callback_url=endpoint.url)
    old = webhook.secret
    moment = now()
    with held_at(moment):
        rotate_secret(webhook=webhook, actor=SYSTEM)
    webhook.refresh_from_db()
    day = timedelta(hours=24)
    with running_drain() as drain:
        for passed in (day - timedelta(seconds=1), day):
            with held_at(moment + passed):
                say(acme, "hello")
                step(drain)
    rotating, after = endpoint.asked
    assert verify([old], rotating.headers, rotating.body).valid
    assert verify([webhook.secret], after.headers, after.body).valid
    assert not verify([old], after.headers, after.body).valid
    assert len(after.headers["webhook-signature"].split(" ")) == 1


def test_only_subscribed_webhooks_of_the_same_organisation_hear(acme: Cast, globex: Cast, endpoint: Endpoint) -> None:
    make_webhook(globex, callback_url=endpoint.url)
    make_webhook(acme, callback_url=endpoint.url, events=["setStatus"])
    say(acme, "one")
    deliver()
    assert endpoint.asked == []
    assert not Delivery.objects.exists()


def test_events_before_the_subscription_are_not_delivered(acme: Cast, endpoint: Endpoint) -> None:
    say(acme, "before")
    make_webhook(acme, callback_url=endpoint.url)
    say(acme, "after")
    deliver()
    assert texts(endpoint) == ["after"]


def test_positions_have_no_gaps_and_follow_the_order(acme: Cast) -> None:
    say(acme, "one", "two", "three")
    while dispatch.dispatch(limit=2).events:
        pass
    rows = list(Event.objects.order_by("id").values_list("place__position", flat=True))
    assert rows == list(range(1, len(rows) + 1))


def test_dispatching_again_makes_no_second_delivery(acme: Cast, webhook: Webhook) -> None:
    say(acme, "one")
    dispatch.dispatch()
    # As after a restored backup of the counter: the same event is taken once more.
    for place in Position.objects.all():
        Undispatched.objects.create(event_id=place.pk, organisation_id=place.organisation_id)
        place.delete()
    dispatch.dispatch()
    assert Delivery.objects.filter(webhook=webhook).count() == 1


def test_a_rolled_back_change_delivers_nothing(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    with transaction.atomic():
        say(acme, "never")
        transaction.set_rollback(True)
    deliver()
    assert endpoint.asked == []


def test_names_changed_later_do_not_change_the_payload(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    before = acme.channel.wire_address
    type(acme.channel).objects.filter(pk=acme.channel.pk).update(label="Renamed")
    type(acme.organisation).objects.filter(pk=acme.organisation.pk).update(time_zone="Asia/Tokyo")
    deliver()
    body = json.loads(endpoint.asked[0].body)
    event = Event.objects.filter(type="inboundMessage").latest("id")
    assert body["inboundChannelAddress"] == before
    assert body["dateCreated"] == event.created_at.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds")[:23]


def test_a_failure_is_retried_by_schedule_with_the_same_id_and_body(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    at = now()
    for number, delay in enumerate(DELAYS, start=1):
        deliver(at)
        delivery = only(webhook)
        assert (delivery.state, delivery.attempt_count) == ("pending", number)
        assert delivery.next_attempt_at is not None
        waited = (delivery.next_attempt_at - at).total_seconds()
        assert delay * (1 - JITTER) - 1 <= waited <= delay * (1 + JITTER) + 1
        deliver(delivery.next_attempt_at - timedelta(milliseconds=1))
        assert len(endpoint.asked) == number
        at = delivery.next_attempt_at
    deliver(at)
    delivery = only(webhook)
    assert (delivery.state, delivery.attempt_count, delivery.next_attempt_at) == ("failed", 10, None)
    deliver(at + timedelta(days=30))
    assert len(endpoint.asked) == 10
    assert len({(asked.headers["webhook-id"], asked.body) for asked in endpoint.asked}) == 1
    webhook.refresh_from_db()
    assert webhook.consecutive_failures == 10
    assert webhook.failing_since is not None


def test_success_after_failures_heals_the_record(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 503
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    deliver()
    endpoint.status = 204
    endpoint.body = b""
    deliver(now() + timedelta(minutes=1))
    webhook.refresh_from_db()
    assert (only(webhook).state, webhook.consecutive_failures, webhook.failing_since) == ("delivered", 0, None)
    assert list(Attempt.objects.order_by("id").values_list("number", "status_code")) == [(1, 503), (2, 204)]


@pytest.mark.parametrize("status", [301, 307, 404, 500])
def test_whatever_is_not_2xx_is_a_failure_and_no_redirect_is_followed(
    acme: Cast, endpoint: Endpoint, status: int
) -> None:
    endpoint.status = status
    endpoint.headers = {"location": endpoint.url + "/elsewhere"}
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    deliver()
    assert len(endpoint.asked) == 1
    assert (only(webhook).state, only(webhook).last_status_code) == ("pending", status)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured(acme: Cast, endpoint: Endpoint, status: int) -> None:
    endpoint.status = status
    endpoint.headers = {"Retry-After": "3600"}
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    at = now()
    deliver(at)
    assert only(webhook).next_attempt_at == at + timedelta(hours=1)


@pytest.mark.parametrize("value", ["99999999999 Jan 00 23:59:59 -", "Fri, 31 Dec 9999 23:59:59 -9999", "9" * 4000])
def test_retry_after_that_is_neither_changes_nothing(acme: Cast, endpoint: Endpoint, value: str) -> None:
    endpoint.status = 503
    endpoint.headers = {"Retry-After": value}
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    at = now()
    deliver(at)
    assert only(webhook).next_attempt_at - at <= timedelta(seconds=DELAYS[0] * (1 + JITTER))


def test_retry_after_as_a_date_counts_from_now_and_is_capped() -> None:
    at = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
    assert retry_after(format_datetime(at + timedelta(minutes=30), usegmt=True), at) == 1800
    assert retry_after(format_datetime(at - timedelta(minutes=30), usegmt=True), at) == 0
    assert retry_after("soon", at) is None
    assert retry_after("-5", at) is None
    assert next_delay(1, outcome(503, [("retry-after", "999999")]), at) == RETRY_AFTER_MAXIMUM
    delay = next_delay(1, outcome(500, [("retry-after", "999999")]), at)
    assert delay is not None
    assert delay < 10


def test_410_disables_the_webhook_and_holds_the_rest(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 410
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two")
    say(acme, "three", address="447000000003")
    deliver()
    webhook.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == ("disabled", "gone")
    say(acme, "four")
    asked = len(endpoint.asked)
    deliver(now() + timedelta(days=2))
    assert len(endpoint.asked) == asked
    assert set(Delivery.objects.values_list("state", flat=True)) == {"held"}
    assert Delivery.objects.count() == 4


def test_a_paused_webhook_keeps_what_happens_and_sends_it_in_order_when_resumed(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    say(acme, "one", "two")
    deliver()
    assert endpoint.asked == []
    assert set(Delivery.objects.values_list("state", flat=True)) == {"held"}
    resume_webhook(webhook=webhook, actor=SYSTEM)
    say(acme, "three")
    deliver()
    assert texts(endpoint) == ["one", "two", "three"]


def test_nothing_is_sent_for_a_suspended_organisation(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    dispatch.dispatch()
    type(acme.organisation).objects.filter(pk=acme.organisation.pk).update(suspended_at=now())
    say(acme, "two")
    deliver()
    assert endpoint.asked == []


def test_first_attempts_of_a_conversation_arrive_in_order(acme: Cast, endpoint: Endpoint) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    wanted = [str(number) for number in range(40)]
    for number in wanted:
        say(acme, number)
        say(acme, number, address="447000000002")
    deliver()
    arrived = [json.loads(body) for body in bodies(endpoint)]
    for address in ("447717472695", "447000000002"):
        assert [one["body"] for one in arrived if one["outboundChannelAddress"] == address] == wanted


def test_by_default_a_failed_first_attempt_lets_the_next_pass(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two")
    deliver()
    assert texts(endpoint) == ["one", "two"]


def test_in_strict_order_a_failed_one_holds_back_its_conversation_only(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    make_webhook(acme, callback_url=endpoint.url, ordering="strict")
    say(acme, "one", "two")
    say(acme, "other", address="447000000002")
    deliver()
    assert sorted(texts(endpoint)) == ["one", "other"]
    endpoint.status = 200
    deliver(now() + timedelta(minutes=1))
    assert [text for text in texts(endpoint) if text != "other"] == ["one", "one", "two"]


def test_in_strict_order_the_next_goes_when_the_one_before_failed_for_good(acme: Cast, endpoint: Endpoint) -> None:
    endpoint.status = 500
    make_webhook(acme, callback_url=endpoint.url, ordering="strict")
    say(acme, "one", "two")
    dispatch.dispatch()
    Outstanding.objects.filter(pk=Delivery.objects.earliest("seq").pk).update(attempt_count=len(DELAYS))
    deliver()
    assert texts(endpoint) == ["one", "two"]


def test_what_cannot_be_built_is_put_off_and_holds_up_nobody(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one")
    say(acme, "two", address="447000000002")
    dispatch.dispatch()
    broken = Delivery.objects.earliest("id")
    Outstanding.objects.filter(pk=broken.pk).update(format="unknown")
    deliver()
    assert texts(endpoint) == ["two"]
    broken.refresh_from_db()
    assert (broken.state, broken.attempt_count) == ("pending", 0)
    assert broken.next_attempt_at is not None
    assert broken.next_attempt_at > now()
    webhook.refresh_from_db()
    assert webhook.consecutive_failures == 0


def test_no_more_requests_at_once_than_a_webhook_may_have(acme: Cast, endpoint: Endpoint) -> None:
    from webhooks.engine.lane import CAP_START

    endpoint.delay = 0.2
    make_webhook(acme, callback_url=endpoint.url)
    for number in range(20):
        say(acme, "one", address=f"4477000000{number:02}")
    with running_drain() as drain:
        drain.look()
        drain.sender.start()
        assert drain.sender.stream.in_flight == CAP_START
        step(drain)
    assert len(endpoint.asked) == 20


def test_what_was_read_before_a_pause_is_held(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    say(acme, "one", "two")
    with running_drain() as drain:
        drain.look()
        drain.look()
        pause_webhook(webhook=webhook, actor=SYSTEM)
        step(drain)
    assert endpoint.asked == []
    assert set(Delivery.objects.values_list("state", flat=True)) == {"held"}


def test_an_outcome_that_cannot_be_written_takes_no_other_with_it(
    acme: Cast, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webhook(acme, callback_url=endpoint.url)
    for number in range(5):
        say(acme, str(number), address=f"44700000000{number}")
    judge = record.judge
    poison = Event.objects.filter(type="inboundMessage").latest("id").pk

    def poisoned(delivery: Due, *arguments: Any) -> record.Result:
        result = judge(delivery, *arguments)
        if delivery.event_id == poison:
            values = record.Report._make(result.report)
            result.report = tuple(values._replace(duration_ms=2**70))
        return result

    monkeypatch.setattr(record, "judge", poisoned)
    deliver()
    assert Delivery.objects.filter(state="delivered").count() == 4
    left = Delivery.objects.get(event_id=poison)
    assert (left.state, left.attempt_count) == ("pending", 0)
    assert left.next_attempt_at is not None
    assert left.next_attempt_at > now()
