"""Fields of request bodies: strict types, contract limits, nothing coerced and nothing cut."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from core.text import NAME_MAX, text_error

ID = re.compile(r"[1-9][0-9]{0,17}")


class Body(serializers.Serializer[Any]):
    """A request body: a JSON object with the declared keys and no others."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError({"body": [_("Must be a JSON object.")]})
        unknown = [key for key in data if key not in self.fields]
        if unknown:
            raise serializers.ValidationError({key: [_("There is no such field.")] for key in unknown})
        return super().to_internal_value(data)


class Nothing(Body):
    """The body of a call that takes none: empty, or an empty object."""


class Text(serializers.Field[str, Any, str, Any]):
    """A string of `minimum` to `maximum` characters, without NUL and lone surrogates."""

    def __init__(self, *, minimum: int = 0, maximum: int = NAME_MAX, **kwargs: Any) -> None:
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> str:
        error = text_error(data, minimum=self.minimum, maximum=self.maximum)
        if error:
            raise serializers.ValidationError(error)
        return str(data)

    def to_representation(self, value: Any) -> str:
        return str(value)


class TextSchema(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
    """How OpenAPI tells a `Text`: a string with its limits."""

    target_class = Text

    def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        limits = {"maxLength": self.target.maximum}
        if self.target.minimum:
            limits["minLength"] = self.target.minimum
        return {"type": "string", **limits}


@extend_schema_field({"type": "string", "pattern": f"^{ID.pattern}$", "example": "97847"})
class Id(serializers.Field[int, Any, str, Any]):
    """An id: a string of digits on the wire, a number inside."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, str):
            raise serializers.ValidationError(_("Must be a string of digits."))
        if not ID.fullmatch(data):
            raise serializers.ValidationError(_("Must be a string of digits."))
        return int(data)

    def to_representation(self, value: Any) -> str:
        return str(value)


@extend_schema_field({"type": "boolean"})
class Flag(serializers.Field[bool, Any, bool, Any]):
    """true or false, and nothing that looks like it."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise serializers.ValidationError(_("Must be true or false."))
        return data

    def to_representation(self, value: Any) -> bool:
        return bool(value)


@extend_schema_field({"type": "integer"})
class Whole(serializers.Field[int, Any, int, Any]):
    """A whole number from `minimum` to `maximum`."""

    def __init__(self, *, minimum: int, maximum: int, **kwargs: Any) -> None:
        self.minimum = minimum
        self.maximum = maximum
        super().__init__(**kwargs)

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            raise serializers.ValidationError(_("Must be a whole number."))
        if not self.minimum <= data <= self.maximum:
            raise serializers.ValidationError(
                _("Must be from %(minimum)d to %(maximum)d.") % {"minimum": self.minimum, "maximum": self.maximum}
            )
        return data

    def to_representation(self, value: Any) -> int:
        return int(value)


@extend_schema_field({"type": "string", "pattern": r"^[0-9]{1,12}(\.[0-9]{1,2})?$", "example": "120.50"})
class Amount(serializers.Field[Decimal, Any, str, Any]):
    """An amount of money: a string such as "120.50"."""

    PATTERN = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")

    def to_internal_value(self, data: Any) -> Decimal:
        if not isinstance(data, str) or not self.PATTERN.fullmatch(data):
            raise serializers.ValidationError(_('Must be a string such as "120.50", with at most two decimals.'))
        return Decimal(data)

    def to_representation(self, value: Any) -> str:
        return f"{value:.2f}"


@extend_schema_field({"type": "string", "format": "date-time", "example": "2026-01-31T09:00:00Z"})
class Moment(serializers.Field[datetime, Any, str, Any]):
    """An ISO 8601 time with a zone."""

    def to_internal_value(self, data: Any) -> datetime:
        try:
            found = parse_datetime(data) if isinstance(data, str) else None
            if found is not None and found.tzinfo is not None:
                # In the years 1 and 9999 a zone can lead out of the calendar.
                return found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        raise serializers.ValidationError(_("Must be an ISO 8601 time with a zone, such as 2026-01-31T09:00:00Z."))

    def to_representation(self, value: Any) -> str:
        return str(value.isoformat())


@extend_schema_field({"type": "object", "additionalProperties": {"type": "string", "maxLength": 1000}})
class Strings(serializers.Field[dict[str, str], Any, dict[str, str], Any]):
    """An object whose values are strings; the verb checks names and limits."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
            raise serializers.ValidationError(_("Must be an object of string values."))
        return data

    def to_representation(self, value: Any) -> dict[str, str]:
        return dict(value)


class Json(serializers.Field[Any, Any, Any, Any]):
    """Any JSON value; the verb checks it. A subclass says in OpenAPI what it may be."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_null=True, **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        return data

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({"type": "array", "items": {"type": "string"}})
class Names(serializers.Field[list[str], Any, list[str], Any]):
    """A list of strings; the verb checks what they may be."""

    def to_internal_value(self, data: Any) -> list[str]:
        if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
            raise serializers.ValidationError(_("Must be a list of strings."))
        return data

    def to_representation(self, value: Any) -> list[str]:
        return list(value)
