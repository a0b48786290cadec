"""Every page of the admin, with the whole cast behind it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from conftest import Cast, make_user
from conversations import actions as conversation_actions
from conversations.models import Conversation, Event
from core.actors import SYSTEM
from core.clock import now
from core.models import Slot
from organisations.models import AuditEntry, Invitation, Organisation, User, WebioToken
from payments.actions import record_payment
from payments.models import Payment
from webhooks.actions import create_webhook
from webhooks.engine import tally
from webhooks.models import Attempt, Delivery, Lease, Replay, Webhook
from webhooks.outstanding import of
from webhooks.replay import start_replay

LIST_CEILING = 14
PAGE_CEILING = 40
SECRETS = ("hash-of-invitation", "jwt-of-acme", "x-customer-secret", "query-key-of-acme")


@pytest.fixture
def webhook(acme: Cast) -> Webhook:
    webhook, _ = create_webhook(
        organisation=acme.organisation,
        actor=SYSTEM,
        name="CRM",
        callback_url="https://crm.example/hook?key=query-key-of-acme",
        events=["inboundMessage"],
        headers={"X-Crm": "x-customer-secret"},
    )
    return webhook


@pytest.fixture
def delivery(acme: Cast, webhook: Webhook) -> Delivery:
    return make_delivery(acme, webhook)


def make_delivery(acme: Cast, webhook: Webhook) -> Delivery:
    event = Event.objects.filter(organisation=acme.organisation, type="inboundMessage").first()
    assert event is not None
    delivery = Delivery.objects.create(
        organisation=acme.organisation, webhook=webhook, event=event, event_type=event.type, kind="resend",
        conversation_id=acme.conversation.pk, format="webio", state="failed", finished_at=now(),
    )  # fmt: skip
    Attempt.objects.create(
        organisation=acme.organisation, delivery=delivery, number=1, attempted_at=now(), status_code=500
    )
    return delivery


@pytest.fixture
def full(acme: Cast, globex: Cast, delivery: Delivery) -> Cast:
    """One of everything, and something secret wherever there is a place for it."""
    make: dict[str, Any] = {"organisation": acme.organisation, "actor": SYSTEM}
    conversation_actions.add_note(**make, conversation_id=acme.conversation.pk, body="Note")
    conversation_actions.send_message(**make, conversation_id=acme.conversation.pk, body="Reply")
    record_payment(**make, conversation_id=acme.conversation.pk, amount=Decimal(5), currency="EUR")
    start_replay(webhook=delivery.webhook, actor=SYSTEM, events=["payment"])
    Invitation.objects.create(
        organisation=acme.organisation, email="new@acme.example", token_hash=SECRETS[0], expires_at=now()
    )
    WebioToken.objects.create(organisation=acme.organisation, token=SECRETS[1])
    tally.add([(acme.organisation.pk, delivery.webhook_id, False, 20)], 0, now())
    tally.add_failures(["timeout"], 0)
    Lease.objects.create(webhook=delivery.webhook, token=1, until=now())
    return acme


def url_of(model: Any, page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


@pytest.fixture
def staff_client(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def models() -> list[Any]:
    return list(admin.site._registry)


def test_every_page_of_every_model_answers_in_few_queries_and_shows_no_secret(
    full: Cast, webhook: Webhook, staff_client: Client
) -> None:
    hidden = [*SECRETS, webhook.secret, full.api_key.key_hash, full.key]
    for model, model_admin in admin.site._registry.items():
        pages = [(url_of(model, "changelist"), LIST_CEILING)]
        rows = model._base_manager.all()
        pages += [(url_of(model, "change", row.pk), PAGE_CEILING) for row in rows[:2]]
        if model_admin.has_add_permission(_request(staff_client)):
            pages.append((url_of(model, "add"), PAGE_CEILING))
        for url, ceiling in pages:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                response = staff_client.get(url)
            assert response.status_code == 200, url
            assert len(queries) <= ceiling, (url, len(queries))
            for secret in hidden:
                assert secret not in response.content.decode(), (url, secret)
        assert staff_client.get(url_of(model, "changelist") + "?q=447717472695").status_code in (200, 302)


def _request(client: Client) -> Any:
    return client.get(reverse("admin:index")).wsgi_request


def test_lists_cost_the_same_with_many_rows(full: Cast, webhook: Webhook, staff_client: Client) -> None:
    urls = [url_of(model, "changelist") for model in models()]

    def cost() -> dict[str, int]:
        found = {}
        for url in urls:
            with CaptureQueriesContext(connection) as queries:
                staff_client.get(url)
            found[url] = len(queries)
        return found

    cost()
    before = cost()
    for number in range(12):
        conversation_actions.receive_message(channel=full.channel, address=f"4477000000{number:02}", body="Hi")
        make_delivery(full, webhook)
        Organisation.objects.create(name=f"Org {number}", slug=f"org-{number}")
        make_user(f"user{number}@acme.example")
    after = cost()
    # A list with more than one row may show the actions' form; none may cost a query for each row.
    assert {url: after[url] - before[url] for url in urls if after[url] > before[url] + 1} == {}


def test_strangers_are_sent_to_sign_in(full: Cast, client: Client) -> None:
    for model in models():
        assert client.get(url_of(model, "changelist")).status_code == 302
    client.force_login(full.owner)
    for model in models():
        assert client.get(url_of(model, "changelist")).status_code == 302


def test_the_dashboard_names_failures_and_keeps_to_the_policy(
    full: Cast, webhook: Webhook, staff_client: Client
) -> None:
    Webhook.objects.filter(pk=webhook.pk).update(failing_since=now())
    with CaptureQueriesContext(connection) as queries:
        response = staff_client.get(reverse("admin:index"))
    page = response.content.decode()
    assert len(queries) <= 24
    assert url_of(Webhook, "change", webhook.pk) in page
    assert "style=" not in page
    assert "<script>" not in page


def test_the_dashboard_misses_no_loop_that_has_nothing_to_do(
    full: Cast, webhook: Webhook, staff_client: Client
) -> None:
    for name in ("deliveries", "replays"):
        Slot.objects.create(name=name, number=0, lease_until=now(), queued_until=now())

    def slots() -> list[str]:
        return [slot.name for slot in staff_client.get(reverse("admin:index")).context["health"].slots]

    assert slots() == ["deliveries"]
    start_replay(webhook=webhook, actor=SYSTEM)
    assert slots() == ["deliveries", "replays"]


def run_action(client: Client, model: Any, action: str, *rows: Any) -> Any:
    data = {"action": action, "_selected_action": [row.pk for row in rows]}
    return client.post(url_of(model, "changelist"), data, follow=True)


def last_audit() -> tuple[str, str]:
    entry = AuditEntry.objects.order_by("-pk").first()
    assert entry is not None
    return entry.action, entry.actor_kind


def test_actions_call_the_verbs_and_are_audited(
    full: Cast, webhook: Webhook, delivery: Delivery, staff_client: Client
) -> None:
    run_action(staff_client, Conversation, "close", full.conversation)
    full.conversation.refresh_from_db()
    assert full.conversation.state == "closed"
    closed = Event.objects.filter(conversation=full.conversation.pk).order_by("-seq").first()
    assert closed is not None
    assert (closed.type, closed.actor_kind) == ("conversationClosed", "staff")
    assert last_audit() == ("conversation.close", "staff")

    count = AuditEntry.objects.count()
    assert "already closed" in run_action(staff_client, Conversation, "close", full.conversation).content.decode()
    assert AuditEntry.objects.count() == count

    run_action(staff_client, Conversation, "reopen", full.conversation)
    assert last_audit() == ("conversation.reopen", "staff")
    replay = start_replay(webhook=webhook, actor=SYSTEM)
    for action, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        run_action(staff_client, Replay, action, replay)
        replay.refresh_from_db()
        assert (replay.state, last_audit()) == (state, (f"replay.{action}", "staff"))
    assert "The replay is cancelled." in run_action(staff_client, Replay, "pause", replay).content.decode()
    run_action(staff_client, Delivery, "resend", delivery)
    assert Delivery.objects.filter(state="pending").count() == 1
    assert last_audit() == ("delivery.resend", "staff")
    run_action(staff_client, Webhook, "disable", webhook)
    webhook.refresh_from_db()
    assert (webhook.state, webhook.state_reason) == ("disabled", "staff")
    assert Delivery.objects.filter(state="held").count() == 1
    run_action(staff_client, Webhook, "enable", webhook)
    assert last_audit() == ("webhook.enable", "staff")
    run_action(staff_client, type(full.api_key), "revoke", full.api_key)
    full.api_key.refresh_from_db()
    assert full.api_key.revoked_at is not None
    assert last_audit() == ("apikey.revoke", "staff")


def test_the_end_of_a_suspension_sends_what_was_held(
    full: Cast, webhook: Webhook, delivery: Delivery, staff_client: Client
) -> None:
    run_action(staff_client, Organisation, "suspend", full.organisation)
    full.organisation.refresh_from_db()
    assert full.organisation.suspended
    assert last_audit() == ("organisation.suspend", "staff")
    Delivery.objects.filter(pk=delivery.pk).update(state="held", finished_at=None)
    of(delivery, None).save(force_insert=True)
    run_action(staff_client, Organisation, "unsuspend", full.organisation)
    delivery.refresh_from_db()
    assert delivery.state == "pending"
    assert delivery.next_attempt_at is not None


def test_a_payment_is_recorded_with_its_event(full: Cast, staff_client: Client) -> None:
    data = {"conversation": full.conversation.pk, "amount": "12.50", "currency": "EUR", "reference": "INV-1"}
    response = staff_client.post(url_of(Payment, "add"), data)
    assert response.status_code == 302
    payment = Payment.objects.get(reference="INV-1")
    assert (payment.organisation, payment.actor_kind) == (full.organisation, "staff")
    assert Event.objects.filter(type="payment").count() == 2
    assert last_audit() == ("payment.record", "staff")
    staff_client.post(url_of(Payment, "add"), {**data, "currency": "XXZ", "reference": "INV-2"})
    assert not Payment.objects.filter(reference="INV-2").exists()


def test_adding_and_changing_go_through_the_verbs(full: Cast, staff_client: Client) -> None:
    queue = type(full.queue)
    data = {"organisation": full.organisation.pk, "name": "Sales", "active": "on"}
    assert staff_client.post(url_of(queue, "add"), data).status_code == 302
    made = queue.objects.get(name="Sales")
    assert last_audit() == ("queue.create", "staff")
    assert staff_client.post(url_of(queue, "change", made.pk), {"name": "Sales 2", "active": "on"}).status_code == 302
    made.refresh_from_db()
    assert (made.name, last_audit()) == ("Sales 2", ("queue.update", "staff"))
    assert staff_client.post(url_of(queue, "add"), {**data, "name": full.queue.name}).status_code in (200, 302)
    assert queue.objects.filter(organisation=full.organisation, name=full.queue.name).count() == 1


def test_a_plain_save_is_audited(full: Cast, staff_client: Client) -> None:
    data = {"name": "New", "slug": "new", "time_zone": "UTC", "locale": "en-gb", "attempt_retention_days": 30,
            "delivery_retention_days": 90, "event_retention_days": 365}  # fmt: skip
    for prefix in ("memberships", "api_keys"):
        data |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    assert staff_client.post(url_of(Organisation, "add"), data).status_code == 302
    assert last_audit() == ("organisation.create", "staff")


@pytest.mark.parametrize(("proxies", "address"), [([], "127.0.0.1"), (["127.0.0.1"], "198.51.100.1")])
def test_the_audit_names_the_address_that_trusted_proxies_tell(
    full: Cast, staff_client: Client, settings: Any, proxies: list[str], address: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    staff_client.defaults["HTTP_X_FORWARDED_FOR"] = "203.0.113.9, 198.51.100.1"
    run_action(staff_client, Organisation, "suspend", full.organisation)
    assert AuditEntry.objects.latest("id").ip_address == address


def test_staff_with_few_rights_see_and_do_only_that(full: Cast, webhook: Webhook, client: Client) -> None:
    helper = make_user("helper@webio.example", is_staff=True)
    helper.user_permissions.add(Permission.objects.get(codename="view_conversation"))
    client.force_login(helper)
    assert client.get(url_of(Conversation, "changelist")).status_code == 200
    assert client.get(url_of(Webhook, "changelist")).status_code == 403
    run_action(client, Conversation, "close", full.conversation)
    full.conversation.refresh_from_db()
    assert full.conversation.state == "open"
    assert "health-heading" not in client.get(reverse("admin:index")).content.decode()


def test_staff_cannot_leave_an_organisation_without_an_owner(acme: Cast, admin_client: Client) -> None:
    membership = acme.organisation.memberships.get(role="owner")
    page = reverse("admin:organisations_membership_change", args=[membership.pk])
    answer = admin_client.post(page, {"role": "viewer"}, follow=True)
    assert "at least one owner" in answer.content.decode()
    chosen = {"action": "remove", "_selected_action": [membership.pk]}
    answer = admin_client.post(reverse("admin:organisations_membership_changelist"), chosen, follow=True)
    assert "at least one owner" in answer.content.decode()
    membership.refresh_from_db()
    assert (membership.role, membership.archived_at) == ("owner", None)


def test_staff_change_roles_and_remove_members_by_the_verbs(acme: Cast, admin_client: Client) -> None:
    membership = acme.organisation.memberships.get(role="agent")
    admin_client.post(reverse("admin:organisations_membership_change", args=[membership.pk]), {"role": "developer"})
    membership.refresh_from_db()
    assert membership.role == "developer"
    chosen = {"action": "remove", "_selected_action": [membership.pk]}
    admin_client.post(reverse("admin:organisations_membership_changelist"), chosen)
    membership.refresh_from_db()
    assert membership.archived_at is not None
    told = AuditEntry.objects.filter(action__startswith="membership.", actor_kind="staff").order_by("id")
    assert list(told.values_list("action", flat=True)) == ["membership.change_role", "membership.remove"]
