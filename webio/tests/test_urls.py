"""A walk over the addresses of panel and API: nobody gets in who may not, and no address is forgotten here."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import URLResolver, get_resolver, reverse

from conftest import Cast
from core.actors import SYSTEM
from organisations.actions import create_api_key
from organisations.api.views import ApiView
from organisations.models import Invitation, Membership, Role, User
from organisations.people import invite
from organisations.scopes import SCOPES
from payments.actions import record_payment
from webhooks.replay import start_replay
from webhooks.tests.conftest import make_delivery, make_webhook

OWNERS = {Role.OWNER}
ADMINS = {Role.OWNER, Role.ADMIN}
BUILDERS = {*ADMINS, Role.DEVELOPER}
PLAYERS = {*BUILDERS, Role.AGENT}
EVERYBODY = set(Role.values)

#: Page of an organisation → who may open it, and what its GET answers them. Add a row for each new page.
PANEL: dict[str, tuple[set[Any], int]] = {
    "integrations:overview": (EVERYBODY, 200),
    "integrations:webhooks": (EVERYBODY, 200),
    "integrations:webhook": (EVERYBODY, 200),
    "integrations:custom_values": (EVERYBODY, 200),
    "integrations:event_catalogue": (EVERYBODY, 200),
    "integrations:webhook_add": (BUILDERS, 200),
    "integrations:webhook_edit": (BUILDERS, 200),
    "integrations:webhook_test": (BUILDERS, 200),
    "integrations:webhook_verify": (BUILDERS, 200),
    "integrations:webhook_secret": (BUILDERS, 200),
    "integrations:webhook_delete": (BUILDERS, 200),
    **{f"integrations:webhook_{verb}": (BUILDERS, 405) for verb in ("pause", "resume", "disable", "enable")},
    "integrations:deliveries": (BUILDERS, 200),
    "integrations:resend_failed": (BUILDERS, 200),
    "integrations:replays": (BUILDERS, 200),
    "integrations:replay_start": (BUILDERS, 200),
    "integrations:replay": (BUILDERS, 200),
    **{f"integrations:replay_{verb}": (BUILDERS, 405) for verb in ("pause", "resume", "cancel")},
    "integrations:log": (BUILDERS, 200),
    "integrations:resend_selected": (BUILDERS, 405),
    "integrations:delivery": (BUILDERS, 200),
    "integrations:delivery_resend": (BUILDERS, 405),
    "sandbox:index": (EVERYBODY, 200),
    "sandbox:start": (PLAYERS, 405),
    "sandbox:conversation": (EVERYBODY, 200),
    **{f"sandbox:{verb}": (PLAYERS, 405) for verb in ("send", "answer", "close", "reopen")},
    "keys:list": (BUILDERS, 200),
    "keys:add": (BUILDERS, 200),
    "keys:rotate": (BUILDERS, 200),
    "keys:revoke": (BUILDERS, 200),
    "keys:token": (BUILDERS, 200),
    "keys:token_reveal": (OWNERS, 405),
    "settings:organisation": (EVERYBODY, 200),
    "settings:people": (EVERYBODY - {Role.VIEWER}, 200),
    "settings:member": (ADMINS, 405),
    "settings:invitation": (ADMINS, 405),
    "settings:audit": (ADMINS, 200),
}


def routes() -> Iterator[tuple[str, str, Any]]:
    """(path pattern, name with its namespace, view) of every address."""

    def walk(resolver: Any, prefix: str, space: str) -> Iterator[tuple[str, str, Any]]:
        for entry in resolver.url_patterns:
            path = prefix + str(entry.pattern)
            if isinstance(entry, URLResolver):
                yield from walk(entry, path, f"{space}{entry.namespace}:" if entry.namespace else space)
            else:
                yield path, f"{space}{entry.name}", entry.callback

    yield from walk(get_resolver(), "", "")


def api_routes() -> list[tuple[str, str, type[ApiView]]]:
    """(path pattern, name, view class) of every call that needs a key."""
    views = ((path, name, getattr(view, "cls", None)) for path, name, view in routes())
    return [(path, name, cls) for path, name, cls in views if isinstance(cls, type) and issubclass(cls, ApiView)]


def ids_of(cast: Cast) -> dict[str, int]:
    """The id that stands in an address, by the word in the route before it."""
    make: dict[str, Any] = {"organisation": cast.organisation, "actor": SYSTEM}
    webhook = make_webhook(cast)
    delivery = make_delivery(cast, webhook)
    payment = record_payment(**make, conversation_id=cast.conversation.pk, amount=Decimal(5), currency="EUR")
    invite(**make, actor_role="owner", email="new@elsewhere.example", role="agent")
    return {
        "conversations": cast.conversation.pk,
        "channels": cast.channel.pk,
        "queues": cast.queue.pk,
        "statuses": cast.status.pk,
        "contacts": cast.contact.pk,
        "payments": payment.pk,
        "webhooks": webhook.pk,
        "deliveries": delivery.pk,
        "log": delivery.pk,
        "replays": start_replay(webhook=webhook, actor=SYSTEM).pk,
        "sandbox": cast.conversation.pk,
        "keys": cast.api_key.pk,
        "people": Membership.objects.get(organisation=cast.organisation, user=cast.viewer).pk,
        "invitations": Invitation.objects.get(organisation=cast.organisation).pk,
    }


def address(pattern: str, ids: dict[str, int], slug: str = "") -> str:
    """The route with its arguments filled in; an unknown one fails the test."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "<slug:slug>":
            parts.append(slug)
        elif part.startswith("<"):
            assert parts[-1] in ids, f"{pattern}: add what stands after {parts[-1]} to ids_of"
            parts.append(str(ids[parts[-1]]))
        else:
            parts.append(part)
    return "/" + "/".join(parts)


