"""`manage.py demo`: everything on one machine with sample data and a receiver, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from conversations.events import EVENT_TYPES
from core.actors import SYSTEM
from core.clock import now
from core.outbound import Request, fetch
from core.supervisor import die_with_parent
from organisations.actions import create_api_key, revoke_api_key
from organisations.models import Organisation
from organisations.scopes import SCOPES
from webhooks.actions import create_webhook
from webhooks.models import Webhook
from webio import ports
from webio.demo import data, history
from webio.demo.receiver import DOWN, Receiver

KEY_NAME = "demo"
READY_SECONDS = 60


class Command(BaseCommand):
    help = "Run web server, workers and a local receiver on sample data, and say how to try them. Ctrl-C ends all."
    #: The demo's own settings are not in force yet when the command is looked up.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=8000)
        parser.add_argument("--receiver-port", type=int, default=9000)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO or any(name not in os.environ for name in self.environment()):
            environment = {**os.environ, **self.environment()}
            os.execve(sys.executable, [sys.executable, *sys.argv], environment)
        # Before anything is made: somebody else's server there would be taken for ours.
        ports.claim(options["host"], options["port"])
        receiver = Receiver(options["receiver_port"], self.tell)
        try:
            receiver.start()
        except OSError as error:
            raise CommandError(
                f"Port {options['receiver_port']} is taken ({error.strerror}): choose another with --receiver-port."
            ) from error
        self.say("Preparing the database …")
        call_command("migrate", verbosity=0, interactive=False)
        organisations = data.load(self.say)
        receiver.secrets = self.endpoints(organisations, options["receiver_port"])
        key = self.new_key(organisations[0])
        self.say("Starting web server and workers …")
        command = [sys.executable, sys.argv[0], "up", "--host", options["host"], "--port", str(options["port"])]
        up = subprocess.Popen(command, preexec_fn=die_with_parent)
        signal.signal(signal.SIGTERM, lambda *_: up.terminate())
        # A shell's background jobs inherit an ignored SIGINT, and Python then leaves it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.wait_until_ready(up, options["host"], options["port"])
            self.explain(options["host"], options["port"], organisations[0], key)
            up.wait()
        except KeyboardInterrupt:
            self.say("Stopping …")
        finally:
            # Ctrl-C reaches the whole foreground group: `up` is ending already, and a second signal does no harm.
            up.terminate()
            up.wait()
            receiver.stop()
        self.say("Stopped.")

    def environment(self) -> dict[str, str]:
        """What the demo sets unless the caller did: its own database, and leave to reach this machine."""
        folder = Path(settings.BASE_DIR) / "var"
        folder.mkdir(exist_ok=True)
        defaults = {
            "DATABASE_URL": f"sqlite:///{folder / 'demo.sqlite3'}",
            "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        }
        return {"DEMO": "1", **{name: os.environ.get(name, value) for name, value in defaults.items()}}

    def endpoints(self, organisations: list[Organisation], port: int) -> dict[str, str]:
        """Path → secret of each sample webhook; missing webhooks are made, with every event and a past."""
        secrets = {f"/{one.slug}": self.endpoint(one, "Demo receiver", f"/{one.slug}", port) for one in organisations}
        path = f"/{organisations[0].slug}{DOWN}"
        secrets[path] = self.endpoint(organisations[0], "Warehouse (always down)", path, port)
        return secrets

    def endpoint(self, organisation: Organisation, name: str, path: str, port: int) -> str:
        """The secret of the webhook for this path of the receiver, which is made when it is missing."""
        url = f"http://127.0.0.1:{port}{path}"
        webhook = Webhook.objects.filter(organisation=organisation, callback_url=url, archived_at=None).first()
        if webhook is None:
            down = path.endswith(DOWN)
            has_values = Webhook.objects.filter(organisation=organisation, custom_values=True, archived_at=None)
            webhook, _secret = create_webhook(
                organisation=organisation,
                actor=SYSTEM,
                name=name,
                callback_url=url,
                events=["payment", "moveToQueue", "setStatus"] if down else list(EVENT_TYPES),
                custom_values=not down and not has_values.exists(),
            )
            self.say(f"Made {history.make(webhook, down=down)} past deliveries of {organisation.name}: {name} …")
        return webhook.secret

    def new_key(self, organisation: Organisation) -> str:
        """A fresh API key for the printed commands; the one of the last run is revoked."""
        for row in organisation.api_keys.filter(name=KEY_NAME):
            if row.usable_at(now()):
                revoke_api_key(api_key=row, actor=SYSTEM)
        _row, key = create_api_key(organisation=organisation, actor=SYSTEM, name=KEY_NAME, scopes=SCOPES)
        return key

    def wait_until_ready(self, up: subprocess.Popen[bytes], host: str, port: int) -> None:
        """Raises `CommandError` when the platform does not get ready."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if up.poll() is not None:
                raise CommandError("The platform did not start; its messages above say why.")
            if fetch(Request("GET", f"http://{host}:{port}/readyz", deadline=2)).status == 200:
                return
            time.sleep(0.2)
        raise CommandError(f"The platform was not ready within {READY_SECONDS} s; its messages above say why.")

    def explain(self, host: str, port: int, organisation: Organisation, key: str) -> None:
        """Addresses, sign-ins and commands to try."""
        base = f"http://{host}:{port}"
        channel = organisation.channels.order_by("id").first()
        sandbox = reverse("sandbox:index", args=[organisation.slug])
        owners = [f"{company.people[0][1].split()[0].lower()}@{company.domain}" for company in data.COMPANIES]
        self.stdout.write(
            f"""
  Webio is running.

  Panel      {base}/                   sign in as {owners[0]} or {owners[1]}
  Sandbox    {base}{sandbox}  play both sides of a conversation
  Admin      {base}/admin/             sign in as staff@webio.example
  API docs   {base}/api/docs/
  Password   {data.PASSWORD} (for everybody)

  The same with curl: start a conversation, and watch the webhooks arrive below:

    curl -s {base}/api/v1/conversations -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"channelId": "{channel.pk if channel else ""}", "outboundChannelAddress": "+353 87 555 0100", \
"body": "Hello from Webio"}}'

  Send another message (put the conversationId of the answer in place of ID):

    curl -s {base}/api/v1/conversations/ID/messages -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' -d '{{"body": "Are you there?"}}'

  Let the contact answer:

    curl -s {base}/api/v1/sandbox/inbound -H 'Authorization: Bearer {key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"channelId": "{channel.pk if channel else ""}", "outboundChannelAddress": "+353 87 555 0100", \
"body": "Yes I am"}}'

  Ctrl-C ends everything.
"""
        )
        self.stdout.flush()

    def say(self, text: str) -> None:
        """One line of progress."""
        self.stdout.write(self.style.MIGRATE_HEADING("demo      ") + text)
        self.stdout.flush()

    def tell(self, text: str) -> None:
        """One line about a request that reached the receiver."""
        moment = now().strftime("%H:%M:%S.%f")[:-3]
        self.stdout.write(self.style.SUCCESS(f"received  {moment} ") + text)
        self.stdout.flush()
