"""/metrics for Prometheus: what the database knows, told by collectors, and what web processes count themselves.

What matters to operators (work that is due, its age, outcomes) is read from the database at scrape time, so it is
the same whichever process is asked. Request counters live in the web process; several of them write into a folder
(`PROMETHEUS_MULTIPROC_DIR`) and are added up (`core.worker_metrics`).
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    Metric,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from core import loops, worker_metrics

#: What proxies say about themselves or about whom they speak for.
PROXY_HEADERS = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")

Collect = Callable[[], Iterable[Metric]]

_collectors: list[Collect] = []

REQUESTS = Counter("webio_http_requests", "Requests answered", ["route", "method", "status"])
SECONDS = Histogram("webio_http_request_seconds", "Time to answer", ["route"])
#: Any other word a client sends counts as "other": labels are kept for ever.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


def register(collect: Collect) -> None:
    """Add a function that reads metric families from the database at scrape time."""
    if collect not in _collectors:
        _collectors.append(collect)


def _loops() -> Iterable[Metric]:
    silent = GaugeMetricFamily("webio_loop_silent_seconds", "How long nobody has run the loop", labels=["loop"])
    for name in loops.LOOPS:
        silent.add_metric([name], loops.silent_seconds(name))
    yield silent


register(_loops)


class _Database(Collector):
    def collect(self) -> Iterable[Metric]:
        for collect in _collectors:
            yield from collect()


class MetricsMiddleware:
    """Counts answers by route, never by path: paths carry ids."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        route = match.route if match is not None else "(none)"
        method = request.method if request.method in METHODS else "other"
        REQUESTS.labels(route, method, str(response.status_code)).inc()
        SECONDS.labels(route).observe(time.perf_counter() - began)
        return response


def may_read(request: HttpRequest) -> bool:
    """With METRICS_TOKEN set, whoever shows it; without, only this machine, and not through a proxy."""
    if settings.METRICS_TOKEN:
        shown = request.headers.get("Authorization", "")
        return hmac.compare_digest(shown.encode(), f"Bearer {settings.METRICS_TOKEN}".encode())
    proxied = any(name in request.headers for name in PROXY_HEADERS)
    return request.META.get("REMOTE_ADDR") in ("127.0.0.1", "::1") and not proxied


@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text format; 403 for those who may not read it."""
    if not may_read(request):
        return HttpResponse("Forbidden\n", status=403, content_type="text/plain")
    database = CollectorRegistry()
    database.register(_Database())
    folder = os.environ.get(worker_metrics.VARIABLE)
    requests = worker_metrics.told(Path(folder)) if folder else generate_latest(REGISTRY)
    return HttpResponse(generate_latest(database) + requests, content_type=CONTENT_TYPE_LATEST)
