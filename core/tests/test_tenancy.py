"""The database itself keeps the rows of one organisation together."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, connection, transaction

from conftest import Cast
from conversations.models import Conversation, Message
from webhooks.tests.running import migrated_sqlite


@pytest.mark.parametrize("name", ["queue", "status", "channel", "contact"])
def test_a_conversation_cannot_point_at_another_organisations_row(acme: Cast, globex: Cast, name: str) -> None:
    setattr(acme.conversation, name, getattr(globex, name))
    with pytest.raises(IntegrityError, match="another organisation"), transaction.atomic():
        acme.conversation.save()
    acme.conversation.refresh_from_db()
    assert getattr(acme.conversation, name) != getattr(globex, name)


def test_a_message_cannot_be_made_in_another_organisations_conversation(acme: Cast, globex: Cast) -> None:
    values: dict[str, Any] = {"direction": "inbound", "state": "received", "body": "Hi", "actor_kind": "contact"}
    row = Message(organisation=acme.organisation, conversation=globex.conversation, channel=acme.channel, **values)
    with pytest.raises(IntegrityError, match="another organisation"), transaction.atomic():
        row.save()
    assert globex.conversation.messages.count() == 1


def test_a_row_never_changes_its_organisation(acme: Cast, globex: Cast) -> None:
    table = connection.ops.quote_name(Conversation._meta.db_table)
    with pytest.raises(IntegrityError, match="never changes"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET organisation_id = %s WHERE id = %s", [globex.organisation.pk, acme.conversation.pk]
        )
    acme.conversation.refresh_from_db()
    assert acme.conversation.organisation == acme.organisation


@pytest.mark.long
@pytest.mark.once
def test_an_older_sqlite_database_is_migrated_triggers_and_all(tmp_path: Path) -> None:
    file = tmp_path / "old.sqlite3"
    environment = {**os.environ, "DEMO": "1", "DATABASE_URL": f"sqlite:///{file}"}

    def triggers() -> set[str]:
        with sqlite3.connect(file) as database:
            return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}

    def migrate(*arguments: str) -> None:
        command = [sys.executable, "manage.py", "migrate", *arguments]
        done = subprocess.run(command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    shutil.copy(migrated_sqlite(), file)
    migrate("webhooks", "0001")
    assert "webhooks_webhook_tenant_fixed" in triggers()
    migrate()
    assert {"webhooks_webhook_tenant_fixed", "webhooks_delivery_tenant_fixed"} <= triggers()
