"""`manage.py role_table`: prints docs/roles.md from `organisations.roles`, so that the page never says otherwise."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from organisations.roles import PERMISSIONS, STRENGTH, Permission

HEAD = """# Roles

Who may do what in the panel. A member has one role in an organisation and acts with it in the organisations below,
too; members of an organisation below never see the one above. Whoever belongs to both acts with the stronger role.
API keys have scopes instead of roles.

`python manage.py role_table > docs/roles.md` prints this page from `organisations/roles.py`.
"""


def role_table() -> str:
    """The page in Markdown: permissions down, roles across, strongest first."""
    lines = [
        HEAD,
        "| permission | " + " | ".join(role.value for role in STRENGTH) + " |",
        "|---|" + ":-:|" * len(STRENGTH),
        *(
            f"| `{permission}` | "
            + " | ".join("✓" if permission in PERMISSIONS[role] else "" for role in STRENGTH)
            + " |"
            for permission in Permission
        ),
    ]
    return "\n".join(lines) + "\n"


class Command(BaseCommand):
    help = "Print docs/roles.md."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(role_table(), ending="")
