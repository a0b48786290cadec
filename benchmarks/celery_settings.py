"""The platform's settings with django-webhook, which posts in Celery tasks: what it is compared with."""

# Tasks belong to the application that there is when they are imported.
import benchmarks.celery_app  # noqa: F401
from webio.settings import *  # noqa: F403
from webio.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_webhook"]
DJANGO_WEBHOOK: dict[str, object] = {"MODELS": []}
