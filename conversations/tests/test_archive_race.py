"""What is just being taken out of use is given to no conversation, and what is just being given stays in use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conftest import Cast, make_cast
from conversations import actions
from conversations.models import Conversation
from conversations.tests.refusals import first_holding
from core.actors import SYSTEM
from core.errors import Conflict, Invalid

pytestmark = pytest.mark.django_db(transaction=True)

Call = Callable[[], Any]


def givers(cast: Cast) -> dict[str, tuple[Call, Call, str, str]]:
    """By name: what gives a thing to a conversation, what takes it out of use, the field refused, and the conflict."""
    make: dict[str, Any] = {"organisation": cast.organisation, "actor": SYSTEM}
    one = {**make, "conversation_id": cast.conversation.pk}
    channel = actions.create_channel(**make, kind="sandbox", label="Other")
    start = {**make, "address": "353870000000"}
    archive_queue = lambda: actions.archive_queue(queue=cast.queue, actor=SYSTEM)  # noqa: E731
    archive_status = lambda: actions.archive_status(status=cast.status, actor=SYSTEM)  # noqa: E731
    return {
        "start on a channel": (
            lambda: actions.start_conversation(**start, channel_id=channel.pk),
            lambda: actions.archive_channel(channel=channel, actor=SYSTEM),
            "channelId",
            "channel_in_use",
        ),
        "start in a queue": (
            lambda: actions.start_conversation(**start, channel_id=channel.pk, queue_id=cast.queue.pk),
            archive_queue,
            "queueId",
            "queue_in_use",
        ),
        "start with a status": (
            lambda: actions.start_conversation(**start, channel_id=channel.pk, status_id=cast.status.pk),
            archive_status,
            "statusId",
            "",
        ),
        "move to a queue": (
            lambda: actions.move_to_queue(**one, queue_id=cast.queue.pk),
            archive_queue,
            "queueId",
            "queue_in_use",
        ),
        "set a status": (
            lambda: actions.set_status(**one, status_id=cast.status.pk),
            archive_status,
            "statusId",
            "",
        ),
    }


NAMES = ("start on a channel", "start in a queue", "start with a status", "move to a queue", "set a status")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_being_taken_out_of_use_is_given_to_no_conversation(name: str) -> None:
    give, archive, field, _code = givers(make_cast("acme"))[name]
    before = list(Conversation.objects.order_by("pk").values())
    refusal = first_holding(archive, give)
    assert isinstance(refusal, Invalid)
    assert list(refusal.errors) == [field]
    assert list(Conversation.objects.order_by("pk").values()) == before


@pytest.mark.parametrize("name", NAMES)
def test_what_is_being_given_stays_in_use(name: str) -> None:
    give, archive, _field, code = givers(make_cast("acme"))[name]
    refusal = first_holding(give, archive)
    if code:
        assert isinstance(refusal, Conflict)
        assert refusal.code == code
    else:
        assert refusal is None