PANEL_ROUTES = {name: path for path, name, _view in routes() if path.startswith("o/")}


def test_every_page_of_an_organisation_has_its_row() -> None:
    assert set(PANEL_ROUTES) == set(PANEL), "add a row to PANEL that says who may open the page"


def test_every_page_opens_to_an_owner(acme: Cast, client: Client) -> None:
    ids = ids_of(acme)
    client.force_login(acme.owner)
    for name, (_allowed, answer) in PANEL.items():
        assert client.get(address(PANEL_ROUTES[name], ids, "acme")).status_code == answer, name


@pytest.mark.once
@pytest.mark.parametrize("name", PANEL_ROUTES)
def test_a_page_opens_to_those_who_may(acme: Cast, globex: Cast, staff: User, client: Client, name: str) -> None:
    allowed, answer = PANEL[name]
    ids, foreign = ids_of(acme), ids_of(globex)
    page = address(PANEL_ROUTES[name], ids, "acme")
    for method in (client.get, client.post):
        assert method(page)["Location"] == f"{reverse('account_login')}?next={page}"
    for outsider in (globex.owner, staff):
        client.force_login(outsider)
        for method in (client.get, client.post):
            assert method(page).status_code == 404
    for role, user in acme.people.items():
        client.force_login(user)
        assert client.get(page).status_code == (answer if role in allowed else 403), role
        if role not in allowed:
            assert client.post(page).status_code == 403, role
    client.force_login(acme.owner)
    other = address(PANEL_ROUTES[name], foreign, "acme")
    if other != page:
        assert client.get(other).status_code == (404 if answer == 200 else 405)
        assert client.post(other).status_code in (404, 405)


@pytest.mark.once
@pytest.mark.parametrize(("path", "view"), [pytest.param(path, view, id=name) for path, name, view in api_routes()])
def test_a_call_needs_a_key_its_scope_and_ones_own_object(
    acme: Cast, globex: Cast, client: Client, path: str, view: type[ApiView]
) -> None:
    ids = ids_of(globex)
    url = address(path, ids)
    for method, scope in view.scopes.items():
        assert client.generic(method, url).status_code == 401, method
        if scope:
            others = [one for one in SCOPES if one != scope]
            _row, key = create_api_key(organisation=globex.organisation, actor=SYSTEM, name="weak", scopes=others)
            assert client.generic(method, url, headers={"Authorization": f"Bearer {key}"}).status_code == 403, method
        if "<" in path:
            answer = client.generic(method, url, headers=acme.auth)
            assert answer.status_code == 404, method
            assert "globex" not in answer.content.decode().lower()
            if method == "GET":
                assert client.get(url, headers=globex.auth).status_code == 200


