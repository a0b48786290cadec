"""Members: roles change, memberships end, an owner always remains."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from conftest import Cast, make_user
from core.actors import SYSTEM
from core.errors import Conflict, Forbidden, Invalid, NotFound
from organisations.models import AuditEntry, Membership, Role, User
from organisations.people import change_role, remove_member


def membership(cast: Cast, role: str) -> Membership:
    return Membership.objects.get(organisation=cast.organisation, user=cast.people[role])


def unchanged(cast: Cast) -> bool:
    """Whether everybody still has the role they began with, and nothing was written down."""
    rows = Membership.objects.filter(organisation=cast.organisation, archived_at=None)
    kept = dict(rows.values_list("user__email", "role")) == {user.email: role for role, user in cast.people.items()}
    return kept and not AuditEntry.objects.filter(action__startswith="membership.").exists()


def test_a_role_changes_and_is_written_down(acme: Cast) -> None:
    changed = change_role(membership=membership(acme, "viewer"), actor=SYSTEM, actor_role="admin", role="agent")
    assert changed.role == membership(acme, "viewer").role == Role.AGENT
    assert AuditEntry.objects.get(action="membership.change_role").data == {"before": "viewer", "after": "agent"}


def test_the_same_role_again_writes_nothing_down(acme: Cast) -> None:
    change_role(membership=membership(acme, "viewer"), actor=SYSTEM, actor_role="admin", role="viewer")
    assert unchanged(acme)


@pytest.mark.parametrize("role", ["", "root", "Owner"])
def test_an_unknown_role_is_refused(acme: Cast, role: str) -> None:
    with pytest.raises(Invalid) as refusal:
        change_role(membership=membership(acme, "viewer"), actor=SYSTEM, actor_role="owner", role=role)
    assert list(refusal.value.errors) == ["role"]
    assert unchanged(acme)


@pytest.mark.parametrize("actor_role", ["admin", "developer", "agent", "viewer", ""])
def test_only_owners_make_and_unmake_owners(acme: Cast, actor_role: str) -> None:
    with pytest.raises(Forbidden):
        change_role(membership=membership(acme, "viewer"), actor=SYSTEM, actor_role=actor_role, role="owner")
    with pytest.raises(Forbidden):
        change_role(membership=membership(acme, "owner"), actor=SYSTEM, actor_role=actor_role, role="viewer")
    with pytest.raises(Forbidden):
        remove_member(membership=membership(acme, "owner"), actor=SYSTEM, actor_role=actor_role)
    assert unchanged(acme)


def test_the_last_owner_stays(acme: Cast) -> None:
    with pytest.raises(Conflict) as refusal:
        change_role(membership=membership(acme, "owner"), actor=SYSTEM, actor_role="owner", role="admin")
    assert refusal.value.code == "last_owner"
    with pytest.raises(Conflict):
        remove_member(membership=membership(acme, "owner"), actor=SYSTEM, actor_role="owner")
    assert unchanged(acme)


def test_an_owner_who_cannot_sign_in_does_not_count(acme: Cast) -> None:
    idle = make_user("idle@acme.example", is_active=False)
    Membership.objects.create(organisation=acme.organisation, user=idle, role=Role.OWNER)
    with pytest.raises(Conflict):
        remove_member(membership=membership(acme, "owner"), actor=SYSTEM, actor_role="owner")
    User.objects.filter(pk=idle.pk).update(is_active=True)
    remove_member(membership=membership(acme, "owner"), actor=SYSTEM, actor_role="owner")
    assert membership(acme, "owner").archived_at is not None


def test_who_has_left_cannot_be_changed(acme: Cast) -> None:
    row = membership(acme, "viewer")
    remove_member(membership=row, actor=SYSTEM, actor_role="admin")
    with pytest.raises(NotFound):
        change_role(membership=row, actor=SYSTEM, actor_role="owner", role="admin")


def test_who_was_removed_sees_nothing_any_more(acme: Cast, client: Client) -> None:
    client.force_login(acme.developer)
    assert client.get("/o/acme/integrations/keys/").status_code == 200
    remove_member(membership=membership(acme, "developer"), actor=SYSTEM, actor_role="owner")
    assert client.get("/o/acme/integrations/keys/").status_code == 404


def test_the_page_changes_and_removes(acme: Cast, client: Client) -> None:
    client.force_login(acme.admin)
    page = reverse("settings:member", args=["acme", membership(acme, "viewer").pk])
    assert client.post(page, {"role": "developer"})["Location"] == "/o/acme/settings/people/"
    assert membership(acme, "viewer").role == Role.DEVELOPER
    client.post(page, {"remove": "1"})
    assert membership(acme, "viewer").archived_at is not None
    actors = AuditEntry.objects.filter(action__startswith="membership.").values_list("actor_kind", "actor_id")
    assert set(actors) == {("user", str(acme.admin.pk))}


def test_the_page_says_why_it_refuses(acme: Cast, client: Client) -> None:
    client.force_login(acme.admin)
    page = reverse("settings:member", args=["acme", membership(acme, "owner").pk])
    answer = client.post(page, {"role": "viewer"}, follow=True)
    assert "Your role may not give or take the role owner." in answer.content.decode()
    client.force_login(acme.owner)
    answer = client.post(page, {"remove": "1"}, follow=True)
    assert "An organisation needs at least one owner." in answer.content.decode()
    assert unchanged(acme)


def test_the_list_asks_the_same_number_of_questions_however_long(
    acme: Cast, client: Client, django_assert_max_num_queries
) -> None:
    for number in range(30):
        user = make_user(f"more{number}@acme.example")
        Membership.objects.create(organisation=acme.organisation, user=user, role=Role.AGENT)
    client.force_login(acme.owner)
    with django_assert_max_num_queries(7):
        assert client.get("/o/acme/settings/people/").content.decode().count('class="cell-main"') == 35
