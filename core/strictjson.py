"""JSON from outside, read exactly: what another parser might read differently is refused, not guessed.

RFC 8259 leaves duplicate names, lone surrogates, huge numbers and depth to the parser; RFC 7493 (I-JSON) does not.
"""

from __future__ import annotations

import json
import re
from typing import Any

from django.utils.translation import gettext as _

MAX_DEPTH = 32
#: Digits of the longest integer; a double holds 15 exactly, an id 19.
MAX_DIGITS = 19
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """`rule` is a code, `path` names the place ("" for the whole), the message is a sentence."""

    def __init__(self, rule: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.path = path


def loads(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text. Raises `JsonError`.

    Rules: "encoding" (not UTF-8, or a byte order mark), "depth", "syntax", "duplicate_key", "number", "nul",
    "surrogate".
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError("encoding", _("Is not valid UTF-8 at byte %(at)d.") % {"at": error.start}) from None
    if text.startswith("\ufeff"):
        raise JsonError("encoding", _("Must not begin with a byte order mark."))
    _check_depth(data, max_depth)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer)
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError("syntax", _("Is not valid JSON: %(error)s.") % {"error": error}) from None
    _check_strings(value, "")
    return value


def _check_depth(data: bytes, max_depth: int) -> None:
    """Before parsing, so that a million brackets cost no stack."""
    depth = 0
    for match in _STRUCTURE.finditer(data):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > max_depth:
                raise JsonError("depth", _("Must not be nested deeper than %(levels)d levels.") % {"levels": max_depth})
        elif token in (b"]", b"}"):
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise JsonError("duplicate_key", _("The name appears twice in one object."), key)
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise JsonError("number", _("%(name)s is not JSON.") % {"name": name})


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonError("number", _("Integers must have at most %(digits)d digits.") % {"digits": MAX_DIGITS})
    return int(digits)


def _check_strings(value: Any, path: str) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise JsonError("nul", _("Must not contain NUL characters."), path)
        if _SURROGATE.search(value):
            raise JsonError("surrogate", _("Must not contain lone surrogates."), path)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_strings(key, path)
            _check_strings(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_strings(item, f"{path}[{index}]")
