from django.apps import AppConfig
from django.conf import settings
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class WebhooksConfig(AppConfig):
    name = "webhooks"

    def ready(self) -> None:
        from core import loops
        from organisations import navigation
        from organisations.roles import Permission
        from webhooks import event_types, metrics, replay, replaying, retention, signals  # noqa: F401
        from webhooks.tasks import SLICE_SECONDS, install_schedules

        post_migrate.connect(install_schedules, dispatch_uid="webhooks.install_schedules")
        drains = loops.Loop(
            signals.LOOP, "webhooks.tasks.drain", "deliveries", lambda: settings.DELIVERY_DRAINS, SLICE_SECONDS
        )
        loops.register(drains)
        loops.register(loops.Loop(replay.LOOP, "webhooks.tasks.replay", "webio", replaying.wanted))
        navigation.register(
            *(
                navigation.Entry(navigation.INTEGRATIONS, order, label, f"integrations:{name}", permission)
                for order, label, name, permission in (
                    (10, _("Overview"), "overview", Permission.WEBHOOKS_VIEW),
                    (20, _("Webhooks"), "webhooks", Permission.WEBHOOKS_VIEW),
                    (30, _("Custom values"), "custom_values", Permission.WEBHOOKS_VIEW),
                    (60, _("Event catalogue"), "event_catalogue", Permission.WEBHOOKS_VIEW),
                    (70, _("Request log"), "log", Permission.DELIVERIES_VIEW),
                )
            )
        )
