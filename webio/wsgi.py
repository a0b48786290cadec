"""The web application for a WSGI server. It does not come up with settings that `manage.py` would refuse."""

from __future__ import annotations

import os

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webio.settings")
application = get_wsgi_application()


def refuse_bad_settings() -> None:
    """Run the system checks, which only commands do by themselves. Raises `ImproperlyConfigured` for errors."""
    errors = [str(message) for message in checks.run_checks() if message.is_serious() and not message.is_silenced()]
    if errors:
        raise ImproperlyConfigured("\n".join(["The settings are refused.", *errors]))


refuse_bad_settings()
