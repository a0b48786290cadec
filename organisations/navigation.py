"""The panel's navigation. Apps add their entries in `ready()`; a person sees what their role may open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from organisations.models import Organisation
from organisations.roles import Permission, may

INTEGRATIONS = "integrations"
SETTINGS = "settings"
SECTIONS: dict[str, str | Promise] = {INTEGRATIONS: _("Integrations"), SETTINGS: _("Settings")}


@dataclass(frozen=True)
class Entry:
    """One link: the section it stands in, its place there, the URL name that takes the slug, and who may open it."""

    section: str
    order: int
    label: str | Promise
    url_name: str
    permission: Permission


_entries: list[Entry] = []


def register(*entries: Entry) -> None:
    """Add links. Registering one twice adds it once."""
    for entry in entries:
        if entry not in _entries:
            _entries.append(entry)


def navigation(organisation: Organisation, role: str | None, path: str) -> list[dict[str, Any]]:
    """Sections with the links that `role` may open; the one whose address `path` continues longest is current."""
    sections: list[dict[str, Any]] = []
    best = ""
    for code, title in SECTIONS.items():
        entries: list[dict[str, Any]] = []
        for entry in sorted(_entries, key=lambda one: one.order):
            if entry.section == code and may(role, entry.permission):
                url = reverse(entry.url_name, args=[organisation.slug])
                if path.startswith(url) and len(url) > len(best):
                    best = url
                entries.append({"label": entry.label, "url": url})
        if entries:
            sections.append({"title": title, "entries": entries})
    for section in sections:
        for shown in section["entries"]:
            shown["current"] = shown["url"] == best
    return sections
