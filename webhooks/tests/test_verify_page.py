"""The verify page: says which check of a pasted request fails first, and why, without keeping or showing anything."""

from __future__ import annotations

import base64
import json
import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from conftest import Cast
from conversations.actions import receive_message
from conversations.models import Event
from core.actors import SYSTEM
from core.clock import now
from core.signing import new_secret, sign
from webhooks.actions import rotate_secret
from webhooks.models import Webhook
from webhooks.payloads import message_id, render
from webhooks.tests.conftest import make_webhook
from webhooks.tests.endpoint import Endpoint
from webhooks.tests.engine import deliver
from webhooks.tests.pages import MANAGERS, at
from webhooks.verify_samples import SAMPLES
from webhooks.verifying import examine, read_headers

pytestmark = pytest.mark.once

BODY = '{"type":"inboundMessage","body":"Grüße 😀"}'


@pytest.fixture
def signed_in(acme: Cast, client: Client) -> Client:
    client.force_login(acme.developer)
    return client


def received(secret: str, body: str = BODY, at: float | None = None, identifier: str = "msg_1_2") -> dict[str, str]:
    """The headers of a request signed with `secret`."""
    moment = int(time.time() if at is None else at)
    return {
        "webhook-id": identifier,
        "webhook-timestamp": str(moment),
        "webhook-signature": sign([secret], identifier, moment, body.encode()),
    }


def pasted(headers: dict[str, str]) -> str:
    """As a log prints them."""
    return "host: example.com\r\n" + "\r\n".join(f"{name}: {value}" for name, value in headers.items())


def said(webhook: Webhook, headers: dict[str, str], body: str = BODY, which: str = "both") -> tuple[str, str]:
    """The code of the check that failed and all hints."""
    verdict = examine(webhook, headers, body, which=which)
    return verdict.signature.code, " ".join(verdict.hints)


def test_a_real_delivery_is_genuine(acme: Cast, endpoint: Endpoint, signed_in: Client) -> None:
    webhook = make_webhook(acme, callback_url=endpoint.url)
    receive_message(channel=acme.channel, address=acme.contact.address, body="Grüße\n  zwei Zeilen")
    deliver()
    asked = endpoint.asked[0]
    page = signed_in.post(
        at(acme, "webhook_verify", webhook.pk), {"headers": pasted(asked.headers), "body": asked.body.decode()}
    )
    assert page.status_code == 200
    assert "The request is genuine" in page.content.decode()
    assert {check.state for check in page.context["verdict"].checks} == {"passed"}


@pytest.mark.parametrize(
    ("change", "code", "failed"),
    [
        ({"webhook-id": None}, "missing_header", 0),
        ({"webhook-signature": None}, "missing_header", 0),
        ({"webhook-timestamp": "yesterday"}, "bad_timestamp", 1),
        ({"webhook-signature": "v2,abc"}, "bad_format", 3),
        ({"webhook-id": "msg_9_9"}, "no_match", 4),
    ],
)
def test_the_first_check_that_fails_is_named(
    acme: Cast, webhook: Webhook, signed_in: Client, change: dict[str, Any], code: str, failed: int
) -> None:
    headers = {**received(webhook.secret), **change}
    headers = {name: value for name, value in headers.items() if value is not None}
    page = signed_in.post(at(acme, "webhook_verify", webhook.pk), {"headers": pasted(headers), "body": BODY})
    verdict = page.context["verdict"]
    assert verdict.signature.code == code
    states = [check.state for check in verdict.checks]
    assert states == ["passed"] * failed + ["failed"] + ["open"] * (4 - failed)
    text = page.content.decode()
    assert "The request is refused" in text
    assert verdict.signature.reason in text
    assert verdict.hints


