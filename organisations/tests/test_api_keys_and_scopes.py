"""Who may call the API: keys, scopes, suspended organisations, other tenants."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from organisations.actions import create_api_key
from organisations.api.views import ApiView
from organisations.models import ApiKey
from organisations.scopes import SCOPES

URL = "/api/v1/conversations"


def calls() -> list[tuple[str, type[ApiView]]]:
    """(path pattern, view class) of every call that needs a key."""
    found = []

    def walk(patterns: list[Any], prefix: str) -> None:
        for pattern in patterns:
            path = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, path)
            elif isinstance(pattern, URLPattern):
                view = getattr(pattern.callback, "view_class", getattr(pattern.callback, "cls", None))
                if isinstance(view, type) and issubclass(view, ApiView):
                    found.append((path, view))

    walk(get_resolver().url_patterns, "/")
    return found


def test_every_method_of_every_view_names_a_known_scope() -> None:
    assert len(calls()) > 20
    for path, view in calls():
        methods = {name.upper() for name in ("get", "post", "put", "patch", "delete") if hasattr(view, name)}
        assert methods == set(view.scopes), path
        assert {scope for scope in view.scopes.values() if scope} <= set(SCOPES), path


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wk_live_x", "Bearer \N{SNOWMAN}"]
)
def test_without_a_usable_key_the_answer_is_401_with_a_challenge(client: Client, db: None, header: str | None) -> None:
    answer = client.get(URL, headers={} if header is None else {"Authorization": header})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] in ("missing_key", "bad_key")


def test_a_wrong_secret_with_a_known_prefix_is_refused(client: Client, acme: Cast) -> None:
    wrong = acme.key[:-1] + ("a" if acme.key[-1] != "a" else "b")
    assert client.get(URL, headers={"Authorization": f"Bearer {wrong}"}).status_code == 401


@pytest.mark.parametrize("change", [{"revoked_at": now()}, {"expires_at": now() - timedelta(seconds=1)}])
def test_a_revoked_or_expired_key_is_refused(client: Client, acme: Cast, change: dict[str, Any]) -> None:
    ApiKey.objects.filter(pk=acme.api_key.pk).update(**change)
    assert client.get(URL, headers=acme.auth).status_code == 401


def test_a_suspended_organisation_is_told_so(client: Client, acme: Cast) -> None:
    acme.organisation.suspended_at = now()
    acme.organisation.save(update_fields=["suspended_at"])
    answer = client.get(URL, headers=acme.auth)
    assert answer.status_code == 403
    assert answer.json()["code"] == "organisation_suspended"


def test_the_last_use_is_written_once_a_minute(client: Client, acme: Cast) -> None:
    client.get(URL, headers=acme.auth)
    first = ApiKey.objects.get(pk=acme.api_key.pk).last_used_at
    assert first is not None
    client.get(URL, headers=acme.auth)
    assert ApiKey.objects.get(pk=acme.api_key.pk).last_used_at == first


def test_a_missing_scope_is_403_before_the_path_and_the_body_are_looked_at(client: Client, acme: Cast) -> None:
    _row, key = create_api_key(
        organisation=acme.organisation, actor=SYSTEM, name="reader", scopes=["conversations:read"]
    )
    headers = {"Authorization": f"Bearer {key}"}
    for path in ("/api/v1/conversations", "/api/v1/conversations/999999/messages"):
        answer = client.post(path, b"{broken", content_type="application/json", headers=headers)
        assert answer.status_code == 403, path
        assert answer.json()["code"] == "missing_scope"
    assert client.get(URL, headers=headers).status_code == 200
    assert client.head("/api/v1/transcripts", headers=headers).status_code == 403


def test_somebody_elses_object_is_404_before_the_body_is_looked_at(client: Client, acme: Cast, globex: Cast) -> None:
    for pk in (str(globex.conversation.pk), "999999", "0", "01", "-1", "x", "1" * 30, "%00"):
        answer = client.post(
            f"/api/v1/conversations/{pk}/messages", b"{broken", content_type="application/json", headers=acme.auth
        )
        assert answer.status_code == 404, pk
        assert answer.json()["code"] == "not_found"
