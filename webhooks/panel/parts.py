"""What parts of pages show that the panel and the admin have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

from core.encryption import DecryptionError
from webhooks.gaps import followers, waits_of
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.panel.charts import charts_of, labels, when
from webhooks.panel.curl import as_curl, mask_query
from webhooks.panel.requests import request_of
from webhooks.tallies import PERIODS, history, total


def history_part(webhook: Webhook, period_key: str) -> dict[str, Any]:
    """What `_history.html` shows: figures and charts of a period, of the last day if none is called so."""
    period = PERIODS.get(period_key, PERIODS["24h"])
    buckets = history(webhook, period)
    return {
        "periods": PERIODS.values(),
        "period": period,
        "figures": total(buckets),
        "charts": charts_of(buckets, period),
        "labels": labels(buckets, period),
        "rows": [(when(bucket, period), bucket.figures) for bucket in reversed(buckets)],
    }


def waits_part(delivery: Delivery, address: Callable[[Webhook | Delivery], str]) -> dict[str, Any]:
    """What `_waits.html` shows. `address` tells the pages that it links to."""
    waits = waits_of(delivery)
    earlier = next((wait.earlier for wait in waits if wait.earlier), None)
    return {
        "waits": waits,
        "followers": followers(delivery),
        "hook_url": address(delivery.webhook),
        "earlier_url": address(earlier) if earlier else "",
    }


def attempts_part(delivery: Delivery) -> dict[str, Any]:
    """What `_attempts.html` shows: the attempts in order, with the time that each came after the one before it."""
    attempts = list(delivery.attempts.order_by("number", "pk"))
    return {"attempts": list(zip(attempts, _pauses(attempts), strict=True))}


def _pauses(attempts: list[Attempt]) -> list[timedelta | None]:
    """The time before each attempt since the one before it; None before the first."""
    return [None, *(two.attempted_at - one.attempted_at for one, two in pairwise(attempts))][: len(attempts)]


def request_part(delivery: Delivery, *, query: bool = True) -> dict[str, Any]:
    """What `_request.html` shows, secrets masked; without `query` that of the URL, too, which may hold a key.

    Nothing where secrets cannot be opened, as of a key that is not among the settings'.
    """
    try:
        sent = request_of(delivery)
    except DecryptionError:
        return {"sent": None}
    curl = as_curl("POST", sent.url, sent.headers, sent.body, client_certificate=sent.client_certificate, query=query)
    return {"sent": sent if query else replace(sent, url=mask_query(sent.url)), "curl": curl}
