"""Addresses of the sandbox's pages under /o/<slug>/integrations/sandbox/."""

from django.urls import path

from gateways.sandbox.panel import views

app_name = "sandbox"

urlpatterns = [
    path("", views.Index.as_view(), name="index"),
    path("start/", views.Start.as_view(), name="start"),
    path("<int:conversation_id>/", views.ConversationPage.as_view(), name="conversation"),
    path("<int:conversation_id>/send/", views.Send.as_view(), name="send"),
    path("<int:conversation_id>/answer/", views.Answer.as_view(), name="answer"),
    *(
        path(f"<int:conversation_id>/{verb}/", views.Switch.as_view(), {"verb": verb}, name=verb)
        for verb in views.Switch.VERBS
    ),
]
