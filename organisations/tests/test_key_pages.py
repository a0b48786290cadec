"""API keys by panel and verb: made, shown once, rotated with an overlap, revoked."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from conftest import Cast
from core.actors import SYSTEM
from core.clock import now
from core.errors import Conflict, Invalid
from organisations.actions import create_api_key, revoke_api_key, rotate_api_key
from organisations.keys import LAST_USED_EVERY, find_key, hash_key, note_use
from organisations.models import ApiKey, AuditEntry, Organisation

pytestmark = pytest.mark.once

KEYS = "/o/acme/integrations/keys/"
KEY = re.compile(r"wk_live_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}")


def generate(client: Client, **fields: Any) -> Any:
    return client.post(f"{KEYS}add/", {"name": "CRM", "scopes": ["messages:read"], **fields})


def test_a_key_is_shown_exactly_once(acme: Cast, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    client.force_login(acme.developer)
    with caplog.at_level(logging.DEBUG):
        answer = generate(client)
    keys = KEY.findall(answer.content.decode())
    assert len(keys) == 1
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    row = find_key(keys[0])
    assert row is not None
    assert (row.organisation, row.name, row.scopes, row.created_by) == (
        acme.organisation,
        "CRM",
        ["messages:read"],
        acme.developer,
    )
    secret = keys[0].rsplit("_", 1)[1]
    listed = client.get(KEYS).content.decode()
    assert row.prefix in listed
    assert secret not in listed
    assert row.key_hash not in listed
    kept = [
        str(client.session.items()),
        *(str(session.get_decoded()) for session in Session.objects.all()),
        *(str(entry.__dict__) for entry in AuditEntry.objects.all()),
        *(str(record.__dict__) for record in caplog.records if record.name != "django.db.backends"),
        str(ApiKey.objects.values().get(pk=row.pk)),
    ]
    assert not any(secret in one for one in kept)
    assert row.key_hash == hash_key(keys[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"name": "a\0b"},
        {"scopes": []},
        {"scopes": ["all"]},
        {"expires_at": "soon"},
        {"expires_at": "2001-01-01T00:00"},
        {"expires_at": "9999-12-31T23:59"},
    ],
)
def test_a_bad_form_makes_no_key(acme: Cast, client: Client, fields: dict[str, Any]) -> None:
    client.force_login(acme.owner)
    before = ApiKey.objects.count()
    answer = generate(client, **fields)
    assert answer.status_code == 400
    assert 'class="errorlist"' in answer.content.decode()
    assert ApiKey.objects.count() == before


def test_an_expiry_is_in_the_organisations_time_zone(acme: Cast, client: Client) -> None:
    Organisation.objects.filter(pk=acme.organisation.pk).update(time_zone="Asia/Tokyo")
    client.force_login(acme.owner)
    generate(client, expires_at="2099-07-01T10:00")
    expires = ApiKey.objects.get(name="CRM").expires_at
    assert expires == datetime(2099, 7, 1, 10, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert "2099-07-01 10:00" in client.get(KEYS).content.decode()


@pytest.mark.parametrize(("overlap", "hours"), [("0", 0), ("1", 1), ("24", 24), ("168", 168)])
def test_rotation_keeps_the_old_key_for_the_overlap(acme: Cast, client: Client, overlap: str, hours: int) -> None:
    client.force_login(acme.owner)
    answer = client.post(f"{KEYS}{acme.api_key.pk}/rotate/", {"overlap": overlap})
    (key,) = KEY.findall(answer.content.decode())
    made, old = find_key(key), ApiKey.objects.get(pk=acme.api_key.pk)
    assert made is not None
    assert old.replaced_by == made
    assert made.scopes == old.scopes
    assert old.expires_at is not None
    assert old.expires_at - now() == pytest.approx(timedelta(hours=hours), abs=timedelta(seconds=10))
    assert old.usable_at(old.expires_at - timedelta(microseconds=1))
    assert not old.usable_at(old.expires_at)
    assert (find_key(acme.key) is not None) == (hours > 0)


def test_an_overlap_does_not_prolong_a_key(acme: Cast) -> None:
    soon = now() + timedelta(hours=1)
    row, _key = create_api_key(
        organisation=acme.organisation, actor=SYSTEM, name="short", scopes=["events:read"], expires_at=soon
    )
    rotate_api_key(api_key=row, actor=SYSTEM, overlap=timedelta(hours=24))
    assert ApiKey.objects.get(pk=row.pk).expires_at == soon


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(hours=168, seconds=1)])
def test_an_overlap_has_bounds(acme: Cast, overlap: timedelta) -> None:
    before = ApiKey.objects.count()
    with pytest.raises(Invalid):
        rotate_api_key(api_key=acme.api_key, actor=SYSTEM, overlap=overlap)
    assert ApiKey.objects.count() == before


def test_only_a_key_in_use_is_rotated_and_once(acme: Cast, client: Client) -> None:
    rotate_api_key(api_key=acme.api_key, actor=SYSTEM, overlap=timedelta(hours=1))
    with pytest.raises(Conflict):
        rotate_api_key(api_key=acme.api_key, actor=SYSTEM, overlap=timedelta(hours=1))
    client.force_login(acme.owner)
    answer = client.post(f"{KEYS}{acme.api_key.pk}/rotate/", {"overlap": "1"})
    assert answer.status_code == 400
    assert KEY.search(answer.content.decode()) is None
    assert ApiKey.objects.filter(organisation=acme.organisation).count() == 2


def test_a_revoked_key_is_refused_at_once(acme: Cast, client: Client) -> None:
    assert client.get("/api/v1/queues", headers=acme.auth).status_code == 200
    client.force_login(acme.owner)
    client.post(f"{KEYS}{acme.api_key.pk}/revoke/")
    assert client.get("/api/v1/queues", headers=acme.auth).status_code == 401
    first = ApiKey.objects.get(pk=acme.api_key.pk).revoked_at
    revoke_api_key(api_key=acme.api_key, actor=SYSTEM)
    assert ApiKey.objects.get(pk=acme.api_key.pk).revoked_at == first
    assert AuditEntry.objects.filter(action="apikey.revoke").count() == 1


def test_the_last_use_is_written_at_most_once_a_minute(acme: Cast) -> None:
    began = now()
    moments = [began, began + LAST_USED_EVERY - timedelta(seconds=1), began + LAST_USED_EVERY]
    written = []
    for moment in moments:
        row = ApiKey.objects.get(pk=acme.api_key.pk)
        with CaptureQueriesContext(connection) as asked:
            note_use(row, moment)
        written.append(len(asked))
    assert written == [1, 0, 1]
    assert ApiKey.objects.get(pk=acme.api_key.pk).last_used_at == moments[2]


def test_the_list_asks_the_same_number_of_questions_however_long(
    acme: Cast, client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(30):
        create_api_key(
            organisation=acme.organisation,
            actor=SYSTEM,
            name=f"key {number}",
            scopes=["events:read"],
            created_by=acme.owner,
        )
    client.force_login(acme.owner)
    with django_assert_max_num_queries(6):
        assert client.get(KEYS).content.decode().count('class="cell-main"') == 31
