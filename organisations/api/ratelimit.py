"""Rate limits per organisation or address, shared by all web processes, in fixed windows.

With Redis a window is one counter. Without, it is a row of the database from which a process reserves calls in small
chunks (2 % of the limit, at least one), so that a busy process does not write for every call. Small limits are exact;
large ones may refuse up to a chunk early for every other process.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connections, router

from organisations.models import RateWindow

SECONDS = {"second": 1, "minute": 60, "hour": 3600}
CHUNK = 50
#: So many windows are remembered before those that are over are forgotten.
REMEMBERED = 1000


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
    """This process's part of a window: calls it has reserved and not used, and how many are taken over all."""

    start: int
    limit: Limit
    reserved: int = 0
    taken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_windows: dict[str, _Window] = {}
_lock = threading.Lock()


def spend(key: str, limit: Limit) -> Verdict:
    """Count one call of `key` (which must name the tenant or the address)."""
    moment = time.time()
    start = int(moment // limit.seconds) * limit.seconds
    reset = max(1, int(start + limit.seconds - moment + 0.999))
    if settings.BROKER_URL:
        used = _count_in_redis(f"webio:rate:{key}:{start}", limit.seconds)
        return Verdict(used <= limit.calls, limit, max(0, limit.calls - used), reset)
    crowded = False
    with _lock:
        window = _windows.get(key)
        if window is None or window.start != start or window.limit != limit:
            if window is None and len(_windows) >= REMEMBERED:
                crowded = True
                for name in [name for name, old in _windows.items() if old.start + old.limit.seconds <= moment]:
                    del _windows[name]
            window = _windows[key] = _Window(start, limit)
    if crowded:
        # Addresses come and go; organisations keep their one row.
        longest = max(SECONDS.values())
        RateWindow.objects.filter(key__startswith="address:", start__lt=start - longest).delete()
    # One lock for each tenant: a slow database holds up nobody else.
    with window.lock:
        if window.reserved == 0 and window.taken < limit.calls:
            # Smaller and smaller towards the end, so that little is left unused in other processes.
            left = limit.calls - window.taken
            chunk = max(1, min(limit.calls // CHUNK, left // 8))
            window.taken = _reserve(key, start, chunk)
            window.reserved = max(0, chunk - max(0, window.taken - limit.calls))
        if window.reserved == 0:
            return Verdict(False, limit, 0, reset)
        window.reserved -= 1
        return Verdict(True, limit, max(0, limit.calls - window.taken) + window.reserved, reset)


def _reserve(key: str, start: int, chunk: int) -> int:
    """Take `chunk` calls of a window; how many are taken of it now, over all processes.

    One statement, so that two processes cannot come between each other. An older window's count is forgotten; a
    process whose clock is behind counts in the newer one.
    """
    connection = connections[router.db_for_write(RateWindow)]
    table = connection.ops.quote_name(RateWindow._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO {table} AS present ("key", "start", "used") VALUES (%s, %s, %s)
            ON CONFLICT ("key") DO UPDATE SET
                "used" = CASE WHEN present."start" < excluded."start" THEN 0 ELSE present."used" END + excluded."used",
                "start" = CASE WHEN present."start" < excluded."start" THEN excluded."start" ELSE present."start" END
            RETURNING "used"
            """,
            [key, start, chunk],
        )
        taken: int = cursor.fetchone()[0]
    return taken


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
