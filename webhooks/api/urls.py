"""Addresses of webhooks, deliveries and events, below /api/v1/."""

from django.urls import path

from webhooks.api import events, views

urlpatterns = [
    path("webhooks", views.WebhooksView.as_view(), name="api-webhooks"),
    path("webhooks/<str:pk>", views.WebhookView.as_view(), name="api-webhook"),
    path("webhooks/<str:pk>/secret", views.SecretView.as_view(), name="api-webhook-secret"),
    path("webhooks/<str:pk>/test", views.TryView.as_view(), name="api-webhook-test"),
    path("webhooks/<str:pk>/deliveries", views.DeliveriesView.as_view(), name="api-deliveries"),
    path("deliveries/<str:pk>", views.DeliveryView.as_view(), name="api-delivery"),
    path("deliveries/<str:pk>/resend", views.ResendView.as_view(), name="api-delivery-resend"),
    path("events", events.EventsView.as_view(), name="api-events"),
]
