"""Addresses of payments, below /api/v1/."""

from django.urls import path

from payments.api import views

urlpatterns = [
    path("payments", views.PaymentsView.as_view(), name="api-payments"),
    path("payments/<str:payment_id>", views.PaymentView.as_view(), name="api-payment"),
]
