from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SandboxConfig(AppConfig):
    name = "gateways.sandbox"
    label = "sandbox"
    verbose_name = _("Sandbox")

    def ready(self) -> None:
        from conversations.channels import ChannelKind, register
        from core import loops
        from gateways.sandbox import signals, tasks  # noqa: F401
        from organisations import navigation
        from organisations.roles import Permission

        register(ChannelKind("sandbox", _("Sandbox")))
        loops.register(tasks.LOOP)
        navigation.register(
            navigation.Entry(navigation.INTEGRATIONS, 40, _("Sandbox"), "sandbox:index", Permission.CONVERSATIONS_VIEW)
        )
