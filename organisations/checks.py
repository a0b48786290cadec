"""Every page declares its permission and every API call its scope; forgetting it is found at start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register
from django.urls import URLPattern, URLResolver, get_resolver

from organisations.scopes import SCOPES


def views() -> Iterator[tuple[str, type]]:
    """(route, class) of every class-based view."""

    def walk(patterns: Sequence[URLPattern | URLResolver], prefix: str) -> Iterator[tuple[str, type]]:
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            else:
                view = getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None)
                if view is not None:
                    yield route, view

    return walk(get_resolver().url_patterns, "")


@register()
def check_views(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckMessage]:
    """E001 a panel page without permission, E002 an API method without scope, E003 a page that owns no tenancy."""
    from organisations.api.views import ApiView
    from organisations.panel.views import PanelView

    found: list[CheckMessage] = []
    for route, view in views():
        if issubclass(view, PanelView) and view.permission is None:
            found.append(Error(f"{view.__name__} at /{route} declares no permission.", id="organisations.E001"))
        if route.startswith("o/<slug:slug>/") and not issubclass(view, PanelView):
            found.append(Error(f"{view.__name__} at /{route} is no PanelView.", id="organisations.E003"))
        if issubclass(view, ApiView):
            for method in ("get", "post", "put", "patch", "delete"):
                scope = view.scopes.get(method.upper())
                if hasattr(view, method) and (scope is None or (scope and scope not in SCOPES)):
                    text = f"{view.__name__}.{method} at /{route} declares no known scope."
                    found.append(Error(text, id="organisations.E002"))
    return found
