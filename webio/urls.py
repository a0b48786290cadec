"""Every address of the platform."""

from django.contrib import admin
from django.urls import include, path

from core.health import healthz, readyz
from core.metrics import metrics
from organisations.panel.account import EmailAddresses

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("admin/", admin.site.urls),
    path("accounts/email/", EmailAddresses.as_view(), name="account_email"),
    path("accounts/", include("allauth.urls")),
    path("api/", include("webio.api_urls")),
    path("o/<slug:slug>/integrations/sandbox/", include("gateways.sandbox.panel.urls")),
    path("o/<slug:slug>/integrations/", include("webhooks.panel.urls")),
    path("", include("organisations.panel.urls")),
]
handler400 = "webio.errors.bad_request"
