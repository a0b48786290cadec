"""Logs for machines and people: one line per request, with the ids that tie lines together and no secrets."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from core.clients import serving
from core.redaction import redact

#: Ids every line of the current request or task carries: request, organisation, event, delivery.
_context: ContextVar[dict[str, str] | None] = ContextVar("webio_log_context", default=None)

requests_log = logging.getLogger("webio.requests")
QUIET_PATHS = ("/healthz", "/readyz", "/metrics", "/static/")


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Lines logged inside the block carry `ids`, such as `delivery=17`."""
    token = _context.set({**(_context.get() or {}), **{name: str(value) for name, value in ids.items()}})
    try:
        yield
    finally:
        _context.reset(token)


def add_to_context(**ids: object) -> None:
    """Lines from here to the end of the surrounding `log_context` carry `ids` too."""
    current = _context.get()
    if current is not None:
        current.update({name: str(value) for name, value in ids.items()})


class ContextFilter(logging.Filter):
    """Puts the context's ids on each record and takes secrets out of its text."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.ids = dict(_context.get() or {})
        text = record.getMessage()
        cleaned = redact(text)
        if cleaned != text:
            record.msg, record.args = cleaned, None
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, ids, and the traceback when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "ids", {}),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        facts = {**getattr(record, "ids", {}), **getattr(record, "facts", {})}
        told = " ".join(f"{name}={value}" for name, value in facts.items())
        line = f"{moment} {record.levelname:<7} {record.name}: {record.getMessage()}{'  ' + told if told else ''}"
        if record.exc_info:
            line += "\n" + redact(self.formatException(record.exc_info))
        return line


class RequestLogMiddleware:
    """One line per request, and a request id for every line logged on the way and for the answer's header."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        began = time.perf_counter()
        with serving(request) as client, log_context(request=secrets.token_hex(8)):
            response = self.get_response(request)
            ids = _context.get() or {}
            response["X-Request-Id"] = ids["request"]
            organisation = getattr(request, "organisation", None)
            if organisation is not None:
                add_to_context(organisation=organisation.pk)
            if not request.path.startswith(QUIET_PATHS):
                facts = {
                    "client": client,
                    "method": request.method,
                    "path": redact(request.path),
                    "status": response.status_code,
                    "ms": round((time.perf_counter() - began) * 1000, 1),
                }
                requests_log.info("request", extra={"facts": facts})
        return response
