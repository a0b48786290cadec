"""Addresses of the integration panel under /o/<slug>/integrations/."""

from django.urls import include, path

from webhooks.panel.views import catalogue, deliveries, replays, testing, verifying, webhooks

app_name = "integrations"

webhook_urls = [
    path("", webhooks.WebhookDetail.as_view(), name="webhook"),
    path("edit/", webhooks.WebhookUpdate.as_view(), name="webhook_edit"),
    path("test/", testing.WebhookTest.as_view(), name="webhook_test"),
    path("verify/", verifying.WebhookVerify.as_view(), name="webhook_verify"),
    path("secret/", webhooks.WebhookRotateSecret.as_view(), name="webhook_secret"),
    path("delete/", webhooks.WebhookDelete.as_view(), name="webhook_delete"),
    *(
        path(f"{verb}/", webhooks.WebhookSwitch.as_view(), {"verb": verb}, name=f"webhook_{verb}")
        for verb in webhooks.WebhookSwitch.VERBS
    ),
    path("deliveries/", deliveries.WebhookDeliveries.as_view(), name="deliveries"),
    path("deliveries/resend-failed/", deliveries.ResendFailed.as_view(), name="resend_failed"),
    path("replays/", replays.ReplayList.as_view(), name="replays"),
    path("replays/start/", replays.ReplayStart.as_view(), name="replay_start"),
    path("replays/<int:replay_id>/", replays.ReplayDetail.as_view(), name="replay"),
    *(
        path(f"replays/<int:replay_id>/{verb}/", replays.ReplaySwitch.as_view(), {"verb": verb}, name=f"replay_{verb}")
        for verb in replays.ReplaySwitch.VERBS
    ),
]

urlpatterns = [
    path("", catalogue.Overview.as_view(), name="overview"),
    path("webhooks/", webhooks.WebhookList.as_view(), name="webhooks"),
    path("webhooks/add/", webhooks.WebhookCreate.as_view(), name="webhook_add"),
    path("webhooks/<int:webhook_id>/", include(webhook_urls)),
    path("custom-values/", testing.CustomValues.as_view(), name="custom_values"),
    path("events/", catalogue.EventCatalogue.as_view(), name="event_catalogue"),
    path("log/", deliveries.DeliveryLog.as_view(), name="log"),
    path("log/resend/", deliveries.DeliveryResendSelected.as_view(), name="resend_selected"),
    path("log/<int:delivery_id>/", deliveries.DeliveryDetail.as_view(), name="delivery"),
    path("log/<int:delivery_id>/resend/", deliveries.DeliveryResend.as_view(), name="delivery_resend"),
]
