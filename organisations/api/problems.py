"""Refusals on the wire: problem details (RFC 9457) with a stable `code` and, for bad input, `errors` by field."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from core.errors import Invalid, Refusal

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is not a success: status, code, detail, headers and more members."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


def body_of(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """The members of a problem. The type is about:blank: `code` tells problems apart."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        **extra,
    }


def from_exception(error: Exception) -> Problem | None:
    """The problem that an exception is, or None for one that nobody expected."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        return Problem(400, error.code, error.detail, errors=error.errors)
    if isinstance(error, Refusal):
        return Problem(error.status, error.code, error.detail, **error.extra)
    if isinstance(error, Http404 | exceptions.NotFound):
        return Problem(404, "not_found", _("There is no such object."))
    if isinstance(error, PermissionDenied):
        return Problem(403, "forbidden", _("You may not do this."))
    if isinstance(error, exceptions.MethodNotAllowed):
        return Problem(405, "method_not_allowed", str(error.detail))
    if isinstance(error, exceptions.NotAcceptable):
        return Problem(406, "not_acceptable", _("The API answers application/json."))
    if isinstance(error, exceptions.UnsupportedMediaType):
        return Problem(415, "unsupported_media_type", _("Send Content-Type: application/json."))
    if isinstance(error, exceptions.APIException):
        return Problem(error.status_code, str(error.default_code), str(error.detail))
    return None


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler."""
    problem = from_exception(error)
    if problem is None:
        return None
    set_rollback()
    response = Response(body_of(problem.status, problem.code, problem.detail, **problem.extra), status=problem.status)
    for name, value in problem.headers.items():
        response[name] = value
    if isinstance(error, exceptions.MethodNotAllowed):
        response["Allow"] = ", ".join(context["view"].allowed_methods)
    response.content_type = CONTENT_TYPE
    return response


def plain(status: int, code: str, detail: str) -> JsonResponse:
    """A problem outside of DRF: unknown paths, unexpected errors."""
    return JsonResponse(body_of(status, code, detail), status=status, content_type=CONTENT_TYPE)


@csrf_exempt
def not_found(request: HttpRequest, path: str = "") -> JsonResponse:
    """Every path below /api/ that is none."""
    return plain(404, "not_found", _("There is no such address."))
