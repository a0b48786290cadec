"""Strict JSON bodies."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from core import strictjson
from core.errors import Invalid
from organisations.api.problems import Problem

#: Bytes of the largest body.
MAX_BYTES = 1_000_000


class StrictJSONParser(BaseParser):
    """`core.strictjson` as a DRF parser. Raises 413 for a body over 1 MB, `Invalid` for what is not strict JSON."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        return parse(read_body(stream))


def read_body(request: HttpRequest) -> bytes:
    """The whole body, of which no more than the limit is ever read. Raises 413, and 400 for one that broke off."""
    announced = request.META.get("CONTENT_LENGTH", "")
    # Django reads as much as Content-Length says, which is nothing for a chunked body.
    chunked = not announced and request.META.get("wsgi.input_terminated")
    stream = request.META["wsgi.input"] if chunked else request
    try:
        data: bytes = stream.read(MAX_BYTES + 1)
    except Exception:
        # A web server raises errors of its own about chunks that are none.
        raise _broken_off() from None
    if len(data) > MAX_BYTES:
        raise Problem(413, "body_too_large", _("The body must be at most %(limit)d bytes.") % {"limit": MAX_BYTES})
    if announced.isdecimal() and len(data) < int(announced):
        raise _broken_off()
    return data


def _broken_off() -> Problem:
    return Problem(400, "body_incomplete", _("The body ended before it was complete."))


def parse(data: bytes) -> Any:
    """The JSON value of a body; an empty one is an empty object. Raises `Invalid`."""
    if not data.strip():
        return {}
    try:
        return strictjson.loads(data, max_bytes=MAX_BYTES)
    except strictjson.JsonError as error:
        raise Invalid({error.path or "body": [str(error)]}, code=f"json_{error.rule}") from None
