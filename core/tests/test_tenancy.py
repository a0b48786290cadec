"""The database itself keeps the rows of one organisation together."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from conftest import Cast
from conversations.models import Conversation, Message


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
