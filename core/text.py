"""What text from outside must be like. One place for API, panel and admin; limits are the contract's."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from django.utils.translation import gettext as _

from core.errors import Invalid

ADDRESS = re.compile(r"\+?[0-9]{7,15}")
ADDRESS_SEPARATORS = re.compile(r"[\s().\-/]")
SURROGATE = re.compile("[\ud800-\udfff]")

BODY_MAX = 10_000
NAME_MAX = 255
FIELDS_MAX = 100
FIELD_NAME_MAX = 100
FIELD_VALUE_MAX = 1_000


def text_error(value: Any, *, minimum: int = 0, maximum: int) -> str | None:
    """The rule that `value` breaks as text of `minimum` to `maximum` characters, or None when it is fine."""
    if not isinstance(value, str):
        return _("Must be a string.")
    if "\x00" in value:
        return _("Must not contain NUL characters.")
    if SURROGATE.search(value):
        return _("Must not contain lone surrogates.")
    if len(value) > maximum:
        return _("Must be at most %(maximum)d characters; it has %(length)d.") % {
            "maximum": maximum,
            "length": len(value),
        }
    if minimum and (len(value) < minimum or not value.strip()):
        return _("Must be at least %(minimum)d characters and not only spaces.") % {"minimum": minimum}
    return None


def clean_text(field: str, value: Any, *, minimum: int = 0, maximum: int = NAME_MAX) -> str:
    """`value` unchanged. Raises `Invalid` naming `field` and the rule it breaks; text is never cut."""
    error = text_error(value, minimum=minimum, maximum=maximum)
    if error:
        raise Invalid.field(field, error)
    return value


def clean_address(field: str, value: Any) -> str:
    """A contact's address as stored: digits only, no `+`. Raises `Invalid`.

    Accepts `+?[0-9]{7,15}` after separators (spaces, dots, dashes, slashes, brackets) are removed.
    """
    clean_text(field, value, minimum=1, maximum=NAME_MAX)
    digits = ADDRESS_SEPARATORS.sub("", value)
    if not ADDRESS.fullmatch(digits):
        raise Invalid.field(field, _("Must be 7 to 15 digits, with an optional leading +."))
    return digits.removeprefix("+")


def clean_fields(field: str, value: Any) -> dict[str, str]:
    """A conversation's data fields: up to 100 names of 1 to 100 characters, values of up to 1,000. Raises `Invalid`.

    A name has no `<`, `>` or control characters (it may be asked for as `<<name>>`).
    """
    if not isinstance(value, dict):
        raise Invalid.field(field, _("Must be an object of string values."))
    if len(value) > FIELDS_MAX:
        raise Invalid.field(field, _("Must have at most %(maximum)d fields.") % {"maximum": FIELDS_MAX})
    for name, text in value.items():
        clean_field_name(field, name)
        error = text_error(text, maximum=FIELD_VALUE_MAX)
        if error:
            raise Invalid.field(f"{field}.{name}", error)
    return value


def clean_field_name(field: str, name: Any) -> str:
    """One field name of `<<name>>`: 1 to 100 characters without `<`, `>` and control characters. Raises `Invalid`."""
    clean_text(field, name, minimum=1, maximum=FIELD_NAME_MAX)
    if any(character in "<>" or unicodedata.category(character) == "Cc" for character in name):
        raise Invalid.field(field, _("A field name must not contain <, > or control characters."))
    return name
