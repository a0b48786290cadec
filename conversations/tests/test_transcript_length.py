"""Long transcripts are written in constant memory."""

import json
import tracemalloc
from datetime import timedelta

import pytest
from django.db import models

from conversations import transcripts
from conversations.models import Conversation, Message
from conversations.transcripts import select, source
from core.clock import now
from core.tracking import TrackedQuerySet

COUNT = 20_000


def talk(acme, count):
    """A conversation of so many messages more, inserted below the change log: only their number matters here."""
    rows = [
        Message(
            organisation=acme.organisation,
            conversation=acme.conversation,
            channel=acme.channel,
            direction="inbound",
            state="received",
            body=f"{number} " + "x" * 200,
            actor_kind="contact",
        )
        for number in range(count)
    ]
    models.QuerySet.bulk_create(TrackedQuerySet(Message), rows, batch_size=1000)
    return Conversation.objects.with_names().select_related("organisation").get(pk=acme.conversation.pk)


@pytest.mark.long
@pytest.mark.once
def test_20_000_messages_never_stand_in_memory_as_a_whole(acme):
    found = talk(acme, COUNT)
    for code in ("json", "csv"):
        tracemalloc.start()
        size = sum(len(piece) for piece in transcripts.write(transcripts.Transcript(found), code))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size > COUNT * 200
        assert peak < 4_000_000, code


def test_json_of_more_messages_than_are_read_at_once_is_whole(acme):
    count = 3 * source.CHUNK
    told = json.loads("".join(transcripts.write(transcripts.Transcript(talk(acme, count)), "json")))
    assert len(told["messages"]) == count + 1
    ids = [int(message["communicationActionId"]) for message in told["messages"]]
    assert ids == sorted(set(ids))


def test_what_comes_while_a_transcript_is_written_is_left_out(acme, monkeypatch):
    from conversations import actions

    monkeypatch.setattr(source, "CHUNK", 1)
    messages = transcripts.Transcript(acme.conversation).messages()
    assert next(messages) == acme.message
    actions.receive_message(channel=acme.channel, address=acme.contact.address, body="later")
    assert list(messages) == []


def test_conversations_that_started_at_the_same_moment_are_all_written(acme, monkeypatch):
    from conversations import actions

    monkeypatch.setattr(select, "CHUNK", 2)
    for number in range(4):
        actions.receive_message(channel=acme.channel, address=f"44770090011{number}", body="Hello")
    moment = now()
    Conversation.objects.update(created_at=moment)
    found = transcripts.transcripts_of(organisation=acme.organisation, start=moment, end=moment + timedelta(seconds=1))
    ids = [transcript.conversation.pk for transcript in found]
    assert len(ids) == 5
    assert ids == sorted(set(ids))
