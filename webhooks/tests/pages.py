"""Short ways to the pages of the integration panel."""

from __future__ import annotations

from typing import Any

from django.urls import reverse

from conftest import Cast
from organisations.models import Role


def at(cast: Cast, name: str, *args: Any) -> str:
    """The address of the page `name` of the cast's organisation."""
    return reverse(f"integrations:{name}", args=[cast.organisation.slug, *args])


MANAGERS = {Role.OWNER, Role.ADMIN, Role.DEVELOPER}
EVERYBODY = set(Role.values)
