"""Organisations are made, renamed, suspended; what happens in one is on its audit page."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM, Actor
from core.errors import Invalid
from organisations.actions import create_organisation, suspend_organisation, unsuspend_organisation, update_organisation
from organisations.audit import record_audit
from organisations.models import AuditEntry, Membership, Organisation, Role

PAGE = "/o/acme/settings/"
AUDIT = "/o/acme/settings/audit/"


def test_a_new_organisation_has_its_owner(acme: Cast) -> None:
    made = create_organisation(actor=SYSTEM, name="New", slug="new-one", owner=acme.viewer, parent=acme.organisation)
    assert Membership.objects.get(organisation=made).role == Role.OWNER
    assert made.parent == acme.organisation
    assert AuditEntry.objects.get(action="organisation.create").organisation == made


@pytest.mark.parametrize(
    ("name", "slug", "field"),
    [
        ("", "new", "name"),
        ("x" * 256, "new", "name"),
        ("a\0b", "new", "name"),
        ("New", "", "slug"),
        ("New", "-new", "slug"),
        ("New", "New", "slug"),
        ("New", "n" * 61, "slug"),
        ("New", "new\n", "slug"),
        ("New", "acme", "slug"),
    ],
)
def test_a_bad_name_or_slug_makes_none(acme: Cast, name: str, slug: str, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        create_organisation(actor=SYSTEM, name=name, slug=slug, owner=acme.viewer)
    assert list(refusal.value.errors) == [field]
    assert Organisation.objects.count() == 1
    assert not AuditEntry.objects.filter(action="organisation.create").exists()


def test_owners_rename_it_on_its_page(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    assert client.post(PAGE, {"name": "Acme & Söhne", "time_zone": "Europe/Dublin"}).status_code == 302
    acme.organisation.refresh_from_db()
    assert (acme.organisation.name, acme.organisation.time_zone) == ("Acme & Söhne", "Europe/Dublin")
    assert "Acme &amp; Söhne" in client.get(PAGE).content.decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "time_zone": "UTC"},
        {"name": "a\0b", "time_zone": "UTC"},
        {"name": "x" * 256, "time_zone": "UTC"},
        {"name": "Acme", "time_zone": "Mars/Olympus"},
    ],
)
def test_a_bad_form_changes_nothing(acme: Cast, client: Client, fields: dict[str, str]) -> None:
    client.force_login(acme.owner)
    answer = client.post(PAGE, fields)
    assert answer.status_code == 400
    assert 'class="errorlist"' in answer.content.decode()
    assert Organisation.objects.get().name == "Acme"


def test_an_unknown_time_zone_is_refused_by_the_verb(acme: Cast) -> None:
    with pytest.raises(Invalid) as refusal:
        update_organisation(organisation=acme.organisation, actor=SYSTEM, name="New", time_zone="Mars/Olympus")
    assert list(refusal.value.errors) == ["timeZone"]
    assert Organisation.objects.get().name == "Acme"


def test_a_suspension_refuses_keys_and_members_until_it_ends(acme: Cast, client: Client) -> None:
    client.force_login(acme.owner)
    for _ in range(2):
        suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    assert client.get(PAGE).status_code == 403
    assert client.get("/api/v1/queues", headers=acme.auth).status_code == 403
    assert "suspended" in client.get("/?choose=1").content.decode()
    for _ in range(2):
        unsuspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    assert client.get(PAGE).status_code == 200
    assert client.get("/api/v1/queues", headers=acme.auth).status_code == 200
    actions = AuditEntry.objects.filter(action__contains="suspend").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["organisation.suspend", "organisation.unsuspend"]


def test_home_leads_to_the_only_organisation_or_asks_which(acme: Cast, globex: Cast, client: Client) -> None:
    assert "Sign in" in client.get("/").content.decode()
    client.force_login(acme.viewer)
    assert client.get("/")["Location"] == "/o/acme/integrations/"
    Membership.objects.create(organisation=globex.organisation, user=acme.viewer, role=Role.VIEWER)
    shown = client.get("/").content.decode()
    assert "Acme" in shown
    assert "Globex" in shown


def test_the_audit_page_turns_and_shows_only_its_own(
    acme: Cast, globex: Cast, client: Client, django_assert_max_num_queries: Any
) -> None:
    actor = Actor("user", "7", "Ada <b>")
    for number in range(60):
        record_audit(actor, f"thing.do{number:02}", acme.organisation)
    record_audit(actor, "thing.elsewhere", globex.organisation)
    client.force_login(acme.owner)
    with django_assert_max_num_queries(6):
        first = client.get(AUDIT)
    shown = first.content.decode()
    assert "Ada &lt;b&gt;" in shown
    assert "thing.elsewhere" not in shown
    assert "thing.do59" in shown
    assert "thing.do09" not in shown
    second = client.get(AUDIT, {"before": first.context["older"]}).content.decode()
    assert "thing.do09" in second
    assert "thing.do10" not in second


@pytest.mark.parametrize("before", ["", "x", "-1", "9" * 30, "٣", "1 OR 1=1"])
def test_a_bad_cursor_of_the_audit_page_is_harmless(acme: Cast, client: Client, before: str) -> None:
    client.force_login(acme.owner)
    assert client.get(AUDIT, {"before": before}).status_code == 200
