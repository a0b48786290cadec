"""The base of all API views: who calls, whether they may, what they sent, and doing a POST once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar, cast

from django.conf import settings
from django.core.signals import got_request_exception
from django.db import OperationalError, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.log import log_response
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core.actors import Actor
from core.errors import Invalid, NotFound
from core.trace import tracing
from organisations.api import idempotency, ratelimit
from organisations.api.authentication import KeyAuthentication
from organisations.api.fields import ID
from organisations.api.parsers import StrictJSONParser, parse, read_body
from organisations.api.problems import CONTENT_TYPE, Problem, handle, plain
from organisations.models import ApiKey, IdempotencyKey, Organisation

M = TypeVar("M", bound=Model)

#: When a call is sent again that the database could not serve.
RETRY_SECONDS = 5


class JSONOnly(BaseContentNegotiation):
    """The API answers JSON whatever is asked for; views that offer more say so by a parameter."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ApiView(APIView):
    """A view of the API. Each names the scope of every method it has; `checks` refuses one that does not.

    Order of checks: key 401, rate 429, scope 403, object in the path 404, then the body 400.
    """

    authentication_classes = [KeyAuthentication]
    permission_classes = []
    throttle_classes = []
    parser_classes = [StrictJSONParser]
    renderer_classes = [JSONRenderer]
    content_negotiation_class = JSONOnly
    #: HTTP method → scope.
    scopes: ClassVar[Mapping[str, str]] = {}
    #: Query parameters the view knows besides `limit` and `cursor`; others are refused.
    parameters: ClassVar[tuple[str, ...]] = ()
    paged: ClassVar[bool] = False
    #: Its POST waits for another machine, so that it must not run inside a transaction.
    talks_to_others: ClassVar[bool] = False
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]

    organisation: Organisation
    key: ApiKey
    actor: Actor
    _kept: IdempotencyKey | None = None
    _rate: ratelimit.Verdict | None = None
    _raw: bytes = b""

    def get_exception_handler(self) -> Any:
        return handle

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = cast("ApiKey", request.auth)
        self.key = key
        self.organisation = key.organisation
        request.organisation = request._request.organisation = key.organisation  # type: ignore[attr-defined]
        self.actor = Actor("api", str(key.pk), key.name)
        self._check_rate()
        # A HEAD is answered by the view's GET.
        method = "GET" if request.method == "HEAD" else request.method or ""
        scope = self.scopes.get(method)
        if scope is None:
            # DRF answers 405 for a method without handler.
            return
        # "" asks for no scope: whatever key it is.
        if scope and scope not in key.scopes:
            detail = _("The API key lacks the scope %(scope)s.") % {"scope": scope}
            raise Problem(403, "missing_scope", detail, scope=scope)
        self.find(**kwargs)
        self._check_parameters(request, method)
        if method in ("POST", "PATCH", "PUT"):
            self._read(request)

    def find(self, **kwargs: Any) -> None:
        """Look up the object in the path, before the body is looked at. Raises `NotFound`."""

    def _check_rate(self) -> None:
        text = self.organisation.api_rate_limit or settings.API_RATE_LIMIT
        limit = None if settings.API_RATE_LIMIT == "0" else ratelimit.parse(text)
        if limit is None:
            return
        self._rate = ratelimit.spend(f"organisation:{self.organisation.pk}", limit)
        if not self._rate.allowed:
            detail = _("More than %(limit)s calls: wait %(seconds)d s.") % {"limit": text, "seconds": self._rate.reset}
            raise Problem(429, "rate_limited", detail)

    def _check_parameters(self, request: Request, method: str) -> None:
        known = {*self.parameters, *(("limit", "cursor") if self.paged and method == "GET" else ())}
        for name in request.query_params:
            if name not in known:
                raise Invalid.field(name, _("There is no such parameter."))
            values = request.query_params.getlist(name)
            if len(values) > 1:
                raise Invalid.field(name, _("Is given more than once."))
            if "\0" in values[0]:
                raise Invalid.field(name, _("Must not contain NUL characters."))

    def _read(self, request: Request) -> None:
        sent = request.content_type.partition(";")[0].strip().lower() if request.content_type else ""
        self._raw = read_body(request._request)
        if self._raw and sent != "application/json":
            raise Problem(415, "unsupported_media_type", _("Send Content-Type: application/json."))
        request._full_data = parse(self._raw)  # type: ignore[attr-defined]

    def handler(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Run the view's method; a POST with an Idempotency-Key is run once."""
        # Only a method with a handler of ours: a client may make up any name.
        name = (request.method or "").lower()
        method = getattr(self, name) if name in self.http_method_names and hasattr(self, name) else None
        if method is None:
            raise MethodNotAllowed(request.method or "")
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or key is None:
            answer: Response = method(request, *args, **kwargs)
            return answer
        found = idempotency.begin(self.organisation, "POST", request.path, key, self._raw)
        if isinstance(found, idempotency.Kept):
            return Response(found.body, status=found.status, headers={"Idempotency-Replayed": "true"})
        try:
            # What is done and the answer that is kept commit together: a crash leaves both or neither.
            with nullcontext() if self.talks_to_others else transaction.atomic():
                answer = method(request, *args, **kwargs)
                idempotency.keep(found, answer.status_code, answer.data)
        except BaseException:
            idempotency.release(found)
            raise
        return answer

    def handle_exception(self, exc: Exception) -> Any:
        """A problem for every refusal; for what nobody expected 500, or 503 of the database, which tells nothing."""
        try:
            return super().handle_exception(exc)
        except Exception as unexpected:
            # Django's own handler would answer HTML.
            got_request_exception.send(sender=type(self), request=self.request._request)
            answer = plain(500, "internal_error", _("Something went wrong on our side."))
            if isinstance(unexpected, OperationalError):
                # A lock that lasts, a lost connection: nothing is wrong with the call.
                answer = plain(503, "unavailable", _("The database does not answer at the moment: send it again."))
                answer["Retry-After"] = str(RETRY_SECONDS)
            log_response(
                "Internal Server Error: %s",
                self.request.path,
                response=answer,
                request=self.request._request,
                exception=exc,
            )
            return answer

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        self.args = args
        self.kwargs = kwargs
        wrapped = self.initialize_request(request, *args, **kwargs)
        self.request = wrapped
        self.headers = self.default_response_headers
        try:
            self.initial(wrapped, *args, **kwargs)
            with tracing(request.headers.get("traceparent")):
                response = self.handler(wrapped, *args, **kwargs)
        except Exception as error:
            response = self.handle_exception(error)
        self.response = self.finalize_response(wrapped, response, *args, **kwargs)
        return self.response

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer.headers.pop("Vary", None)
        answer["Cache-Control"] = "no-store"
        if getattr(answer, "content_type", "") == CONTENT_TYPE:
            answer["Content-Type"] = CONTENT_TYPE
        if self._rate is not None:
            for name, value in self._rate.headers().items():
                answer[name] = value
        return answer

    def read(self, body: type[serializers.Serializer[Any]], *, partial: bool = False) -> dict[str, Any]:
        """The request's body as `body` declares it. Raises `Invalid` with the errors of all fields."""
        data = self.request.data
        if not isinstance(data, dict):
            raise Invalid.field("body", _("Must be a JSON object."))
        found = body(data=data, partial=partial)
        if not found.is_valid():
            raise Invalid(flatten(found.errors))
        values: dict[str, Any] = found.validated_data
        return values

    def id_parameter(self, name: str) -> int | None:
        """A query parameter that is an id. Raises `Invalid`."""
        text = self.request.query_params.get(name)
        if text is None:
            return None
        if not ID.fullmatch(text):
            raise Invalid.field(name, _("Must be a string of digits."))
        return int(text)


def flatten(errors: Any, prefix: str = "") -> dict[str, list[str]]:
    """DRF's nested errors as field path → sentences."""
    found: dict[str, list[str]] = {}
    for name, value in errors.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            found.update(flatten(value, f"{path}."))
        else:
            found[path] = [str(sentence) for sentence in value]
    return found


def find_or_404(rows: QuerySet[M], pk: str, what: str) -> M:
    """The row with the id in the path. Raises `NotFound`, also for what is no id."""
    row = rows.filter(pk=int(pk)).first() if ID.fullmatch(pk) else None
    if row is None:
        raise NotFound(what)
    return row


def empty() -> Response:
    """204."""
    return Response(status=204)
