"""Who gets to see which page about an organisation, its people and its keys."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import Client
from django.urls import path, reverse
from django.views import View

from conftest import Cast
from core.actors import SYSTEM
from organisations.actions import create_webio_token, suspend_organisation
from organisations.models import ApiKey, AuditEntry, Invitation, Membership, Organisation, Role, WebioToken
from organisations.panel.views import PanelView
from organisations.people import invite

pytestmark = pytest.mark.once

OWNERS = {Role.OWNER}
ADMINS = {Role.OWNER, Role.ADMIN}
BUILDERS = {*ADMINS, Role.DEVELOPER}
EVERYBODY = set(Role.values)

PAGES = {
    "settings:organisation": EVERYBODY,
    "settings:people": EVERYBODY - {Role.VIEWER},
    "settings:audit": ADMINS,
    "keys:list": BUILDERS,
    "keys:add": BUILDERS,
    "keys:rotate": BUILDERS,
    "keys:revoke": BUILDERS,
    "keys:token": BUILDERS,
}
#: What a POST without a useful body answers to those who may: a form again, a redirect, a secret.
POSTS = {
    "settings:organisation": (ADMINS, 400),
    "settings:people": (ADMINS, 400),
    "settings:member": (ADMINS, 302),
    "settings:invitation": (ADMINS, 302),
    "keys:add": (BUILDERS, 400),
    "keys:rotate": (BUILDERS, 400),
    "keys:token": (BUILDERS, 400),
    "keys:token_reveal": (OWNERS, 200),
}


def address(name: str, cast: Cast) -> str:
    """The address of a page of the cast's organisation, with the id it takes."""
    ids = {
        "settings:member": lambda: Membership.objects.get(organisation=cast.organisation, user=cast.viewer).pk,
        "settings:invitation": lambda: Invitation.objects.get(organisation=cast.organisation).pk,
        "keys:rotate": lambda: cast.api_key.pk,
        "keys:revoke": lambda: cast.api_key.pk,
    }
    return reverse(name, args=[cast.organisation.slug, *([ids[name]()] if name in ids else [])])


def furnish(cast: Cast) -> None:
    """What the pages with an id need."""
    make: dict[str, Any] = {"organisation": cast.organisation, "actor": SYSTEM}
    invite(**make, actor_role="owner", email="new@elsewhere.example", role="agent")
    create_webio_token(**make, secret_key="s" * 32)


def state() -> tuple[Any, ...]:
    """What a refused request must leave alone."""
    return (
        AuditEntry.objects.count(),
        list(Organisation.objects.order_by("pk").values_list("name", "time_zone")),
        list(Membership.objects.order_by("pk").values_list("role", "archived_at")),
        list(Invitation.objects.order_by("pk").values_list("pk", "revoked_at")),
        list(ApiKey.objects.order_by("pk").values_list("pk", "revoked_at", "expires_at")),
        WebioToken.objects.count(),
    )


@pytest.mark.parametrize("name", PAGES)
def test_each_role_opens_what_it_may(acme: Cast, client: Client, name: str) -> None:
    furnish(acme)
    for role, user in acme.people.items():
        client.force_login(user)
        page = client.get(address(name, acme))
        assert page.status_code == (200 if role in PAGES[name] else 403), role
        if page.status_code == 200:
            assert "no-store" in page["Cache-Control"]


@pytest.mark.parametrize("name", POSTS)
def test_each_role_changes_what_it_may(acme: Cast, client: Client, name: str) -> None:
    furnish(acme)
    allowed, answer = POSTS[name]
    for role in reversed(Role.values):
        client.force_login(acme.people[role])
        page, before = address(name, acme), state()
        if role not in allowed:
            assert client.post(page).status_code == 403, role
            assert state() == before, role
        elif name != "settings:invitation" or role == Role.OWNER:
            assert client.post(page).status_code == answer, role


def test_who_may_revoke_keys(acme: Cast, client: Client) -> None:
    for role in (Role.VIEWER, Role.AGENT):
        client.force_login(acme.people[role])
        assert client.post(address("keys:revoke", acme)).status_code == 403
        assert ApiKey.objects.get(pk=acme.api_key.pk).revoked_at is None
    client.force_login(acme.developer)
    assert client.post(address("keys:revoke", acme)).status_code == 302
    assert ApiKey.objects.get(pk=acme.api_key.pk).revoked_at is not None


@pytest.mark.parametrize("name", sorted({*PAGES, *POSTS}))
def test_outsiders_learn_nothing_and_strangers_sign_in(acme: Cast, globex: Cast, client: Client, name: str) -> None:
    furnish(acme)
    furnish(globex)
    page, inside, before = address(name, acme), address(name, globex), state()
    own = inside.replace(f"/{globex.organisation.slug}/", f"/{acme.organisation.slug}/")
    for method in (client.get, client.post):
        answer = method(page)
        assert answer.status_code == 302
        assert answer["Location"] == f"/accounts/login/?next={page}"
    client.force_login(globex.owner)
    for method in (client.get, client.post):
        assert method(page).status_code == 404
    if own != page:  # Somebody else's row under one's own organisation.
        client.force_login(acme.owner)
        for method in (client.get, client.post):
            assert method(own).status_code in (404, 405)
        assert client.post(own).status_code == 404
    assert state() == before


@pytest.mark.parametrize("name", sorted({*PAGES, *POSTS}))
def test_a_suspended_organisation_says_so_and_does_nothing(acme: Cast, client: Client, name: str) -> None:
    furnish(acme)
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    client.force_login(acme.owner)
    page, before = address(name, acme), state()
    for method in (client.get, client.post):
        answer = method(page)
        assert answer.status_code == 403
        assert "Acme is suspended" in answer.content.decode()
    assert state() == before


def test_a_suspension_tells_outsiders_nothing(acme: Cast, globex: Cast, client: Client) -> None:
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    client.force_login(globex.owner)
    assert client.get("/o/acme/settings/").status_code == 404


@pytest.mark.parametrize("name", POSTS)
def test_a_form_without_its_token_is_refused(acme: Cast, name: str) -> None:
    furnish(acme)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(acme.owner)
    before = state()
    assert strict.post(address(name, acme)).status_code == 403
    assert state() == before


def test_the_navigation_shows_what_one_may_open(acme: Cast, client: Client) -> None:
    client.force_login(acme.viewer)
    shown = client.get("/o/acme/settings/").content.decode()
    assert reverse("keys:list", args=["acme"]) not in shown
    assert reverse("settings:audit", args=["acme"]) not in shown
    client.force_login(acme.owner)
    shown = client.get("/o/acme/settings/").content.decode()
    assert reverse("keys:list", args=["acme"]) in shown
    assert shown.count('aria-current="page"') == 1


class Undeclared(PanelView):
    """A page that forgot its permission."""


class Untenanted(View):
    """A page under an organisation that asks nobody."""


urlpatterns = [
    path("o/<slug:slug>/undeclared/", Undeclared.as_view()),
    path("o/<slug:slug>/untenanted/", Untenanted.as_view()),
]


@pytest.mark.urls(__name__)
def test_a_page_that_declares_nothing_is_found_at_start() -> None:
    found = {error.id for error in run_checks() if str(error.id).startswith("organisations.")}
    assert found == {"organisations.E001", "organisations.E003"}


@pytest.mark.urls(__name__)
def test_a_page_that_declares_nothing_opens_to_nobody(acme: Cast) -> None:
    client = Client(raise_request_exception=False)
    client.force_login(acme.owner)
    assert client.get("/o/acme/undeclared/").status_code != 200
