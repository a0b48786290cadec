"""Addresses of conversations and what they need, below /api/v1/."""

from django.urls import path

from conversations.api import transcripts, views
from conversations.api.directory import KINDS, detail_view, list_view

one = "conversations/<str:conversation_id>"
urlpatterns = [
    path("conversations", views.ConversationsView.as_view(), name="api-conversations"),
    path(one, views.ConversationView.as_view(), name="api-conversation"),
    path(f"{one}/messages", views.MessagesView.as_view(), name="api-messages"),
    path(f"{one}/transcript", transcripts.TranscriptView.as_view(), name="api-transcript"),
    path("transcripts", transcripts.TranscriptsView.as_view(), name="api-transcripts"),
    path(f"{one}/status", views.StatusView.as_view(), name="api-conversation-status"),
    path(f"{one}/queue", views.QueueView.as_view(), name="api-conversation-queue"),
    path(f"{one}/assignment", views.AssignmentView.as_view(), name="api-conversation-assignment"),
    path(f"{one}/close", views.CloseView.as_view(), name="api-conversation-close"),
    path(f"{one}/reopen", views.ReopenView.as_view(), name="api-conversation-reopen"),
]
for kind in KINDS:
    urlpatterns += [
        path(kind.plural, list_view(kind).as_view(), name=f"api-{kind.plural}"),
        path(f"{kind.plural}/<str:pk>", detail_view(kind).as_view(), name=f"api-{kind.name}"),
    ]
