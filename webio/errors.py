"""What is answered to a request that cannot even be read."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from organisations.api.problems import plain


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """400. Unlike Django's own, it does not look at the form, which may be what could not be read."""
    if request.path.startswith("/api/"):
        return plain(400, "bad_request", _("The request could not be read."))
    return HttpResponse(render_to_string("400.html"), status=400)
