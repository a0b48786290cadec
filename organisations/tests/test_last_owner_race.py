"""Owners who demote or remove each other at the same moment: one remains."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.db import connection

from conftest import make_cast, make_user
from core.actors import SYSTEM
from core.errors import Refusal
from organisations.models import Invitation, Membership, Role, User
from organisations.people import accept_invitation, change_role, hash_token, invite, register_invited, remove_member

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time; run on PostgreSQL"),
]


def at_once(*calls) -> list[str]:
    """Codes of the refusals, "" for a success, of calls started together."""
    barrier = Barrier(len(calls))

    def run(call) -> str:
        barrier.wait()
        try:
            call()
        except Refusal as refusal:
            return refusal.code
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(len(calls)) as pool:
        return sorted(pool.map(run, calls))


@pytest.mark.parametrize("leave", [False, True])
def test_two_owners_who_end_each_other_leave_one(leave: bool) -> None:
    cast = make_cast("acme")
    second = make_user("second@acme.example")
    Membership.objects.create(organisation=cast.organisation, user=second, role=Role.OWNER)
    rows = list(Membership.objects.filter(organisation=cast.organisation, role=Role.OWNER))
    assert len(rows) == 2

    def end(row: Membership) -> None:
        if leave:
            remove_member(membership=row, actor=SYSTEM, actor_role="owner")
        else:
            change_role(membership=row, actor=SYSTEM, actor_role="owner", role="viewer")

    assert at_once(*(lambda row=row: end(row) for row in rows)) == ["", "last_owner"]
    assert Membership.objects.filter(organisation=cast.organisation, role=Role.OWNER, archived_at=None).count() == 1


def invited(email: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The secret in the link of an invitation just made for `email`."""
    monkeypatch.setattr("organisations.people.secrets.token_urlsafe", lambda _size: "known-secret")
    cast = make_cast("acme")
    invite(organisation=cast.organisation, actor=SYSTEM, actor_role="owner", email=email, role="agent")
    assert Invitation.objects.get().token_hash == hash_token("known-secret")
    return "known-secret"


def test_a_link_followed_twice_at_once_works_once(monkeypatch: pytest.MonkeyPatch) -> None:
    token = invited("new@acme.example", monkeypatch)
    user = make_user("new@acme.example")
    assert at_once(*[lambda: accept_invitation(token=token, user=user)] * 4) == ["", *["not_found"] * 3]
    assert Membership.objects.filter(user=user).count() == 1


def test_a_form_sent_twice_at_once_makes_one_account(monkeypatch: pytest.MonkeyPatch) -> None:
    token = invited("new@acme.example", monkeypatch)
    register = [lambda: register_invited(token=token, name="New", password="a long and odd one")] * 4
    assert at_once(*register) == ["", *["not_found"] * 3]
    assert User.objects.filter(email="new@acme.example").count() == 1
