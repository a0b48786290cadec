"""What OpenAPI says of every call: its scope, its answers, examples. One decorator for all views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers

F = TypeVar("F", bound=Callable[..., Any])


class ProblemShape(serializers.Serializer[Any]):
    """Problem details (RFC 9457)."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable; tells problems apart.")
    detail = serializers.CharField()
    errors = serializers.DictField(  # type: ignore[assignment]
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="For bad input: the name of each wrong field and the rules it breaks.",
    )


MEANINGS = {
    400: "The input breaks a rule; `errors` names field and rule.",
    401: "No API key, or one that is unknown, expired or revoked.",
    403: "The key lacks the scope, or the organisation is suspended.",
    404: "There is no such object in your organisation.",
    409: "The object's present state does not allow it, or the first call with this Idempotency-Key is still running.",
    413: "The body is over 1 MB.",
    415: "The body is not application/json.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too many calls; `Retry-After` says how many seconds to wait.",
}

PROBLEM_TYPE = "application/problem+json"


def _problem(status: int) -> OpenApiResponse:
    return OpenApiResponse(ProblemShape, description=MEANINGS[status])


def _answer(status: int, description: str, shape: Any, example: Any) -> OpenApiResponse:
    examples = [OpenApiExample("Example", value=example, status_codes=[status])] if example is not None else []
    return OpenApiResponse(shape, description=description, examples=examples)


def listed(shape: type[serializers.Serializer[Any]]) -> Any:
    """The serializer of a page of `shape`."""
    return inline_serializer(
        f"{shape.__name__.removesuffix('Shape')}List",
        {
            "next": serializers.CharField(allow_null=True, help_text="Path of the next page."),
            "previous": serializers.CharField(allow_null=True, help_text="Path of the page before."),
            "results": shape(many=True),
        },
    )


def documented(
    summary: str,
    *,
    scope: str,
    answer: Any = None,
    status: int = 200,
    body: Any = None,
    tag: str,
    problems: Sequence[int] = (),
    parameters: Mapping[str, str] | None = None,
    paged: bool = False,
    post: bool = False,
    example: Any = None,
    request_example: Any = None,
    description: str = "",
    operation_id: str | None = None,
    media: Sequence[str] = (),
    others: Mapping[int, tuple[str, Any, Any]] | None = None,
) -> Callable[[F], F]:
    """Describe one method of a view.

    `media` names further types of the answer, `problems` the answers besides those that its kind of call always has,
    `others` the description, shape and example of answers of another status that are no problems.
    """
    codes = {401, 403, 429, *problems}
    if parameters or paged or body is not None or post:
        codes.add(400)
    if body is not None or post:
        codes |= {413, 415}
    if post:
        codes |= {409, 422}
    answers: dict[Any, Any] = {}
    if answer is not None or not media:
        answers[status] = _answer(status, summary, answer, example)
    for code, (told_as, shape, sample) in (others or {}).items():
        answers[code] = _answer(code, told_as, shape, sample)
    for name in media:
        answers[(status, name)] = OpenApiResponse(
            OpenApiTypes.BINARY if name == "application/pdf" else OpenApiTypes.STR, description=summary
        )
    for code in sorted(codes):
        answers[(code, PROBLEM_TYPE)] = _problem(code)
    told = [
        OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.QUERY, description=text)
        for name, text in (parameters or {}).items()
    ]
    if paged:
        told += [
            OpenApiParameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}, OpenApiParameter.QUERY
            ),
            OpenApiParameter(
                "cursor", OpenApiTypes.STR, OpenApiParameter.QUERY, description="From `next` or `previous` of a page."
            ),
        ]
    if post:
        told.append(
            OpenApiParameter(
                "Idempotency-Key",
                {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
                OpenApiParameter.HEADER,
                description="Send the same key with the same body again, and it is done once and answered the same.",
            )
        )
    return extend_schema(
        summary=summary,
        description=(description + "\n\n" if description else "") + f"Needs the scope `{scope}`.",
        tags=[tag],
        operation_id=operation_id,
        request=body if body is not None else None,
        responses=answers,
        parameters=told,
        examples=[OpenApiExample("Request", value=request_example, request_only=True)]
        if request_example is not None
        else None,
    )
