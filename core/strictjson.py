"""JSON from outside, read exactly: what another parser might read differently is refused, not guessed.

The standard parser lets the last of two equal keys win, reads NaN, and passes NUL and lone surrogates on to
databases and carriers that choke on them. RFC 8259 leaves that to the parser; RFC 7493 (I-JSON) does not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

#: How deep arrays and objects may be nested.
MAX_DEPTH = 32
#: Whole numbers must fit the databases' 64 bits.
INTEGER_MAX = 2**63 - 1
INTEGER_MIN = -(2**63)

_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
#: A whole string, or one bracket. Possessive, with an optional closing quote: linear in whatever is sent.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|([\[{])|([\]}])', re.DOTALL)
_DOUBTFUL_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonError(ValueError):
    """The text is refused; the message is a sentence for people.

    `rule` is a stable code: "too_large", "encoding", "depth", "syntax", "duplicate_key", "number", "nul" or
    "surrogate". `path` says where, as in `contact.names[2]`; "" is the whole text or a place unknown.
    """

    def __init__(self, rule: str, message: str, path: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.path = path


class _Doubt(Exception):
    """The quick reading met something to be refused; the careful one says where it is."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands in the parsed tree for a value that breaks a rule."""

    rule: str
    message: str


def loads(data: bytes, *, max_bytes: int | None = None, max_depth: int = MAX_DEPTH) -> Any:
    """The value that `data` is: dict, list, str, int, float, bool or None. Raises `JsonError`.

    `max_bytes` is the most bytes accepted, None when the caller has seen to it. Time and memory are linear in the
    size of `data`.
    """
    if max_bytes is not None and len(data) > max_bytes:
        raise JsonError(
            "too_large",
            _("Must be at most %(maximum)d bytes; it has %(length)d.") % {"maximum": max_bytes, "length": len(data)},
        )
    if data.startswith(_BOMS):
        raise JsonError("encoding", _("Must be UTF-8 without a byte order mark."))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise JsonError("encoding", _("Is not valid UTF-8 at byte %(at)d.") % {"at": error.start}) from None
    if data.count(b"{") + data.count(b"[") > max_depth:
        _check_depth(text, max_depth)
    try:
        value = _QUICK.decode(text)
        if not _DOUBTFUL_ESCAPE.search(text):
            return value
    except _Doubt:
        pass
    except json.JSONDecodeError as error:
        raise _syntax_error(error) from None
    try:
        value = _CAREFUL.decode(text)
    except json.JSONDecodeError as error:
        raise _syntax_error(error) from None
    for path, refused in _faults(value, ""):
        raise JsonError(refused.rule, refused.message, path)
    return value


def _syntax_error(error: json.JSONDecodeError) -> JsonError:
    place = {"line": error.lineno, "column": error.colno}
    if error.msg == "Extra data":
        return JsonError("syntax", _("Ends before line %(line)d, column %(column)d, where more follows.") % place)
    return JsonError("syntax", _("Is not valid JSON at line %(line)d, column %(column)d.") % place)


def _check_depth(text: str, maximum: int) -> None:
    """Count before parsing: the parser would recurse."""
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[1]:
            depth += 1
            if depth > maximum:
                raise JsonError("depth", _("Must not be nested deeper than %(levels)d levels.") % {"levels": maximum})
        elif match[2]:
            depth -= 1


def _integer(digits: str) -> int | None:
    """The number, or None when it does not fit 64 bits."""
    # The length first: turning a million digits into a number takes quadratic time.
    number = int(digits) if len(digits) <= 20 else INTEGER_MAX + 1
    return number if INTEGER_MIN <= number <= INTEGER_MAX else None


def _float(digits: str) -> float | None:
    """The number, or None when it is too large to be one."""
    number = float(digits)
    return None if math.isinf(number) else number


def _known(number: Any) -> Any:
    if number is None:
        raise _Doubt
    return number


def _quick_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Doubt
    return found


def _careful_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = _Refused("duplicate_key", _("The name appears twice in one object.")) if key in found else value
    return found


def _careful_integer(digits: str) -> Any:
    number = _integer(digits)
    return _Refused("number", _("Must be a whole number of at most 64 bits.")) if number is None else number


def _careful_float(digits: str) -> Any:
    number = _float(digits)
    return _careful_constant(digits) if number is None else number


def _careful_constant(_name: str) -> _Refused:
    return _Refused("number", _("Must be a finite number."))


_QUICK = json.JSONDecoder(
    object_pairs_hook=_quick_object,
    parse_int=lambda digits: _known(_integer(digits)),
    parse_float=lambda digits: _known(_float(digits)),
    parse_constant=lambda _name: _known(None),
)
_CAREFUL = json.JSONDecoder(
    object_pairs_hook=_careful_object,
    parse_int=_careful_integer,
    parse_float=_careful_float,
    parse_constant=_careful_constant,
)


def _text_fault(text: str) -> _Refused | None:
    if "\x00" in text:
        return _Refused("nul", _("Must not contain NUL characters."))
    if _SURROGATE.search(text):
        return _Refused("surrogate", _("Must not contain lone surrogates."))
    return None


def _faults(value: Any, path: str) -> Iterator[tuple[str, _Refused]]:
    """(path, rule and message) of what is refused in a parsed tree, in the order of the text."""
    if isinstance(value, _Refused):
        yield path, value
    elif isinstance(value, str):
        refused = _text_fault(value)
        if refused:
            yield path, refused
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            # A faulty key cannot be shown as it is: the object that holds it is named.
            refused = _text_fault(key)
            if refused:
                yield path, refused
            yield from _faults(item, f"{path}.{key}" if path else key)
