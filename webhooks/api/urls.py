"""Addresses of webhooks, deliveries, replays and events, below /api/v1/."""

from django.urls import path

from webhooks.api import events, replays, statistics, views

urlpatterns = [
    path("webhooks", views.WebhooksView.as_view(), name="api-webhooks"),
    path("webhooks/<str:pk>", views.WebhookView.as_view(), name="api-webhook"),
    path("webhooks/<str:pk>/secret", views.SecretView.as_view(), name="api-webhook-secret"),
    path("webhooks/<str:pk>/test", views.TryView.as_view(), name="api-webhook-test"),
    path("webhooks/<str:pk>/statistics", statistics.StatisticsView.as_view(), name="api-webhook-statistics"),
    path("webhooks/<str:pk>/deliveries", views.DeliveriesView.as_view(), name="api-deliveries"),
    path("deliveries/<str:pk>", views.DeliveryView.as_view(), name="api-delivery"),
    path("deliveries/<str:pk>/resend", views.ResendView.as_view(), name="api-delivery-resend"),
    path("webhooks/<str:pk>/replay", replays.StartReplayView.as_view(), name="api-replay-start"),
    path("webhooks/<str:pk>/replays", replays.ReplaysView.as_view(), name="api-replays"),
    path("replays/<str:pk>", replays.ReplayView.as_view(), name="api-replay"),
    path("replays/<str:pk>/pause", replays.PauseReplayView.as_view(), name="api-replay-pause"),
    path("replays/<str:pk>/resume", replays.ResumeReplayView.as_view(), name="api-replay-resume"),
    path("replays/<str:pk>/cancel", replays.CancelReplayView.as_view(), name="api-replay-cancel"),
    path("events", events.EventsView.as_view(), name="api-events"),
]
