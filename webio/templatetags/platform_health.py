"""The dashboard's figures, for the admin's first page."""

from __future__ import annotations

from typing import Any

from django import template

from webio import dashboard

register = template.Library()


@register.simple_tag(takes_context=True)
def platform_health(context: dict[str, Any]) -> dashboard.Health | None:
    """The platform's health, for staff who may look at deliveries; None for others."""
    user = context["request"].user
    return dashboard.health() if user.has_perm("webhooks.view_delivery") else None
