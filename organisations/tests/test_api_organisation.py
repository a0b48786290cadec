"""GET /organisation: which organisation a key belongs to and what it may do."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from organisations.actions import suspend_organisation
from organisations.models import Organisation
from organisations.scopes import SCOPES
from organisations.tests.calls import call, with_scopes


def test_it_answers_the_keys_organisation_and_scopes(client: Client, acme: Cast, globex: Cast) -> None:
    for cast in (acme, globex):
        answer = call(client, cast, "GET", "organisation")
        assert answer.status_code == 200
        assert answer.json() == {
            "organisationId": str(cast.organisation.pk),
            "name": cast.organisation.name,
            "slug": cast.organisation.slug,
            "timeZone": "UTC",
            "scopes": sorted(SCOPES),
        }


@pytest.mark.parametrize("scope", sorted(SCOPES))
def test_a_key_of_any_scope_may_ask_and_is_told_its_own(client: Client, acme: Cast, scope: str) -> None:
    answer = call(client, acme, "GET", "organisation", headers=with_scopes(acme, scope))
    assert (answer.status_code, answer.json()["scopes"]) == (200, [scope])


def test_a_child_organisations_key_tells_the_child(client: Client, acme: Cast, globex: Cast) -> None:
    Organisation.objects.filter(pk=globex.organisation.pk).update(parent=acme.organisation)
    answer = call(client, globex, "GET", "organisation")
    assert answer.json()["organisationId"] == str(globex.organisation.pk)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer nonsense", "Token x"])
def test_without_a_key_it_is_401(client: Client, acme: Cast, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = call(client, acme, "GET", "organisation", headers=headers)
    assert answer.status_code == 401
    assert acme.organisation.name not in answer.content.decode()


def test_a_suspended_organisation_is_told_so(client: Client, acme: Cast) -> None:
    suspend_organisation(organisation=acme.organisation, actor=SYSTEM)
    answer = call(client, acme, "GET", "organisation")
    assert (answer.status_code, answer.json()["code"]) == (403, "organisation_suspended")


def test_it_is_read_only_and_takes_no_parameters(client: Client, acme: Cast, globex: Cast) -> None:
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        body = None if method == "DELETE" else {"name": "Other"}
        assert call(client, acme, method, "organisation", body).status_code == 405
    answer = call(client, acme, "GET", f"organisation?organisationId={globex.organisation.pk}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["organisationId"])
    acme.organisation.refresh_from_db()
    assert acme.organisation.name == "Acme"


def test_it_takes_one_query(client: Client, acme: Cast, django_assert_max_num_queries: Any, settings: Any) -> None:
    settings.API_RATE_LIMIT = "0"
    call(client, acme, "GET", "organisation")
    with django_assert_max_num_queries(1):
        call(client, acme, "GET", "organisation")
