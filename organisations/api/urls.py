"""Addresses of the organisation itself, below /api/v1/."""

from django.urls import path

from organisations.api import endpoints

urlpatterns = [
    path("organisation", endpoints.OrganisationView.as_view(), name="api-organisation"),
    path("token", endpoints.TokenView.as_view(), name="api-token"),
]
