"""`manage.py bootstrap`: a ready organisation with an owner, a sandbox channel and an API key. Safe to repeat."""

from __future__ import annotations

import json
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils.text import slugify

from conversations.actions import create_channel
from conversations.models import Channel
from core.actors import SYSTEM
from core.clock import now
from core.errors import Refusal
from organisations.actions import create_api_key, create_organisation
from organisations.models import Membership, Organisation, Role, User
from organisations.scopes import SCOPES

KEY_NAME = "bootstrap"


class Command(BaseCommand):
    help = "Make an organisation, its owner, a sandbox channel and an API key with all scopes. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organisation", required=True, metavar="NAME")
        parser.add_argument("--email", required=True, metavar="E", help="the owner's e-mail address")
        parser.add_argument("--password", required=True, metavar="P", help="used only when the owner is made")
        parser.add_argument("--json", action="store_true", help="one JSON object of strings on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stderr.write("Bringing the database up to date …")
        call_command("migrate", verbosity=0, interactive=False)
        try:
            with transaction.atomic():
                made = self.make(options["organisation"], options["email"], options["password"])
        except Refusal as refusal:
            raise CommandError(refusal.detail) from refusal
        if options["json"]:
            self.stdout.write(json.dumps(made))
            return
        for name, value in made.items():
            self.stdout.write(f"{name}: {value or '(made earlier, not shown again)'}")

    def make(self, name: str, email: str, password: str) -> dict[str, str]:
        """What is missing is made, what is there stays. `apiKey` is "" unless this call made the key."""
        slug = slugify(name).replace("_", "-")[:60].strip("-")
        if not slug:
            raise CommandError("--organisation must contain letters or digits.")
        organisation = Organisation.objects.filter(slug=slug).first()
        if organisation is None:
            organisation = create_organisation(actor=SYSTEM, name=name, slug=slug)
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            user = User.objects.create_user(email, password)
        Membership.objects.get_or_create(organisation=organisation, user=user, defaults={"role": Role.OWNER})
        channel = Channel.objects.filter(organisation=organisation, kind="sandbox", archived_at=None).first()
        if channel is None:
            channel = create_channel(organisation=organisation, actor=SYSTEM, kind="sandbox", label="Sandbox")
        keys = organisation.api_keys.filter(name=KEY_NAME)
        key = ""
        if not any(row.usable_at(now()) for row in keys):
            _row, key = create_api_key(organisation=organisation, actor=SYSTEM, name=KEY_NAME, scopes=SCOPES)
        return {
            "organisationId": str(organisation.pk),
            "slug": organisation.slug,
            "email": user.email,
            "userId": str(user.pk),
            "channelId": str(channel.pk),
            "apiKey": key,
        }
