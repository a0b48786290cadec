"""The base of all panel pages: it owns tenancy. A page only declares the permission it asks for."""

from __future__ import annotations

from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.utils import timezone
from django.views import View

from core.actors import Actor
from core.logs import add_to_context
from organisations.models import Organisation, User
from organisations.navigation import navigation
from organisations.roles import Permission, may, role_of


class PanelView(View):
    """A page of one organisation, named by its slug in the address.

    Anonymous people are sent to sign in; to a stranger the organisation does not exist (404); a member whose role
    lacks `permission` gets 403. The system check `organisations.E001` finds a page that declares none.
    """

    permission: ClassVar[Permission | None] = None
    organisation: Organisation
    role: str

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        organisation = get_object_or_404(Organisation, slug=kwargs["slug"])
        role = role_of(request.user, organisation)
        if role is None:
            raise Http404
        self.organisation = organisation
        self.role = role
        request.organisation = organisation  # type: ignore[attr-defined]
        request.panel_role = role  # type: ignore[attr-defined]
        add_to_context(organisation=organisation.pk)
        if organisation.suspended:
            return render(request, "organisations/suspended.html", {"organisation": organisation}, status=403)
        if self.permission is None or not may(role, self.permission):
            raise PermissionDenied
        with timezone.override(ZoneInfo(organisation.time_zone)):
            response = super().dispatch(request, *args, **kwargs)
        # On a shared machine, going back after signing out shows nothing.
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @property
    def actor(self) -> Actor:
        """The signed-in person."""
        user = self.request.user
        assert isinstance(user, User)
        return Actor("user", str(user.pk), user.get_full_name())

    def may(self, permission: Permission) -> bool:
        """Whether the person may do more than the page asks for."""
        return may(self.role, permission)

    def page(self, template: str, *, status: int = 200, **context: Any) -> HttpResponse:
        """A rendered page of the organisation."""
        return render(self.request, template, {"organisation": self.organisation, **context}, status=status)


def panel(request: HttpRequest) -> dict[str, Any]:
    """Context processor: the navigation of the organisation whose page this is."""
    organisation = getattr(request, "organisation", None)
    role = getattr(request, "panel_role", None)
    if organisation is None or role is None:
        return {}
    return {"navigation": navigation(organisation, role, request.path)}
