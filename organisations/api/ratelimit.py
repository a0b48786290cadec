"""Rate limits per organisation, shared by all web processes, in fixed windows.

With Redis a window is one counter. Without, it is a row of the database from which a process reserves calls in small
chunks (2 % of the limit, at least one), so that a busy process does not write for every call. Small limits are exact;
large ones may refuse up to a chunk early for every other process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F

from organisations.models import RateWindow

SECONDS = {"second": 1, "minute": 60, "hour": 3600}
CHUNK = 50


@dataclass(frozen=True, slots=True)
class Limit:
    """So many calls in so many seconds."""

    calls: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may go on, and what is told about it in headers."""

    allowed: bool
    limit: Limit
    remaining: int
    reset: int

    def headers(self) -> dict[str, str]:
        """RateLimit fields of draft-ietf-httpapi-ratelimit-headers, and Retry-After when refused."""
        told = {
            "RateLimit-Limit": str(self.limit.calls),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
            "RateLimit-Policy": f"{self.limit.calls};w={self.limit.seconds}",
        }
        if not self.allowed:
            told["Retry-After"] = str(self.reset)
        return told


def parse(text: str) -> Limit | None:
    """`1000/minute` as a limit; None for "0" (no limit). Raises `ValueError`."""
    if text == "0":
        return None
    calls, _, period = text.partition("/")
    if period not in SECONDS or not calls.isdigit() or int(calls) < 1:
        raise ValueError(f"{text!r} is no rate such as 1000/minute.")
    return Limit(int(calls), SECONDS[period])


@dataclass(slots=True)
class _Window:
    start: int
    reserved: int = 0
    used_before: int = 0


_windows: dict[str, _Window] = {}
_lock = threading.Lock()


def spend(key: str, limit: Limit) -> Verdict:
    """Count one call of `key` (which must name the tenant)."""
    moment = time.time()
    start = int(moment // limit.seconds) * limit.seconds
    reset = max(1, int(start + limit.seconds - moment + 0.999))
    if settings.BROKER_URL:
        used = _count_in_redis(f"webio:rate:{key}:{start}", limit.seconds)
        return Verdict(used <= limit.calls, limit, max(0, limit.calls - used), reset)
    with _lock:
        window = _windows.get(key)
        if window is None or window.start != start:
            window = _windows[key] = _Window(start)
        if window.reserved == 0:
            chunk = max(1, limit.calls // CHUNK)
            total = _reserve(key, start, chunk)
            window.reserved = max(0, min(chunk, limit.calls - (total - chunk)))
            window.used_before = total - chunk
        if window.reserved == 0:
            return Verdict(False, limit, 0, reset)
        window.reserved -= 1
        window.used_before += 1
        return Verdict(True, limit, max(0, limit.calls - window.used_before), reset)


def _reserve(key: str, start: int, chunk: int) -> int:
    """Take `chunk` calls of a window; how many are taken of it now, over all processes."""
    with transaction.atomic():
        rows = RateWindow.objects.filter(key=key)
        counted = rows.filter(start=start).update(used=F("used") + chunk)
        # A new window of a known key, or a new key; a race between two processes ends in the same row.
        if not counted and not rows.exclude(start=start).update(start=start, used=chunk):
            try:
                with transaction.atomic():
                    RateWindow.objects.create(key=key, start=start, used=chunk)
            except IntegrityError:
                rows.filter(start=start).update(used=F("used") + chunk)
        return rows.values_list("used", flat=True).get()


_redis: Any = None


def _count_in_redis(key: str, seconds: int) -> int:
    global _redis
    if _redis is None:
        import redis

        _redis = redis.Redis.from_url(settings.BROKER_URL)
    with _redis.pipeline() as pipeline:
        pipeline.incr(key)
        pipeline.expire(key, seconds + 1)
        used: int = pipeline.execute()[0]
    return used
