"""The API's documentation as a page, made from the same schema that machines read. No script, no foreign asset."""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import get_conditional_response, patch_cache_control
from django.views import View
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer

METHODS = ("get", "post", "patch", "put", "delete")


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The OpenAPI document; it depends on code alone."""
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return found


@lru_cache(maxsize=1)
def schema_json() -> tuple[bytes, str]:
    """The OpenAPI document as JSON, and its entity tag (RFC 9110, section 8.8.3)."""
    text: bytes = OpenApiJsonRenderer().render(schema())  # type: ignore[no-untyped-call]
    return text, f'"{sha256(text).hexdigest()[:32]}"'


def resolve(part: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """A schema with its reference followed."""
    while "$ref" in part:
        target: Any = document
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


def type_of(part: dict[str, Any], document: dict[str, Any]) -> str:
    """What people read about a schema: "string", "list of object", "string or null", "open | closed"."""
    part = resolve(part, document)
    if "enum" in part:
        return " | ".join(str(value) for value in part["enum"])
    for combined in ("oneOf", "anyOf", "allOf"):
        if combined in part:
            return " or ".join(type_of(one, document) for one in part[combined])
    kind = part.get("type", "any")
    if kind == "array":
        return f"list of {type_of(part['items'], document)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def fields_of(part: dict[str, Any], document: dict[str, Any]) -> list[dict[str, Any]]:
    """Name, type, whether it is required and help of each property of an object."""
    part = resolve(part, document)
    required = part.get("required", [])
    return [
        {
            "name": name,
            "type": type_of(field, document),
            "required": name in required,
            "help": resolve(field, document).get("description", ""),
        }
        for name, field in part.get("properties", {}).items()
    ]


def example_of(content: dict[str, Any]) -> str:
    """The first example of a media type, as indented JSON; "" when there is none."""
    for example in content.get("examples", {}).values():
        return json.dumps(example["value"], indent=2, ensure_ascii=False)
    return ""


@lru_cache(maxsize=1)
def sections() -> list[dict[str, Any]]:
    """Tags with their calls, each with what the page shows."""
    document = schema()
    by_tag: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method in METHODS:
            operation = methods.get(method)
            if operation is None:
                continue
            request = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            answers = []
            for status, answer in operation["responses"].items():
                content: dict[str, Any] = next(iter(answer.get("content", {}).values()), {})
                answers.append(
                    {
                        "status": status,
                        "description": answer.get("description", ""),
                        "fields": fields_of(content["schema"], document) if status.startswith("2") and content else [],
                        "example": example_of(content),
                    }
                )
            call = {
                "id": operation["operationId"],
                "method": method.upper(),
                "path": path,
                "summary": operation.get("summary", ""),
                "description": operation.get("description", ""),
                "parameters": [
                    {
                        "name": parameter["name"],
                        "place": parameter["in"],
                        "type": type_of(parameter.get("schema", {}), document),
                        "required": parameter.get("required", False),
                        "help": parameter.get("description", ""),
                    }
                    for parameter in operation.get("parameters", [])
                ],
                "body": fields_of(request["schema"], document) if request else [],
                "request_example": example_of(request),
                "answers": answers,
            }
            by_tag.setdefault(operation.get("tags", ["Other"])[0], []).append(call)
    return [{"name": name, "calls": calls} for name, calls in by_tag.items()]


class SchemaView(View):
    """The OpenAPI document. Built once in a process; whoever has it already is answered 304."""

    def get(self, request: HttpRequest) -> HttpResponse:
        text, tag = schema_json()
        answer = HttpResponse(text, content_type="application/json", headers={"ETag": tag})
        # Short: after an upgrade a client asks again within minutes.
        patch_cache_control(answer, public=True, max_age=300)
        return get_conditional_response(request, etag=tag, response=answer) or answer


class DocsView(View):
    """Every call with parameters, body, answers and examples."""

    def get(self, request: HttpRequest) -> HttpResponse:
        context = {"sections": sections(), "info": schema()["info"], "base": f"{request.scheme}://{request.get_host()}"}
        return render(request, "api/docs.html", context)
