from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OrganisationsConfig(AppConfig):
    name = "organisations"

    def ready(self) -> None:
        from organisations import checks, retention  # noqa: F401
        from organisations.navigation import INTEGRATIONS, SETTINGS, Entry, register
        from organisations.roles import Permission

        register(
            Entry(INTEGRATIONS, 20, _("API keys"), "keys:list", Permission.KEYS_VIEW),
            Entry(INTEGRATIONS, 30, _("x-webio-token"), "keys:token", Permission.TOKEN_MANAGE),
            Entry(SETTINGS, 10, _("Organisation"), "settings:organisation", Permission.ORGANISATION_VIEW),
            Entry(SETTINGS, 20, _("People"), "settings:people", Permission.MEMBERS_VIEW),
            Entry(SETTINGS, 30, _("Audit log"), "settings:audit", Permission.AUDIT_VIEW),
        )
