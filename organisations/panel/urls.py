"""Addresses about an organisation and its people."""

from django.urls import include, path

from organisations.panel import pages

settings_urls = (
    [
        path("", pages.OrganisationSettings.as_view(), name="organisation"),
        path("people/", pages.People.as_view(), name="people"),
        path("people/<int:pk>/", pages.MemberChange.as_view(), name="member"),
        path("people/invitations/<int:pk>/", pages.InvitationChange.as_view(), name="invitation"),
        path("audit/", pages.AuditLog.as_view(), name="audit"),
    ],
    "settings",
)
key_urls = (
    [
        path("keys/", pages.ApiKeys.as_view(), name="list"),
        path("keys/add/", pages.ApiKeyCreate.as_view(), name="add"),
        path("keys/<int:pk>/rotate/", pages.ApiKeyRotate.as_view(), name="rotate"),
        path("keys/<int:pk>/revoke/", pages.ApiKeyRevoke.as_view(), name="revoke"),
        path("token/", pages.Token.as_view(), name="token"),
        path("token/reveal/", pages.TokenReveal.as_view(), name="token_reveal"),
    ],
    "keys",
)
urlpatterns = [
    path("", pages.Home.as_view(), name="home"),
    path("account/", pages.Account.as_view(), name="account"),
    path("join/<str:token>/", pages.Join.as_view(), name="invitation"),
    path("o/<slug:slug>/settings/", include(settings_urls)),
    path("o/<slug:slug>/integrations/", include(key_urls)),
]
