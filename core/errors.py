"""What a verb says when it refuses. Verbs raise these; API, panel and admin each put them in their own words.

A refusal changes nothing: verbs are atomic and raise before or instead of writing.
"""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """Base of all refusals. `code` is stable and goes on the wire, `detail` is for people."""

    status = 400

    def __init__(self, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.extra = extra


class Invalid(Refusal):
    """The input breaks a rule. `errors` maps the wire name of a field to sentences that name the rule."""

    def __init__(self, errors: dict[str, list[str]], code: str = "invalid", detail: str = "") -> None:
        first = next(iter(errors.items()), ("", [""]))
        super().__init__(code, detail or f"{first[0]}: {first[1][0]}")
        self.errors = errors

    @classmethod
    def field(cls, name: str, message: str, code: str = "invalid") -> Invalid:
        """Shorthand for a refusal about one field."""
        return cls({name: [str(message)]}, code=code)


class Forbidden(Refusal):
    """The actor may see the object but not do this to it."""

    status = 403


class NotFound(Refusal):
    """Absent, or somebody else's: the two look the same."""

    status = 404

    def __init__(self, what: str = "object", code: str = "not_found") -> None:
        super().__init__(code, f"There is no such {what}.")


class Conflict(Refusal):
    """The input is fine, but the object's present state does not allow it. `extra` goes on the wire."""

    status = 409
