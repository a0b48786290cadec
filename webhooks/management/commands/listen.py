"""`manage.py listen`: a webhook for a machine that nobody can reach, such as a developer's own."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.events import EVENT_TYPES
from core.signing import Signer, new_secret
from webhooks.listening import Listener, Refused

KEY_VARIABLE = "WEBIO_API_KEY"
SECRET_VARIABLE = "WEBIO_WEBHOOK_SECRET"
HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):\s*([ -~]*)")


class Command(BaseCommand):
    help = "Pull events from a platform and post each to an address here, as a webhook would. Ctrl-C ends it."
    #: Runs without the settings and the database of a platform.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--forward", required=True, metavar="URL", help="where to post, such as http://localhost:3000"
        )
        parser.add_argument("--url", default="http://localhost:8000", help="the platform (default %(default)s)")
        parser.add_argument("--key", help=f"API key with the scope events:read; better in {KEY_VARIABLE}")
        parser.add_argument("--events", default="", metavar="A,B", help="only these (default: all)")
        parser.add_argument("--secret", help=f"whsec_… to sign with, or {SECRET_VARIABLE} (default: a new one)")
        parser.add_argument("--format", choices=("webio", "standard"), default="webio", help="of the bodies")
        parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="send it too")
        parser.add_argument(
            "--after", default="latest", metavar="CURSOR", help="go on behind it (default: from now on)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        key = options["key"] or os.environ.get(KEY_VARIABLE)
        if not key:
            raise CommandError(f"Give an API key: --key or {KEY_VARIABLE}.")
        secret = options["secret"] or os.environ.get(SECRET_VARIABLE)
        try:
            signer = Signer([secret or (made := new_secret())])
        except ValueError as error:
            raise CommandError(f"--secret: {error}") from None
        listener = Listener(
            platform=address("--url", options["url"]).rstrip("/"),
            key=key,
            forward=address("--forward", options["forward"]),
            signer=signer,
            say=self.say,
            format=options["format"],
            events=chosen(options["events"]),
            headers=dict(header(text) for text in options["header"]),
            after=options["after"],
        )
        if not secret:
            self.say(f"signed with {made}")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            listener.run()
        except Refused as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            pass
        finally:
            if listener.cursor:
                self.say(f"ended; to go on from here: --after {listener.cursor}")

    def say(self, text: str) -> None:
        """One line."""
        self.stdout.write(f"{time.strftime('%H:%M:%S')} {text}")
        self.stdout.flush()


def address(name: str, text: str) -> str:
    """An http or https URL. Raises `CommandError`."""
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        fine = False
    if not fine:
        raise CommandError(f"{name}: {text!r} is no http:// or https:// address.")
    return text


def chosen(text: str) -> frozenset[str]:
    """Subscription names, separated by commas. Raises `CommandError`."""
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    if unknown := sorted(names - set(EVENT_TYPES)):
        raise CommandError(f"--events: there is no {', '.join(unknown)}. There are: {', '.join(EVENT_TYPES)}.")
    return names


def header(text: str) -> tuple[str, str]:
    """(lower-case name, value) of a header line. Raises `CommandError`."""
    match = HEADER.fullmatch(text)
    if match is None:
        raise CommandError(f"--header: {text!r} is not like 'name: value'.")
    return match[1].lower(), match[2]
