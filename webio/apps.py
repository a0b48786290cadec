from django.apps import AppConfig


class WebioConfig(AppConfig):
    name = "webio"

    def ready(self) -> None:
        from webio import checks  # noqa: F401