def test_an_old_request_is_told_to_be_fine_apart_from_its_age(webhook: Webhook) -> None:
    code, hints = said(webhook, received(webhook.secret, at=time.time() - 3600))
    assert (code, "Apart from its age the request is genuine" in hints) == ("too_old", True)
    code, hints = said(webhook, received(new_secret(), at=time.time() - 3600))
    assert (code, "genuine" in hints) == ("too_old", False)
    code, hints = said(webhook, received(webhook.secret, at=time.time() * 1000))
    assert (code, "milliseconds" in hints) == ("too_new", True)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (BODY + "\n", "white space around the body"),
        ("  " + BODY, "white space around the body"),
        (json.dumps(json.loads(BODY), indent=2), "parsed and written again"),
        (json.dumps(json.loads(BODY)), "parsed and written again"),
        (json.dumps(json.loads(BODY), separators=(",", ":")), "parsed and written again"),
        (BODY.replace("Grüße", "Gruesse"), "must be the raw bytes"),
        ("", "must be the raw bytes"),
    ],
)
def test_what_happened_to_the_body_is_found_out(webhook: Webhook, body: str, hint: str) -> None:
    code, hints = said(webhook, received(webhook.secret), body)
    assert (code, hint in hints) == ("no_match", True), hints


def test_a_body_with_line_breaks_is_judged_as_it_was_before_the_browser(webhook: Webhook) -> None:
    body = '{\n  "a": 1\n}'
    verdict = examine(webhook, received(webhook.secret, body), body.replace("\n", "\r\n"))
    assert verdict.signature.valid
    windows = body.replace("\n", "\r\n")
    assert "line breaks of Windows" in said(webhook, received(webhook.secret, windows), windows)[1]
    assert "was it cut off" in said(webhook, received(webhook.secret, BODY + "\n"), BODY)[1]


@pytest.mark.parametrize("format", ["webio", "standard"])
def test_a_body_that_was_not_sent_is_compared_with_the_one_that_was(acme: Cast, format: str) -> None:
    webhook = make_webhook(acme, format=format)
    event = Event.objects.filter(organisation=acme.organisation, type="inboundMessage").earliest("id")
    sent = render(event, format).decode()
    headers = received(webhook.secret, sent, identifier=message_id(event.pk, webhook.pk))
    place = sent.index("Hello acme")
    code, hints = said(webhook, headers, sent.replace("Hello acme", "Jello acme"))
    assert (code, f"from byte {place + 1} on" in hints) == ("no_match", True)


def test_the_events_of_others_are_not_compared_with(acme: Cast, globex: Cast) -> None:
    webhook = make_webhook(acme)
    event = Event.objects.filter(organisation=globex.organisation, type="inboundMessage").earliest("id")
    sent = render(event, "webio").decode()
    headers = received(webhook.secret, sent, identifier=message_id(event.pk, webhook.pk))
    assert "from byte" not in said(webhook, headers, "x")[1]


def test_whose_secret_it_is_signed_with_is_told(acme: Cast, globex: Cast, webhook: Webhook) -> None:
    other = make_webhook(acme, name="warehouse")
    foreign = make_webhook(globex, name="of globex")
    assert "another webhook: warehouse." in said(webhook, received(other.secret))[1]
    code, hints = said(webhook, received(foreign.secret))
    assert (code, "globex" in hints) == ("no_match", False)


def test_while_a_secret_rotates_both_are_in_force_and_one_can_be_chosen(webhook: Webhook) -> None:
    old = webhook.secret
    webhook, _secret = rotate_secret(webhook=webhook, actor=SYSTEM, secret=None)
    before, after = received(old), received(webhook.secret)
    assert examine(webhook, before, BODY).matched == "previous"
    assert examine(webhook, after, BODY).matched == "present"
    assert examine(webhook, before, BODY, which="previous").signature.valid
    assert "before the latest rotation" in said(webhook, before, which="present")[1]
    assert "present secret" in said(webhook, after, which="previous")[1]
    webhook.previous_secret_expires_at = now() - timedelta(seconds=1)
    code, hints = said(webhook, before)
    assert (code, "before the latest rotation" in hints) == ("no_match", True)
    assert examine(webhook, before, BODY, which="previous").signature.valid


