from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SandboxConfig(AppConfig):
    name = "gateways.sandbox"
    label = "sandbox"

    def ready(self) -> None:
        from conversations.channels import ChannelKind, register

        register(ChannelKind("sandbox", _("Sandbox")))