#: What GET of an address that belongs to no organisation answers anonymous people, a member and staff. The admin's own
#: pages are walked in `test_admin_pages`. Add a row for each new address.
ELSEWHERE: dict[str, tuple[int, int, int]] = {
    "healthz": (200, 200, 200),
    "readyz": (200, 200, 200),
    "metrics": (200, 200, 200),
    "admin/": (302, 302, 200),
    "accounts/login/": (200, 302, 302),
    "accounts/logout/": (302, 200, 200),
    "accounts/inactive/": (200, 200, 200),
    "accounts/signup/": (200, 302, 302),
    "accounts/reauthenticate/": (302, 200, 200),
    "accounts/email/": (302, 200, 200),
    "accounts/confirm-email/": (200, 200, 200),
    "accounts/password/change/": (302, 200, 200),
    "accounts/password/set/": (302, 302, 302),
    "accounts/password/reset/": (200, 200, 200),
    "accounts/login/code/confirm/": (302, 302, 302),
    "accounts/^confirm-email/(?P<key>[-:\\w]+)/$": (200, 200, 200),
    "accounts/password/reset/key/done/": (200, 200, 200),
    "accounts/^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": (200, 200, 200),
    "accounts/password/reset/done/": (200, 200, 200),
    "accounts/2fa/": (302, 200, 200),
    "accounts/2fa/authenticate/": (302, 302, 302),
    "accounts/2fa/reauthenticate/": (302, 302, 302),
    "accounts/2fa/totp/activate/": (302, 302, 302),
    "accounts/2fa/totp/deactivate/": (302, 404, 404),
    "accounts/2fa/recovery-codes/": (302, 404, 404),
    "accounts/2fa/recovery-codes/generate/": (302, 302, 302),
    "accounts/2fa/recovery-codes/download/": (302, 404, 404),
    "api/v1/openapi.json": (200, 200, 200),
    "api/docs/": (200, 200, 200),
    "api/^.*$": (404, 404, 404),
    "": (200, 302, 200),
    "account/": (302, 200, 200),
    "join/<str:token>/": (404, 404, 404),
}
#: What stands for the arguments: links that nobody was sent.
ARGUMENTS = {
    "<str:token>": "nobody-sent-this",
    "^.*$": "nothing",
    "^confirm-email/(?P<key>[-:\\w]+)/$": "confirm-email/nothing/",
    "^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$": "password/reset/key/1-nothing/",
}


def elsewhere() -> dict[str, str]:
    """Route → address of what is neither a page of an organisation nor a call of the API nor inside the admin."""
    calls = {path for path, _name, _view in api_routes()}
    found = {}
    for route, _name, _view in routes():
        if route in calls or route.startswith("o/") or (route.startswith("admin/") and route != "admin/"):
            continue
        path = route
        for argument, value in ARGUMENTS.items():
            path = path.replace(argument, value)
        found[route] = "/" + path
    return found


def test_every_other_address_has_its_row() -> None:
    assert set(elsewhere()) == set(ELSEWHERE)


@pytest.mark.once
@pytest.mark.parametrize("route", ELSEWHERE)
def test_an_address_without_organisation_answers_everybody_as_it_should(
    acme: Cast, staff: User, client: Client, route: str
) -> None:
    answers = []
    for person in (None, acme.viewer, staff):
        client.logout()
        if person is not None:
            client.force_login(person)
        answers.append(client.get(elsewhere()[route]).status_code)
    assert tuple(answers) == ELSEWHERE[route]
