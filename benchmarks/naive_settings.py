"""The platform's settings with django-q as it comes out of the box: what the naive design runs on."""

from webio.settings import *  # noqa: F403

Q_CLUSTER = {
    "name": "naive",
    "orm": "default",
    "workers": 2,
    "timeout": 60,
    "retry": 120,
    "log_level": "WARNING",
    "scheduler": False,
}
