from django.apps import AppConfig


class SandboxConfig(AppConfig):
    name = "gateways.sandbox"
    label = "sandbox"
