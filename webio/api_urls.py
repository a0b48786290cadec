"""The REST API, version 1. Versions are floors of addresses with serializers of their own."""

from django.urls import include, path, re_path

from organisations.api.problems import not_found
from webio.api_docs import DocsView, SchemaView

urlpatterns = [
    path("v1/openapi.json", SchemaView.as_view(), name="api-schema"),
    path("docs/", DocsView.as_view(), name="api-docs"),
    path("v1/", include("organisations.api.urls")),
    path("v1/", include("conversations.api.urls")),
    path("v1/", include("payments.api.urls")),
    path("v1/", include("webhooks.api.urls")),
    path("v1/", include("gateways.sandbox.api.urls")),
    re_path(r"^.*$", not_found, name="api-unknown"),
]
