"""The role table, and who acts with which role where."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.test import Client

from conftest import Cast, make_user
from core.clock import now
from organisations.management.commands.role_table import role_table
from organisations.models import Membership, Organisation, Role
from organisations.roles import PERMISSIONS, STRENGTH, Permission, may, role_of


def test_the_page_in_the_docs_is_the_table_in_the_code() -> None:
    assert (Path(settings.BASE_DIR) / "docs" / "roles.md").read_text() == role_table()


def test_every_role_has_a_row_and_every_permission_somebody() -> None:
    assert set(PERMISSIONS) == set(Role.values) == {role.value for role in STRENGTH}
    assert set().union(*PERMISSIONS.values()) == set(Permission)


def test_an_unknown_role_may_nothing() -> None:
    assert not any(may(role, permission) for role in (None, "", "root") for permission in Permission)


@pytest.fixture
def child(acme: Cast) -> Organisation:
    return Organisation.objects.create(name="Acme North", slug="acme-north", parent=acme.organisation)


def test_members_of_the_parent_act_in_the_child_and_never_the_reverse(acme: Cast, child: Organisation) -> None:
    below = make_user("below@acme.example")
    Membership.objects.create(organisation=child, user=below, role=Role.OWNER)
    assert role_of(acme.developer, child) == Role.DEVELOPER
    assert role_of(below, acme.organisation) is None
    grandchild = Organisation.objects.create(name="Deep", slug="deep", parent=child)
    assert role_of(acme.viewer, grandchild) == Role.VIEWER


def test_the_stronger_of_two_roles_counts(acme: Cast, child: Organisation) -> None:
    Membership.objects.create(organisation=child, user=acme.viewer, role=Role.ADMIN)
    Membership.objects.create(organisation=child, user=acme.owner, role=Role.VIEWER)
    assert role_of(acme.viewer, child) == Role.ADMIN
    assert role_of(acme.owner, child) == Role.OWNER


def test_nobody_outside_has_a_role(acme: Cast, globex: Cast) -> None:
    assert role_of(globex.owner, acme.organisation) is None
    assert role_of(AnonymousUser(), acme.organisation) is None
    Membership.objects.filter(user=acme.admin).update(archived_at=now())
    assert role_of(acme.admin, acme.organisation) is None
    acme.owner.is_active = False
    assert role_of(acme.owner, acme.organisation) is None


def test_organisations_form_no_loop(acme: Cast, child: Organisation) -> None:
    acme.organisation.parent = child
    with pytest.raises(ValidationError) as refusal:
        acme.organisation.full_clean()
    assert "parent" in refusal.value.message_dict
    child.refresh_from_db()
    child.full_clean()


def test_the_chooser_lists_children_to_parents_only(acme: Cast, child: Organisation, client: Client) -> None:
    client.force_login(acme.viewer)
    assert "Acme North" in client.get("/").content.decode()
    below = make_user("below@acme.example")
    Membership.objects.create(organisation=child, user=below, role=Role.OWNER)
    client.force_login(below)
    assert client.get("/")["Location"] == "/o/acme-north/integrations/"
    assert client.get("/o/acme/settings/").status_code == 404
