"""The platform's settings with django-q as it comes out of the box: what the naive design runs on.

BENCH_SAVE_LIMIT is django-q's `save_limit`: 250 results are kept by default, none with -1.
"""

import os

from webio.settings import *  # noqa: F403

Q_CLUSTER = {
    "name": "naive",
    "orm": "default",
    "workers": 2,
    "timeout": 60,
    "retry": 120,
    "log_level": "WARNING",
    "scheduler": False,
    "save_limit": int(os.environ.get("BENCH_SAVE_LIMIT", "250")),
}
