from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate


class CoreConfig(AppConfig):
    name = "core"

    def ready(self) -> None:
        from core.tasks import install_schedules
        from core.tenancy import install_triggers, remove_triggers

        pre_migrate.connect(remove_triggers, dispatch_uid="core.remove_triggers")
        post_migrate.connect(install_triggers, dispatch_uid="core.install_triggers")
        post_migrate.connect(install_schedules, dispatch_uid="core.install_schedules")
