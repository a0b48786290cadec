"""Requests that cannot be read are answered 400, wherever they go."""

from __future__ import annotations

from io import BytesIO

import pytest
from django.test import Client

FORM = "application/x-www-form-urlencoded; charset=utf-7"


@pytest.mark.parametrize("path", ["/accounts/login/", "/admin/login/", "/join/nobody/", "/o/acme/settings/", "/"])
def test_a_form_in_another_encoding_is_refused(db: None, path: str) -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = "a" * 32
    answer = client.post(path, b"login=%2B", content_type=FORM)
    assert answer.status_code == 400
    assert "could not be read" in answer.content.decode()


def test_a_host_that_is_not_ours_is_refused(client: Client, db: None) -> None:
    page = client.get("/", headers={"Host": "a b"})
    assert page.status_code == 400
    problem = client.get("/api/docs/", headers={"Host": "a b"})
    assert problem.status_code == 400
    assert problem.json()["code"] == "bad_request"


def test_files_that_anybody_sends_are_not_kept(client: Client, db: None) -> None:
    answer = client.post("/accounts/login/", {"login": "a@b.example", "f": BytesIO(b"x" * 5_000_000)})
    assert answer.status_code == 200
    assert not answer.wsgi_request.FILES
