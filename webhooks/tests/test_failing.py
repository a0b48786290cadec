"""A webhook that fails for days is disabled, and its organisation's owners are told on the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from smtplib import SMTPRecipientsRefused
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend

from conftest import Cast, make_cast, make_user
from conversations.models import Event
from core import loops
from core.actors import SYSTEM
from core.clock import held_at, now
from organisations.actions import suspend_organisation, unsuspend_organisation
from organisations.models import AuditEntry, Membership, Role
from webhooks import tasks
from webhooks.actions import archive_webhook, enable_webhook, pause_webhook, resume_webhook
from webhooks.engine.breaker import FAILURES
from webhooks.failing import MAILING, check, disable_gone
from webhooks.models import Delivery, Webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver, running_drain, step
from webhooks.tests.test_webhook_verbs_race import at_once

HOUR = timedelta(hours=1)


def failing_for(webhook: Webhook, hours: float, failures: int = FAILURES, ago: float = 0.0) -> None:
    """Let attempts have failed for so long, until so many hours ago."""
    latest = now() - timedelta(hours=ago)
    Webhook.objects.filter(pk=webhook.pk).update(
        failing_since=latest - timedelta(hours=hours), last_failure_at=latest, consecutive_failures=failures
    )
    webhook.refresh_from_db()


def subjects() -> list[str]:
    """Of the mails sent, in order."""
    return [sent.subject for sent in mail.outbox]


@pytest.mark.parametrize(
    ("hours", "told", "state"),
    [(59, 0, "active"), (60.1, 50, "active"), (107, 50, "active"), (108.1, 90, "active"), (120.1, 100, "disabled")],
)
def test_each_step_comes_at_its_time(webhook: Webhook, hours: float, told: int, state: str) -> None:
    failing_for(webhook, hours)
    assert check() == (state == "disabled")
    webhook.refresh_from_db()
    assert (webhook.failing_told, webhook.state) == (told, state)
    assert len(mail.outbox) == bool(told)


@pytest.mark.parametrize(
    ("hours", "failures", "ago"), [(0.001, FAILURES, 121), (59, FAILURES, 61), (121, FAILURES - 1, 0)]
)
def test_only_who_is_tried_and_fails_comes_further(webhook: Webhook, hours: float, failures: int, ago: float) -> None:
    failing_for(webhook, hours, failures, ago)
    assert check() == 0
    webhook.refresh_from_db()
    assert (webhook.failing_told, webhook.state, mail.outbox) == (0, "active", [])


@pytest.mark.parametrize("after", [[], [121], [119, 120]])
def test_one_bad_moment_and_a_clock_that_jumps_disable_nobody(acme: Cast, endpoint: Endpoint, after: list[int]) -> None:
    endpoint.status = 500
    webhook = make_webhook(acme, callback_url=endpoint.url, retry_delays=[1])
    start = now()
    for hours in (0, *after):
        make_delivery(acme, webhook)
        deliver(start + hours * HOUR)
    with held_at(start + 200 * HOUR):
        tasks.sweep()
    webhook.refresh_from_db()
    assert webhook.failing_since is not None
    assert (webhook.state, mail.outbox) == ("active", [])


def test_the_days_are_a_setting(webhook: Webhook, settings: Any) -> None:
    settings.WEBHOOK_DISABLE_AFTER_DAYS = 1
    failing_for(webhook, 24.1)
    assert check() == 1


def test_the_whole_way_takes_three_mails_and_ends_with_what_is_due_held(acme: Cast, webhook: Webhook) -> None:
    failing_for(webhook, 0)
    waiting = make_delivery(acme, webhook, next_attempt_at=now() + 1000 * HOUR)
    start = now()
    for hours in range(0, 130, 2):
        with held_at(start + hours * HOUR):
            Webhook.objects.update(last_failure_at=now())
            tasks.sweep()
    assert subjects() == ["Webhook failing: orders", "Webhook failing: orders", "Webhook disabled: orders"]
    webhook.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == ("disabled", "failing")
    waiting.refresh_from_db()
    assert waiting.state == "held"
    entry = AuditEntry.objects.get(action="webhook.disable")
    assert (entry.actor_kind, entry.data) == ("system", {"reason": "failing", "held": 1})
    assert Event.objects.get(type="webhookDisabled").data["facts"]["reason"] == "failing"


def test_the_mail_says_what_fails_since_when_how_and_what_to_do(acme: Cast, endpoint: Endpoint, settings: Any) -> None:
    settings.PUBLIC_URL = "https://webio.example.com"
    acme.organisation.time_zone = "Europe/Dublin"
    acme.organisation.save()
    webhook = make_webhook(acme, name="Orders\tin", callback_url=f"{endpoint.url}?key=secret")
    endpoint.status = 503
    make_delivery(acme, webhook)
    deliver()
    failing_for(webhook, 60.1)
    check()
    (sent,) = mail.outbox
    assert sent.to == ["owner@acme.example"]
    assert sent.subject == "Webhook failing: Orders in"
    assert "of Acme keeps failing" in sent.body
    assert "(Europe/Dublin) without a single success" in sent.body
    assert webhook.failing_since is not None
    until = (webhook.failing_since + 120 * HOUR).astimezone(ZoneInfo("Europe/Dublin"))
    assert f"the first attempt that fails from {until:%Y-%m-%d %H:%M} (Europe/Dublin) on disables it." in sent.body
    assert f"Endpoint: {endpoint.url}\nLast answer: 503\n" in sent.body
    assert "secret" not in sent.body
    assert f"https://webio.example.com/o/acme/integrations/webhooks/{webhook.pk}/" in sent.body


def test_the_last_mail_says_that_it_is_disabled_and_how_to_go_on(acme: Cast, webhook: Webhook) -> None:
    make_delivery(acme, webhook, attempt_count=1, last_error="connection_refused")
    failing_for(webhook, 121)
    check()
    (sent,) = mail.outbox
    assert "has been disabled" in sent.body
    assert "Last answer: connection_refused\n" in sent.body
    assert "enable the webhook, and what was held is sent" in sent.body


def test_only_owners_of_the_organisation_who_are_still_there_get_it(acme: Cast, globex: Cast, webhook: Webhook) -> None:
    for name, changes in (
        ("second", {}),
        ("gone", {"archived_at": now()}),
        ("locked", {}),
    ):
        user = make_user(f"{name}@acme.example", is_active=name != "locked")
        Membership.objects.create(organisation=acme.organisation, user=user, role=Role.OWNER, **changes)
    failing_for(webhook, 61)
    check()
    assert sorted(sent.to for sent in mail.outbox) == [["owner@acme.example"], ["second@acme.example"]]


@pytest.mark.parametrize(("hours", "told", "state"), [(61, 50, "active"), (121, 100, "disabled")])
def test_a_mail_server_that_is_down_keeps_no_webhook_on_and_loses_no_mail(
    acme: Cast, webhook: Webhook, settings: Any, hours: float, told: int, state: str
) -> None:
    present = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    other = make_webhook(acme, name="other")
    for one in (webhook, other):
        failing_for(one, hours)
    assert check() == (2 if state == "disabled" else 0)
    assert set(Webhook.objects.values_list("state", "failing_told")) == {(state, 0)}
    settings.EMAIL_BACKEND = present
    for _ in range(2):
        assert check() == 0
    assert set(Webhook.objects.values_list("state", "failing_told")) == {(state, told)}
    word = "disabled" if state == "disabled" else "failing"
    assert subjects() == [f"Webhook {word}: orders", f"Webhook {word}: other"]


class Server(EmailBackend):
    """A mail server that answers for `owner@acme.example` as told, and notes which webhooks are on when it is asked."""

    answer: int | type[BaseException] = 250
    on: list[int] = []

    def open(self) -> bool:
        Server.on.append(Webhook.objects.filter(state="active").count())
        return True

    def send_messages(self, messages: Any) -> int:
        (address,) = messages[0].to
        if address == "owner@acme.example":
            if not isinstance(self.answer, int):
                raise self.answer
            if self.answer != 250:
                raise SMTPRecipientsRefused({address: (self.answer, b"No.")})
        return int(super().send_messages(messages))


@pytest.fixture
def server(settings: Any) -> Iterator[type[Server]]:
    settings.EMAIL_BACKEND = f"{__name__}.Server"
    yield Server
    Server.answer, Server.on = 250, []


def test_all_are_disabled_before_the_first_mail(acme: Cast, webhook: Webhook, server: type[Server]) -> None:
    for one in (webhook, make_webhook(acme)):
        failing_for(one, 121)
    assert check() == 2
    assert server.on == [0]
    assert len(mail.outbox) == 2


@pytest.mark.parametrize(
    ("answer", "others", "again"),
    [(450, False, True), (450, True, False), (550, False, False), (550, True, False), (OSError, False, True)],
)
def test_a_mail_is_sent_again_until_one_owner_has_it_unless_all_are_refused_for_good(
    acme: Cast, webhook: Webhook, server: type[Server], answer: Any, others: bool, again: bool
) -> None:
    if others:
        second = make_user("second@acme.example")
        Membership.objects.create(organisation=acme.organisation, user=second, role=Role.OWNER)
    server.answer = answer
    failing_for(webhook, 61)
    check()
    assert len(mail.outbox) == others
    server.answer = 250
    check()
    assert len(mail.outbox) == others + again
    assert Webhook.objects.get().failing_told == 50


def test_an_address_that_is_written_in_another_way_to_the_mail_server_is_refused_like_any(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, server: type[Server]
) -> None:
    def refuse(self: Server, messages: Any) -> int:
        # As Django writes owner@münchen.example.
        raise SMTPRecipientsRefused({"owner@xn--mnchen-3ya.example": (550, b"No.")})

    monkeypatch.setattr(Server, "send_messages", refuse)
    failing_for(webhook, 61)
    check()
    assert Webhook.objects.get().failing_told == 50


def test_a_process_that_ends_while_it_mails_leaves_the_mail_to_the_next(webhook: Webhook, server: type[Server]) -> None:
    server.answer = SystemExit
    failing_for(webhook, 121)
    with pytest.raises(SystemExit):
        check()
    server.answer = 250
    check()
    assert (Webhook.objects.get().state, subjects()) == ("disabled", ["Webhook disabled: orders"])


def test_without_owners_a_step_is_taken_all_the_same(acme: Cast, webhook: Webhook) -> None:
    Membership.objects.filter(role=Role.OWNER).delete()
    failing_for(webhook, 121)
    assert check() == 1
    assert (Webhook.objects.get().failing_told, mail.outbox) == (100, [])


def test_who_mails_is_alone(webhook: Webhook) -> None:
    failing_for(webhook, 121)
    with loops.alone("mails", MAILING):
        assert check() == 1
    assert mail.outbox == []
    check()
    assert subjects() == ["Webhook disabled: orders"]


@pytest.mark.parametrize("state", ["paused", "deleted", "suspended"])
def test_what_is_not_sent_to_is_not_failing(acme: Cast, webhook: Webhook, state: str) -> None:
    failing_for(webhook, 121)
    if state == "paused":
        pause_webhook(webhook=webhook, actor=SYSTEM)
    elif state == "deleted":
        archive_webhook(webhook=webhook, actor=SYSTEM)
    else:
        suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    assert check() == 0
    assert mail.outbox == []


def test_after_a_pause_the_time_begins_anew(acme: Cast, webhook: Webhook) -> None:
    failing_for(webhook, 121)
    pause_webhook(webhook=webhook, actor=SYSTEM)
    resume_webhook(webhook=webhook, actor=SYSTEM)
    assert webhook.failing_since is None
    failing_for(webhook, 121)
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    unsuspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    webhook.refresh_from_db()
    assert webhook.failing_since is None


def test_one_success_and_everything_is_before_it_again(acme: Cast, endpoint: Endpoint) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    failing_for(webhook, 110)
    check()
    make_delivery(acme, webhook)
    deliver()
    check()
    webhook.refresh_from_db()
    assert (webhook.failing_since, webhook.failing_told) == (None, 0)
    failing_for(webhook, 61)
    check()
    assert len(mail.outbox) == 2


def test_who_failed_anew_before_the_sweep_saw_the_success_starts_over_too(webhook: Webhook) -> None:
    failing_for(webhook, 110)
    check()
    failing_for(webhook, 1)
    check()
    webhook.refresh_from_db()
    assert webhook.failing_told == 0


def test_enabled_again_and_failing_again_it_is_disabled_again(webhook: Webhook) -> None:
    for _round in range(2):
        failing_for(webhook, 121)
        assert check() == 1
        webhook.refresh_from_db()
        enable_webhook(webhook=webhook, actor=SYSTEM)
        assert check() == 0
    assert len(mail.outbox) == 2


def test_looking_costs_two_statements(acme: Cast, webhook: Webhook, django_assert_num_queries: Any) -> None:
    failing_for(webhook, 1)
    with django_assert_num_queries(2):
        check()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("hours", "state"), [(61, "active"), (121, "disabled")])
def test_two_sweeps_at_once_mail_once(hours: float, state: str) -> None:
    webhook = make_webhook(make_cast("acme"))
    failing_for(webhook, hours)
    assert at_once(check, check, check) == []
    assert len(mail.outbox) == 1
    webhook.refresh_from_db()
    assert webhook.state == state
    assert Event.objects.filter(type="webhookDisabled").count() == (state == "disabled")
    assert not Delivery.objects.exists()


@pytest.fixture
def gone(acme: Cast, endpoint: Endpoint) -> Webhook:
    """A webhook that the engine disabled because its endpoint answered 410; something more was due."""
    endpoint.status = 410
    webhook = make_webhook(acme, callback_url=f"{endpoint.url}?key=secret")
    make_delivery(acme, webhook)
    make_delivery(acme, webhook, next_attempt_at=now() + 1000 * HOUR)
    deliver()
    webhook.refresh_from_db()
    return webhook


def test_an_endpoint_that_is_gone_is_disabled_by_the_verb_and_so_in_the_audit_trail(gone: Webhook) -> None:
    assert (gone.state, gone.state_reason) == ("disabled", "gone")
    assert set(gone.deliveries.values_list("state", flat=True)) == {"held"}
    entry = AuditEntry.objects.get(action="webhook.disable")
    assert (entry.actor_kind, entry.organisation, entry.object_id) == ("system", gone.organisation, str(gone.pk))
    assert entry.data == {"reason": "gone", "held": 1}
    event = Event.objects.get(type="webhookDisabled")
    assert (event.data["facts"]["reason"], event.actor_kind) == ("gone", "system")


def test_the_engine_mails_nobody_and_the_sweep_tells_owners_once(gone: Webhook, globex: Cast) -> None:
    assert mail.outbox == []
    start = now()
    for minutes in range(0, 9000, 60):
        with held_at(start + timedelta(minutes=minutes)):
            assert tasks.sweep()["disabled"] == 0
    (sent,) = mail.outbox
    assert (sent.subject, sent.to) == ("Webhook disabled: orders", ["owner@acme.example"])
    assert "has been disabled" in sent.body
    assert "answered 410 Gone" in sent.body
    assert "Last answer: 410\n" in sent.body
    assert "enable the webhook, and what was held is sent" in sent.body
    assert "secret" not in sent.body
    gone.refresh_from_db()
    assert gone.state_reason == "gone"


def test_enabled_and_gone_again_is_told_again(gone: Webhook) -> None:
    check()
    enable_webhook(webhook=gone, actor=SYSTEM)
    check()
    assert len(mail.outbox) == 1
    deliver()
    gone.refresh_from_db()
    assert (gone.state, gone.state_reason) == ("disabled", "gone")
    check()
    assert subjects() == ["Webhook disabled: orders"] * 2


def test_one_that_was_enabled_before_the_sweep_came_is_not_told_of(gone: Webhook) -> None:
    enable_webhook(webhook=gone, actor=SYSTEM)
    check()
    assert mail.outbox == []


def test_a_suspension_between_neither_loses_nor_repeats_the_mail(acme: Cast, gone: Webhook) -> None:
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    check()
    assert mail.outbox == []
    unsuspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    check()
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    unsuspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    check()
    assert len(mail.outbox) == 1


@pytest.mark.parametrize("verb", [pause_webhook, archive_webhook])
def test_a_410_that_comes_after_the_webhook_was_stopped_changes_nothing(
    acme: Cast, endpoint: Endpoint, verb: Any
) -> None:
    endpoint.status = 410
    webhook = make_webhook(acme, callback_url=endpoint.url)
    make_delivery(acme, webhook)
    with running_drain() as drain:
        while not drain.sender.stream.in_flight:
            drain.look()
            drain.sender.start()
        verb(webhook=webhook, actor=SYSTEM)
        step(drain)
    webhook.refresh_from_db()
    assert (len(endpoint.asked), webhook.state_reason in ("", "user")) == (1, True)
    assert not AuditEntry.objects.filter(action="webhook.disable").exists()


@pytest.mark.django_db(transaction=True)
def test_two_sweeps_at_once_mail_of_a_gone_one_once() -> None:
    webhook = make_webhook(make_cast("acme"))
    disable_gone(webhook.pk)
    assert at_once(check, check, check) == []
    assert subjects() == ["Webhook disabled: orders"]