@pytest.mark.parametrize(
    "form",
    [
        "{name}: {value}",
        "> {name}: {value}",
        "{name}:{value}   ",
        '  "{name}": "{value}",',
        "'{name}' => '{value}',",
        "-H '{name}: {value}' \\",
        "{upper}={value}",
        "'{upper}': '{value}',",
    ],
)
def test_headers_are_read_however_they_were_copied(form: str) -> None:
    headers = received(new_secret())
    two = {**headers, "webhook-signature": headers["webhook-signature"] + " v1," + base64.b64encode(b"x" * 31).decode()}
    lines = [
        form.format(name=name.title(), upper=f"HTTP_{name.upper().replace('-', '_')}", value=value)
        for name, value in two.items()
    ]
    assert read_headers("POST /hook HTTP/1.1\n" + "\r\n".join(lines) + "\nx-webio-token: eyJ") == two


def test_no_secret_is_shown_and_nothing_is_stored_or_logged(
    acme: Cast,
    webhook: Webhook,
    signed_in: Client,
    caplog: pytest.LogCaptureFixture,
    django_assert_max_num_queries: Any,
) -> None:
    with caplog.at_level(logging.DEBUG), django_assert_max_num_queries(12) as captured:
        page = signed_in.post(
            at(acme, "webhook_verify", webhook.pk), {"headers": pasted(received(new_secret())), "body": "pasted-body"}
        )
    assert webhook.secret not in page.content.decode()
    assert not [
        query["sql"]
        for query in captured.captured_queries
        if query["sql"].split()[0] in ("INSERT", "UPDATE", "DELETE") and "pasted-body" in query["sql"]
    ]
    assert "pasted-body" not in caplog.text
    assert "no-store" in page["Cache-Control"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({}, "headers"),
        ({"headers": "", "body": BODY}, "headers"),
        ({"headers": "x" * 20_001}, "headers"),
        ({"headers": "a: b", "body": "x" * 300_001}, "body"),
        ({"headers": "a: b", "body": "a\0b"}, "body"),
        ({"headers": "a: b", "secret": "mine"}, "secret"),
        ({"headers": "a: b", "secret": "previous"}, "secret"),
    ],
)
def test_what_cannot_be_judged_is_said(
    acme: Cast, webhook: Webhook, signed_in: Client, data: dict[str, str], field: str
) -> None:
    page = signed_in.post(at(acme, "webhook_verify", webhook.pk), data)
    assert (page.status_code, list(page.context["form"].errors)) == (400, [field])
    assert page.context["verdict"] is None


def test_the_page_has_a_sample_in_every_language(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    text = signed_in.get(at(acme, "webhook_verify", webhook.pk)).content.decode()
    assert [sample.language for sample in SAMPLES] == ["Python", "Node", "PHP", "Go", "Java", "C#", "Ruby"]
    for sample in SAMPLES:
        assert f"<summary>{sample.language}</summary>" in text
    assert "hmac.compare_digest(expected, one)" in text


def test_a_verdict_shows_what_was_pasted_as_text(acme: Cast, webhook: Webhook, signed_in: Client) -> None:
    data = {"headers": "webhook-id: <script>1</script>", "body": "</textarea><script>2</script>"}
    text = signed_in.post(at(acme, "webhook_verify", webhook.pk), data).content.decode()
    assert "<script>1" not in text
    assert "<script>2" not in text


def test_those_who_manage_webhooks_may_verify(acme: Cast, webhook: Webhook, client: Client) -> None:
    for role, person in acme.people.items():
        client.force_login(person)
        expected = 200 if role in MANAGERS else 403
        data = {"headers": pasted(received(webhook.secret)), "body": BODY}
        assert client.post(at(acme, "webhook_verify", webhook.pk), data).status_code == expected, role


def test_another_organisations_webhook_is_not_there(acme: Cast, globex: Cast, signed_in: Client) -> None:
    theirs = make_webhook(globex)
    assert signed_in.get(at(acme, "webhook_verify", theirs.pk)).status_code == 404
    assert signed_in.post(at(acme, "webhook_verify", theirs.pk), {"headers": "a"}).status_code == 404
