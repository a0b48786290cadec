"""The description of the API, for machines and for people."""

from __future__ import annotations

from unittest import mock

import pytest
from django.test import Client

from webio import api_docs

SCHEMA = "/api/v1/openapi.json"
PAGE = "/api/docs/"


def test_the_description_is_openapi_and_needs_no_key(client: Client) -> None:
    answer = client.get(SCHEMA)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer.json()["openapi"].startswith("3.1")
    assert all(path.startswith("/api/v1/") for path in answer.json()["paths"])


def test_the_description_is_built_once(client: Client) -> None:
    first = client.get(SCHEMA).content
    with mock.patch.object(api_docs, "SchemaGenerator", side_effect=AssertionError("built again")):
        assert client.get(SCHEMA).content == first
        assert client.get(PAGE).status_code == 200


def test_whoever_has_the_description_is_answered_304(client: Client) -> None:
    answer = client.get(SCHEMA)
    assert "public" in answer["Cache-Control"]
    again = client.get(SCHEMA, headers={"If-None-Match": answer["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again["ETag"] == answer["ETag"]
    assert client.get(SCHEMA, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize("address", [SCHEMA, PAGE])
def test_only_reading_is_possible(client: Client, address: str) -> None:
    assert client.post(address).status_code == 405


def test_the_page_shows_every_call_and_carries_nothing_inline(client: Client) -> None:
    page = client.get(PAGE).content.decode()
    for methods in api_docs.schema()["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    assert "style=" not in page
    assert "<style" not in page
    assert "<script>" not in page
