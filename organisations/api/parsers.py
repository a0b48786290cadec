"""Strict JSON bodies."""

from __future__ import annotations

from typing import IO, Any

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

    def parse(self, stream: IO[bytes], media_type: Any = None, parser_context: Any = None) -> Any:
        return parse(read_body(stream))


def read_body(stream: IO[bytes]) -> bytes:
    """The whole body, of which no more than the limit is ever read. Raises 413."""
    data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Problem(413, "body_too_large", _("The body must be at most %(limit)d bytes.") % {"limit": MAX_BYTES})
    return data


def parse(data: bytes) -> Any:
    """The JSON value of a body; an empty one is an empty object. Raises `Invalid`."""
    if not data.strip():
        return {}
    try:
        return strictjson.loads(data, max_bytes=MAX_BYTES)
    except strictjson.JsonError as error:
        raise Invalid({error.path or "body": [str(error)]}, code=f"json_{error.rule}") from None
