"""Invitations: mailed, expiring, single use, for one person; and the page where their links lead."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from smtplib import SMTPServerDisconnected
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.test import Client
from django.urls import reverse

from conftest import Cast, make_user
from core.actors import SYSTEM
from core.clock import now
from core.errors import Forbidden, Invalid, NotFound
from organisations.models import AuditEntry, Invitation, Membership, Role, User
from organisations.people import accept_invitation, hash_token, invite, revoke_invitation

PEOPLE = "/o/acme/settings/people/"
STRANGER = "stranger@elsewhere.example"


@pytest.fixture
def offer(acme: Cast, django_capture_on_commit_callbacks: Any) -> Any:
    """Makes an invitation; returns the path of the mailed link."""

    def make(email: str = STRANGER, role: str = "agent", actor_role: str = "owner") -> str:
        with django_capture_on_commit_callbacks(execute=True):
            invite(organisation=acme.organisation, actor=SYSTEM, actor_role=actor_role, email=email, role=role)
        found = re.search(r"http://\S+?(/join/\S+)", str(mail.outbox[-1].body))
        assert found
        return found[1]

    return make


def secret(link: str) -> str:
    return link.removeprefix("/join/").rstrip("/")


def members(cast: Cast) -> int:
    return Membership.objects.filter(organisation=cast.organisation, archived_at=None).count()


def test_the_mail_holds_the_link_and_the_database_only_its_hash(acme: Cast, offer: Any) -> None:
    link = offer()
    row = Invitation.objects.get()
    assert mail.outbox[0].to == [STRANGER]
    assert row.token_hash == hash_token(secret(link))
    assert secret(link) not in str({**row.__dict__, **AuditEntry.objects.latest("id").__dict__})
    assert row.expires_at - row.created_at == pytest.approx(timedelta(days=7), abs=timedelta(seconds=1))


def test_a_stranger_makes_an_account_joins_and_is_signed_in(acme: Cast, offer: Any, client: Client) -> None:
    link = offer()
    assert STRANGER in client.get(link).content.decode()
    answer = client.post(link, {"name": "Sam Stranger", "password": "a long and odd one"}, follow=True)
    assert answer.redirect_chain[-1][0] == "/o/acme/integrations/"
    user = User.objects.get(email=STRANGER)
    assert user.check_password("a long and odd one")
    assert Membership.objects.get(user=user, organisation=acme.organisation).role == Role.AGENT
    assert Invitation.objects.get().accepted_by == user
    assert EmailAddress.objects.get_primary(user).verified


@pytest.mark.parametrize(
    "fields", [{}, {"name": "Sam"}, {"name": "Sam", "password": "short"}, {"name": "Sam", "password": "1234567890123"}]
)
def test_a_bad_form_makes_no_account(offer: Any, client: Client, fields: dict[str, str]) -> None:
    link, users = offer(), User.objects.count()
    assert client.post(link, fields).status_code == 400
    assert User.objects.count() == users
    assert Invitation.objects.get().accepted_at is None


def test_who_has_an_account_signs_in_and_joins(acme: Cast, globex: Cast, offer: Any, client: Client) -> None:
    link = offer(globex.viewer.email)
    assert f"?next={link}" in client.get(link).content.decode()
    users = User.objects.count()
    assert client.post(link, {"name": "Eve", "password": "a long and odd one"}).status_code == 409
    assert User.objects.count() == users
    client.force_login(globex.viewer)
    assert client.post(link).status_code == 302
    assert Membership.objects.get(user=globex.viewer, organisation=acme.organisation).role == Role.AGENT


def test_the_wrong_person_is_refused(acme: Cast, globex: Cast, offer: Any, client: Client) -> None:
    link, before = offer(), members(acme)
    client.force_login(globex.viewer)
    assert client.post(link).status_code == 403
    with pytest.raises(Forbidden):
        accept_invitation(token=secret(link), user=globex.viewer)
    assert members(acme) == before
    assert Invitation.objects.get().accepted_at is None


def test_a_link_works_once(acme: Cast, offer: Any, client: Client) -> None:
    link = offer()
    user = make_user(STRANGER)
    accept_invitation(token=secret(link), user=user)
    with pytest.raises(NotFound):
        accept_invitation(token=secret(link), user=user)
    assert client.get(link).status_code == client.post(link).status_code == 404


@pytest.mark.parametrize("days", [7, 8])
def test_a_link_expires(acme: Cast, offer: Any, client: Client, days: int) -> None:
    link, before = offer(), members(acme)
    Invitation.objects.update(expires_at=now() - timedelta(days=days - 7))
    assert client.get(link).status_code == 404
    with pytest.raises(NotFound):
        accept_invitation(token=secret(link), user=make_user(STRANGER))
    assert members(acme) == before


def test_a_new_offer_ends_the_old_one(offer: Any, client: Client) -> None:
    first, second = offer(), offer()
    assert client.get(first).status_code == 404
    assert client.get(second).status_code == 200


def test_who_comes_back_gets_the_offered_role(acme: Cast, offer: Any) -> None:
    Membership.objects.filter(user=acme.admin).update(archived_at=now())
    accept_invitation(token=secret(offer(acme.admin.email, role="viewer")), user=acme.admin)
    row = Membership.objects.get(user=acme.admin)
    assert (row.role, row.archived_at) == (Role.VIEWER, None)


@pytest.mark.parametrize(
    ("email", "role", "field"),
    [
        ("nobody", "agent", "email"),
        ("", "agent", "email"),
        (STRANGER, "root", "role"),
        ("OWNER@acme.example", "agent", "email"),
    ],
)
def test_a_bad_offer_is_refused(acme: Cast, email: str, role: str, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        invite(organisation=acme.organisation, actor=SYSTEM, actor_role="owner", email=email, role=role)
    assert list(refusal.value.errors) == [field]
    assert not Invitation.objects.exists()
    assert mail.outbox == []


def test_admins_neither_invite_owners_nor_revoke_their_invitations(acme: Cast, offer: Any, client: Client) -> None:
    client.force_login(acme.admin)
    answer = client.post(PEOPLE, {"email": STRANGER, "role": "owner"})
    assert answer.status_code == 400
    assert not Invitation.objects.exists()
    offer(role="owner")
    row = Invitation.objects.get()
    with pytest.raises(Forbidden):
        revoke_invitation(invitation=row, actor=SYSTEM, actor_role="admin")
    for fields in ({"revoke": "1"}, {}):
        client.post(reverse("settings:invitation", args=["acme", row.pk]), fields)
        assert list(Invitation.objects.values_list("pk", "revoked_at")) == [(row.pk, None)]


def test_the_page_invites_sends_again_and_revokes(
    acme: Cast, client: Client, django_capture_on_commit_callbacks: Any
) -> None:
    client.force_login(acme.admin)
    with django_capture_on_commit_callbacks(execute=True):
        assert client.post(PEOPLE, {"email": STRANGER, "role": "viewer"}).status_code == 302
    first = Invitation.objects.get()
    assert STRANGER in client.get(PEOPLE).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        client.post(reverse("settings:invitation", args=["acme", first.pk]))
    second = Invitation.objects.exclude(pk=first.pk).get()
    assert len(mail.outbox) == 2
    client.post(reverse("settings:invitation", args=["acme", second.pk]), {"revoke": "1"})
    assert not Invitation.objects.filter(revoked_at=None).exists()
    # A stale page does not bring back what was taken back.
    answer = client.post(reverse("settings:invitation", args=["acme", second.pk]), follow=True)
    assert "accepted or revoked already" in answer.content.decode()
    assert Invitation.objects.count() == len(mail.outbox) == 2


def test_a_mail_that_cannot_be_sent_is_told_and_the_offer_kept(
    acme: Cast,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
    transactional_db: None,
) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise SMTPServerDisconnected("gone")

    monkeypatch.setattr("organisations.people.send_mail", fail)
    client.force_login(acme.admin)
    answer = client.post(PEOPLE, {"email": STRANGER, "role": "viewer"}, follow=True)
    assert answer.status_code == 200
    assert "the mail could not be sent" in answer.content.decode()
    assert Invitation.objects.get().revoked_at is None


def test_the_link_is_not_in_the_log(offer: Any, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    link = offer()
    with caplog.at_level(logging.INFO):
        client.get(link)
    lines = [record.__dict__.get("facts", {}) for record in caplog.records]
    assert "/join/…" in str(lines)
    assert secret(link) not in str([record.__dict__ for record in caplog.records])
