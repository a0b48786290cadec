from django.apps import AppConfig
from django.conf import settings


class WebhooksConfig(AppConfig):
    name = "webhooks"

    def ready(self) -> None:
        from core import loops
        from webhooks import signals

        loops.register(loops.Loop(signals.LOOP, "webhooks.tasks.drain", "deliveries", lambda: settings.DELIVERY_DRAINS))
