"""Two at once: the limit and the one custom value endpoint hold. On databases that really run two transactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection

from conftest import Cast, make_cast
from core.actors import SYSTEM
from core.errors import Refusal
from webhooks.actions import create_webhook
from webhooks.models import Webhook

AT_ONCE = 6

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time; run on PostgreSQL"),
]


def create_at_once(cast: Cast, **values: Any) -> list[str]:
    """Codes of the refusals, "" for a success, of `AT_ONCE` calls started together."""
    barrier = Barrier(AT_ONCE)

    def call(number: int) -> str:
        barrier.wait()
        try:
            create_webhook(
                organisation=cast.organisation,
                actor=SYSTEM,
                name=f"hook {number}",
                callback_url="https://hooks.example.com/",
                events=["payment"],
                **values,
            )
        except Refusal as refusal:
            return refusal.code
        finally:
            connection.close()
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sorted(pool.map(call, range(AT_ONCE)))


def test_the_limit_holds(settings: Any) -> None:
    settings.WEBHOOKS_PER_ORGANISATION = 2
    cast = make_cast("acme")
    assert create_at_once(cast) == ["", "", *["webhook_limit"] * (AT_ONCE - 2)]
    assert Webhook.objects.count() == 2


def test_one_custom_value_endpoint_wins() -> None:
    cast = make_cast("acme")
    assert create_at_once(cast, custom_values=True) == ["", *["custom_values_taken"] * (AT_ONCE - 1)]
    assert Webhook.objects.count() == 1
