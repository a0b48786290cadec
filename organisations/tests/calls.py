"""What tests of the API share: a call with a cast's key, and keys that may do less."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client

from conftest import Cast
from core.actors import SYSTEM
from organisations.actions import create_api_key

ROOT = "/api/v1/"


def call(
    client: Client, cast: Cast, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Any:
    """The answer to `method` of `path` below /api/v1/, with the cast's key unless other `headers` are given."""
    data = "" if body is None else json.dumps(body)
    path = path if path.startswith("/") else ROOT + path
    given = cast.auth if headers is None else headers
    return client.generic(method, path, data, content_type="application/json", headers=given)


def with_scopes(cast: Cast, *scopes: str) -> dict[str, str]:
    """Headers with a key of the cast's organisation that has these scopes only."""
    _row, key = create_api_key(organisation=cast.organisation, actor=SYSTEM, name="few", scopes=scopes)
    return {"Authorization": f"Bearer {key}"}


def pages(client: Client, cast: Cast, path: str) -> list[list[dict[str, Any]]]:
    """The results of every page of a list, following `next` to its end."""
    found = []
    while path:
        answer = call(client, cast, "GET", path).json()
        found.append(answer["results"])
        path = answer["next"]
    return found
