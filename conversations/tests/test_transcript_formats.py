"""One conversation's transcript in each format."""

import csv
import io
import json
from datetime import timedelta

import pypdf
import pytest

from conversations import actions, transcripts
from conversations.models import Conversation
from conversations.transcripts import human, machine, pdf
from core.actors import SYSTEM, Actor
from core.errors import Conflict

AGENT = Actor("user", "7", "ada@acme.example")
HOSTILE = (
    '<script>alert(1)</script>\n=cmd|" /C calc"!A0\r\n2026-01-01 00:00:00 UTC  system  * Conversation closed\x1b[2J'
)


def load(conversation, notes=False):
    row = Conversation.objects.with_names().select_related("organisation").get(pk=conversation.pk)
    return transcripts.Transcript(row, notes=notes)


def text(transcript, code):
    return "".join(transcripts.write(transcript, code))


def pdf_text(transcript):
    document = b"".join(transcripts.write(transcript, "pdf"))
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(document)).pages)


@pytest.fixture
def talk(acme):
    """A conversation in which everything a transcript tells of has happened."""
    acme.organisation.time_zone = "Europe/Dublin"
    acme.organisation.save()
    doing = {"organisation": acme.organisation, "actor": AGENT, "conversation_id": acme.conversation.pk}
    actions.send_message(**doing, body="Good day")
    actions.receive_message(channel=acme.channel, address=acme.contact.address, body=HOSTILE)
    actions.set_status(**doing, status_id=acme.status.pk)
    actions.move_to_queue(**doing, queue_id=acme.queue.pk)
    actions.assign_conversation(**doing, user_id=acme.agent.pk)
    actions.add_note(**doing, body="A secret remark")
    actions.close_conversation(**doing)
    actions.reopen_conversation(**doing)
    return acme.conversation


def test_json_holds_the_conversation_messages_with_outcomes_and_events_in_order(acme, talk):
    told = json.loads(text(load(talk), "json"))
    assert told["conversationId"] == str(talk.pk)
    assert told["statusId"] == str(acme.status.pk)
    assert [message["body"] for message in told["messages"]] == ["Hello acme", "Good day", HOSTILE]
    assert told["messages"][1]["statusCode"] == "1"
    assert told["messages"][1]["sentBy"] == "agent"
    assert [outcome["statusCode"] for outcome in told["messages"][1]["outcomes"]] == ["1"]
    assert [event["type"] for event in told["events"]] == [
        "setStatus",
        "moveToQueue",
        "conversationAssignment",
        "conversationClosed",
        "conversationReopened",
    ]
    assert told["events"][0]["status"] == "Promise"
    assert told["events"][0]["createdAt"].endswith("Z")
    assert "notes" not in told


@pytest.mark.parametrize("code", ["json", "csv", "txt", "html"])
def test_notes_are_there_only_when_asked_for(talk, code):
    assert "A secret remark" not in text(load(talk), code)
    assert "A secret remark" in text(load(talk, notes=True), code)


def test_a_pdf_holds_notes_only_when_asked_for(talk):
    assert "A secret remark" not in pdf_text(load(talk))
    assert "A secret remark" in pdf_text(load(talk, notes=True))


def test_csv_has_one_line_for_each_entry_and_no_formula(talk):
    rows = list(csv.DictReader(io.StringIO(text(load(talk), "csv"), newline="")))
    assert [row["kind"] for row in rows].count("message") == 3
    assert [row["kind"] for row in rows].count("event") == 5
    assert rows[0]["conversationId"] == str(talk.pk)
    assert rows[0]["createdAt"].endswith("Z")
    assert HOSTILE in [row["text"] for row in rows]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\n=1", "＝1", "\xa0=1"])
def test_a_cell_that_looks_like_a_formula_is_guarded(cell):
    assert machine.guarded(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "hello", "a=b", "447717472695", "'quoted"])
def test_an_ordinary_cell_is_left_alone(cell):
    assert machine.guarded(cell) == cell


def test_no_line_of_a_message_passes_for_another_entry_in_plain_text(talk):
    written = text(load(talk), "txt")
    assert "\x1b" not in written
    lines = [line for line in written.split("\n") if "system  * Conversation closed" in line]
    assert len(lines) == 1
    assert lines[0].startswith("    ")
    assert "ada@acme.example  * Conversation closed" in written


def test_people_read_the_time_of_the_organisation(talk):
    Conversation.objects.filter(pk=talk.pk).update(created_at="2026-07-01T11:30:00Z")
    assert "2026-07-01 12:30:00 IST" in text(load(talk), "txt")
    assert "2026-07-01 12:30:00 IST" in text(load(talk), "html")
    assert "2026-07-01 12:30:00 IST" in pdf_text(load(talk))


def test_html_escapes_everything_and_allows_only_its_own_style(talk):
    talk.organisation.name = "<b>Acme</b>"
    talk.organisation.save()
    page = text(load(talk), "html")
    assert "<script" not in page
    assert "<b>" not in page
    assert page.count("<style>") == 1
    assert " style=" not in page
    assert human.CSP.startswith("default-src 'none'")


def test_pdf_shows_latin_greek_and_cyrillic_and_names_what_the_font_lacks(acme, talk):
    actions.receive_message(
        channel=acme.channel, address=acme.contact.address, body="Žluťoučký Ωμέγα Привет \N{DROPLET} 你 שלום مرحبا"
    )
    shown = pdf_text(load(talk))
    assert "Žluťoučký Ωμέγα Привет [droplet] □" in " ".join(shown.split())
    assert "alert(1)" in shown


def test_shaping_is_for_the_scripts_that_need_it():
    assert pdf.complex_script("مرحبا")
    assert pdf.complex_script("שלום")
    assert not pdf.complex_script("Žluťoučký 你")


def test_a_word_without_spaces_fits_a_pdf(acme, talk):
    actions.receive_message(channel=acme.channel, address=acme.contact.address, body="x" * 10_000)
    assert pdf_text(load(talk)).count("x") >= 10_000


def test_a_pdf_that_would_be_too_long_is_refused(talk, monkeypatch):
    monkeypatch.setattr(pdf, "MOST", 2)
    with pytest.raises(Conflict) as refusal:
        transcripts.write(load(talk), "pdf")
    assert refusal.value.code == "transcript_too_long"


def test_many_transcripts_keep_to_the_organisation_period_and_filters(acme, globex, talk):
    start, end = talk.created_at - timedelta(hours=1), talk.created_at + timedelta(hours=1)
    second = actions.receive_message(channel=acme.channel, address="447700900111", body="Another").conversation
    period = {"organisation": acme.organisation, "start": start, "end": end}

    def ids(**given):
        lines = "".join(transcripts.as_json_lines(transcripts.transcripts_of(**{**period, **given}))).splitlines()
        return [int(json.loads(line)["conversationId"]) for line in lines]

    assert ids() == [talk.pk, second.pk]
    assert ids(address="447700900111") == [second.pk]
    assert ids(queue_id=acme.queue.pk) == [talk.pk]
    assert ids(end=start) == []
    actions.close_conversation(organisation=acme.organisation, actor=SYSTEM, conversation_id=second.pk)
    assert ids(state="closed") == [second.pk]
