"""Addresses of the sandbox, below /api/v1/."""

from django.urls import path

from gateways.sandbox.api.views import InboundView

urlpatterns = [path("sandbox/inbound", InboundView.as_view(), name="api-sandbox-inbound")]
