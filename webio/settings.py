"""One settings file; everything that differs between machines comes from the environment (or a `.env` file).

The table of variables is in docs/operations.md. Unsafe defaults exist only under DEBUG or DEMO; elsewhere
`webio.checks` refuses them with a coded error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environ.Env.read_env(str(BASE_DIR / ".env"))

DEBUG = env.bool("DEBUG", default=False)
#: The demo of `make demo`: unsafe defaults are fine on one machine with sample data.
DEMO = env.bool("DEMO", default=False)
TESTING = "pytest" in sys.modules
RELAXED = DEBUG or DEMO or TESTING

INSECURE_SECRET_KEY = "insecure-key-for-development-and-demo-only-never-for-production"
SECRET_KEY = env.str("SECRET_KEY", default=INSECURE_SECRET_KEY)
#: urlsafe base64 of 32 bytes each; the first encrypts, all decrypt.
FIELD_ENCRYPTION_KEYS = env.list("FIELD_ENCRYPTION_KEYS", default=[])
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["*"] if RELAXED else ["localhost", "127.0.0.1", "[::1]"])
#: Where people reach this installation: links in mails start with it.
PUBLIC_URL = env.str("PUBLIC_URL", default="http://localhost:8000")
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[PUBLIC_URL])

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "core",
    "organisations",
    "conversations",
    "payments",
    "webhooks",
    "gateways.sandbox",
    "webio",
    # Behind `webio`, whose `qcluster` takes the place of its own.
    "django_q",
]

MIDDLEWARE = [
    "core.logs.RequestLogMiddleware",
    "core.metrics.MetricsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "webio.urls"
WSGI_APPLICATION = "webio.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "organisations.panel.views.panel",
            ],
        },
    }
]

# --- database -----------------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url("DATABASE_URL", default=f"sqlite:///{BASE_DIR / 'db.sqlite3'}")
}
_database = DATABASES["default"]
SQLITE = _database["ENGINE"] == "django.db.backends.sqlite3"
if SQLITE:
    _database["ENGINE"] = "core.sqlite"
    # Immediate transactions take the write lock at their start: a deferred one that reads first and then writes
    # fails at once when another writer came between, however long the time-out.
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        # A log of 16 MB is copied into the database a quarter as often as one of 4 MB, SQLite's own choice.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8192; "
        "PRAGMA wal_autocheckpoint=4000;",
    }
    _database["CONN_MAX_AGE"] = None
    if TESTING:
        # A file, so that threads and processes of a test meet as they do in life.
        (BASE_DIR / "var").mkdir(exist_ok=True)
        _database["TEST"] = {"NAME": str(BASE_DIR / "var" / f"test-{os.getpid()}.sqlite3")}
else:
    PGBOUNCER = env.bool("DATABASE_PGBOUNCER", default=False)
    _options = _database.setdefault("OPTIONS", {})
    # A server that vanishes is noticed, and so is a client: a transaction that has been silent for 20 s is ended, or a
    # process that was frozen in it would keep its locks from all others. PgBouncer refuses such options.
    _options |= {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
    if not PGBOUNCER:
        _options.setdefault("options", "-c idle_in_transaction_session_timeout=20000")
        # No statement is prepared unless it asks for it (`core.statements`); Django's None would refuse that. Behind
        # PgBouncer the next statement may meet another server process.
        _options.setdefault("prepare_threshold", 1_000_000_000)
    # `manage.py up` asks for a pool in the web process. Workers fork, and a pool does not survive that.
    if env.bool("DATABASE_POOL", default=False):
        _database["OPTIONS"] = {
            **_database.get("OPTIONS", {}),
            "pool": {"min_size": 1, "max_size": env.int("DATABASE_POOL_SIZE", default=20), "timeout": 10},
        }
        _database["CONN_MAX_AGE"] = 0
    else:
        _database["CONN_MAX_AGE"] = 60
    _database["DISABLE_SERVER_SIDE_CURSORS"] = PGBOUNCER
ATOMIC_REQUESTS = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- broker, cache and workers ------------------------------------------------------------------------------

#: redis://…; empty: the database is the broker.
BROKER_URL = env.str("BROKER_URL", default="")
#: How many drains send deliveries at once, over all machines. SQLite has one writer, so one drain.
DELIVERY_DRAINS = 1 if SQLITE else env.int("DELIVERY_DRAINS", default=2)

Q_CLUSTER: dict[str, Any] = {
    "name": "webio",
    # One is taken by the sandbox carrier, which waits while idle.
    "workers": env.int("TASK_WORKERS", default=3),
    "queue_limit": 4,
    "timeout": 60,
    # Counted from dequeue: must outlast the time-out, or a running task is run again beside itself.
    "retry": 120,
    "ack_failures": True,
    # Retries belong to our rows.
    "max_attempts": 1,
    # Saving successful tasks locks all kept results for each task.
    "save_limit": -1,
    "catch_up": False,
    "recycle": 5000,
    "poll": 0.1,
    "log_level": "WARNING",
    "label": "Tasks",
    "ALT_CLUSTERS": {
        # Drains wait while idle: in a cluster of their own they keep nobody else waiting. A slice of theirs and what it
        # then still waits for stay below the time-out.
        "deliveries": {
            "workers": DELIVERY_DRAINS,
            "queue_limit": 2,
            "recycle": 500,
            "scheduler": False,
            "timeout": 150,
            "retry": 300,
            "poll": 0.2,
        },
    },
}
if BROKER_URL:
    Q_CLUSTER["redis"] = BROKER_URL
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": BROKER_URL}}
else:
    Q_CLUSTER["orm"] = "default"
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- people -------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "organisations.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_EMAIL_VERIFICATION = "optional"
#: Whoever finds a signed-in browser changes no e-mail address: it is what a password is reset by.
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_ADAPTER = "organisations.adapter.AccountAdapter"
#: People come by invitation.
SIGN_UP_OPEN = env.bool("SIGN_UP_OPEN", default=False)
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Webio"
MFA_ADAPTER = "organisations.adapter.MFAAdapter"

SESSION_COOKIE_SECURE = env.bool("SECURE_COOKIES", default=not RELAXED)
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=not RELAXED)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=0 if RELAXED else 31_536_000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = SECURE_HSTS_SECONDS > 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
#: Networks of proxies whose word about the client's address is taken, and "unix" for a Unix socket.
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=[])
if env.bool("BEHIND_PROXY", default=False):
    # Only behind a proxy that always sets or removes this header itself.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

EMAIL_CONFIG = env.email_url("EMAIL_URL", default="consolemail://" if RELAXED else "smtp://localhost:25")
#: A mail server that says nothing holds nobody up for longer.
EMAIL_TIMEOUT = 10
vars().update(EMAIL_CONFIG)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default=f"Webio <no-reply@{urlsplit(PUBLIC_URL).hostname}>")

# --- the product --------------------------------------------------------------------------------------------

#: Per organisation: "<number>/<second|minute|hour>"; "0" turns it and every other API throttle off.
API_RATE_LIMIT = env.str("API_RATE_LIMIT", default="1000/minute")
#: CIDRs the sender may reach besides the public internet.
OUTBOUND_ALLOWED_NETWORKS = env.list("OUTBOUND_ALLOWED_NETWORKS", default=[])
#: Egress proxy for requests to customers; empty for none.
OUTBOUND_PROXY = env.str("OUTBOUND_PROXY", default="")
#: CA certificates that endpoints are verified against; empty for the usual public ones.
OUTBOUND_CA_FILE = env.str("OUTBOUND_CA_FILE", default="")
#: How long a pull of events may wait at most, seconds; up to 30. Less for a proxy that gives up earlier, 0 for never.
EVENTS_WAIT_SECONDS = env.int("EVENTS_WAIT_SECONDS", default=30)
WEBHOOKS_PER_ORGANISATION = env.int("WEBHOOKS_PER_ORGANISATION", default=32)
#: A webhook that has failed for so long without a success is disabled.
WEBHOOK_DISABLE_AFTER_DAYS = env.int("WEBHOOK_DISABLE_AFTER_DAYS", default=5)
#: Bearer token for /metrics; empty: only this machine may read it.
METRICS_TOKEN = env.str("METRICS_TOKEN", default="")

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "organisations.api.problems.handle",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Webio API",
    "DESCRIPTION": "Start conversations, send messages, read transcripts, manage webhooks and pull events.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "ConversationState": "conversations.models.Conversation.State",
        "MessageState": "conversations.models.Message.State",
        "WebhookState": "webhooks.models.Webhook.State",
        "DeliveryState": "webhooks.models.Delivery.State",
    },
}

# --- language, files, logs ----------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
LANGUAGES = [("en-gb", "English")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
#: No page takes files. The usual handlers would write what anybody sends to the disk.
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
#: Filled by `collectstatic`. Without it, in demo and development, the files are served from where they are.
STATIC_ROOT = None if RELAXED else BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if RELAXED
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = RELAXED
# Each client of the tests makes the middleware anew: it shall not read all files for that.
WHITENOISE_AUTOREFRESH = DEBUG or TESTING

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
#: "json" for machines, "text" for people.
LOG_FORMAT = env.str("LOG_FORMAT", default="text" if RELAXED else "json")
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"context": {"()": "core.logs.ContextFilter"}},
    "formatters": {
        "json": {"()": "core.logs.JsonFormatter"},
        "text": {"()": "core.logs.TextFormatter"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["context"]},
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    "loggers": {
        "django.server": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},
        "django-q": {"handlers": ["console"], "level": "WARNING", "propagate": False},
    },
}
