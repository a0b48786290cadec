"""Why a receiver refused a request: the same checks, step by step, with the webhook's own secrets.

What is judged was copied by a person from a log or a debugger, so headers are read in whatever form they are found, and
a body that does not match is tried in the forms in which bodies get spoiled. Nothing is stored and no secret is shown.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.events import EVENT_TYPES
from conversations.models import Event
from core.signing import Signature, verify
from webhooks.models import Webhook
from webhooks.payloads import render

HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")
#: `webhook-id: x`, `> Webhook-Id: x` of curl, `"webhook-id": "x",` of a printed object, `HTTP_WEBHOOK_ID => x`.
_LINE = re.compile(r"""(?i).*?\b(?:http_)?webhook[-_](id|timestamp|signature)["']?[ \t]*(?:=>|:|=)[ \t]*["']?(.*)""")
_AROUND = "\"'\\;, \t"
_ID = re.compile(r"msg_([0-9]{1,18})_([0-9]{1,18})")

#: Which secrets are used. Both is what is in force.
PRESENT, PREVIOUS, BOTH = "present", "previous", "both"

#: The checks in their order: the codes of `core.signing` that fail them, and what they look at.
CHECKS: tuple[tuple[tuple[str, ...], str | Promise], ...] = (
    (("missing_header",), gettext_lazy("The three headers are there")),
    (("bad_timestamp",), gettext_lazy("The timestamp is a whole number of seconds")),
    (("too_old", "too_new"), gettext_lazy("The timestamp is at most five minutes from now")),
    (("bad_format",), gettext_lazy("The signature header holds a v1 signature")),
    (("no_match",), gettext_lazy("A signature matches the headers, the body and a secret")),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One check: "passed", "failed", or "open" because one before it failed."""

    label: str | Promise
    state: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of the checks. `hints` say what may be the reason, likeliest first."""

    signature: Signature
    checks: Sequence[Check]
    hints: Sequence[str]
    #: "present" or "previous": the secret that matched.
    matched: str = ""


def read_headers(text: str) -> dict[str, str]:
    """The three headers of a request by lower-case name, wherever they were copied from. Others are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            found.setdefault(f"webhook-{match[1].lower()}", match[2].rstrip(_AROUND))
    return found


def secrets_of(webhook: Webhook, which: str) -> dict[str, str]:
    """The webhook's secrets to judge with, by name."""
    known = {PRESENT: webhook.secret}
    if webhook.previous_secret and (which == PREVIOUS or webhook.overlap_until is not None):
        known[PREVIOUS] = webhook.previous_secret
    return {name: secret for name, secret in known.items() if which in (BOTH, name)}


def examine(webhook: Webhook, headers: Mapping[str, str], body: str, *, which: str = BOTH) -> Verdict:
    """Judge a received request. A body from a form has line breaks as browsers send them, which are undone first."""
    secrets = secrets_of(webhook, which)
    raw = body.replace("\r\n", "\n").encode()
    signature = (
        verify(list(secrets.values()), headers, raw, at=time.time()) if secrets else Signature(False, "no_match")
    )
    if signature.valid:
        return Verdict(signature, _checks(""), (), _matched(secrets, headers, raw))
    return Verdict(signature, _checks(signature.code), tuple(_hints(webhook, signature.code, secrets, headers, raw)))


def _checks(failed: str) -> list[Check]:
    checks = []
    state = "passed"
    for codes, label in CHECKS:
        if failed in codes:
            checks.append(Check(label, "failed"))
            state = "open"
        else:
            checks.append(Check(label, state))
    return checks


def _matched(secrets: Mapping[str, str], headers: Mapping[str, str], raw: bytes) -> str:
    return next((name for name, secret in secrets.items() if verify([secret], headers, raw).valid), "")


def _hints(
    webhook: Webhook, code: str, secrets: Mapping[str, str], headers: Mapping[str, str], raw: bytes
) -> Iterator[str]:
    if code == "missing_header":
        if not headers:
            yield _("None of the three was found. Paste one header a line, as “name: value”.")
        yield _("Proxies and frameworks may drop or rename headers: look at what reaches your code.")
    elif code == "bad_timestamp":
        yield _("It is sent as digits only. Was it parsed as a date, or cut?")
    elif code == "too_old":
        if _genuine(secrets, headers, raw):
            yield _("Apart from its age the request is genuine: what you pasted simply was received a while ago.")
        yield _("If it was refused when it arrived: the receiver's clock is ahead, or the request waited in a queue.")
        yield _("Every attempt is signed anew with its own time: use the headers of the attempt you look at.")
    elif code == "too_new":
        if _genuine(secrets, headers, raw):
            yield _("Apart from its time the request is genuine.")
        yield _("Is it in milliseconds? It is sent in seconds since 1970.")
    elif code == "bad_format":
        yield _("It is sent as “v1,” and base64; two of these, separated by a space, while a secret rotates.")
    elif code == "no_match":
        yield from _mismatch(webhook, secrets, headers, raw)


def _genuine(secrets: Mapping[str, str], headers: Mapping[str, str], raw: bytes) -> bool:
    return verify(list(secrets.values()), headers, raw).valid


def _mismatch(webhook: Webhook, secrets: Mapping[str, str], headers: Mapping[str, str], raw: bytes) -> Iterator[str]:
    """The body in other forms, the body that was sent, other secrets: whatever makes the signature match."""
    for hint, other in _spoiled(raw):
        if other != raw and _genuine(secrets, headers, other):
            yield hint
            return
    sent = _sent_bodies(webhook, headers["webhook-id"])
    for body in sent:
        if _genuine(secrets, headers, body):
            yield _(
                "Headers and secret are right, but the body is not the one that was sent: from byte %(number)d on."
            ) % {"number": _first_difference(raw, body) + 1}
            yield _("Sign the raw bytes as they came: JSON that was parsed and written again is another text.")
            return
    if whose := _other_secret(webhook, secrets, headers, [raw, *sent]):
        yield whose
        return
    yield _("The receiver may have the secret of another webhook, or an old one.")
    yield _("The body must be the raw bytes as they came: not parsed and written again, not trimmed, not re-encoded.")
    yield _("webhook-id and webhook-timestamp are signed too: use those of the same attempt.")


def _spoiled(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """What usually happens to a body, and the body without it."""
    yield _("It matches without the white space around the body: was a line break added at the end?"), raw.strip()
    yield _("It matches with a line break at the end of the body: was it cut off?"), raw + b"\n"
    yield _("It matches with the line breaks of Windows: were they changed?"), raw.replace(b"\n", b"\r\n")
    try:
        compact = orjson.dumps(orjson.loads(raw))
    except orjson.JSONDecodeError:
        return
    yield _("It matches without white space and escapes in the JSON: it was parsed and written again."), compact


def _sent_bodies(webhook: Webhook, identifier: str) -> list[bytes]:
    """What may have been sent to the webhook under a `webhook-id`, which its format then decided."""
    match = _ID.fullmatch(identifier)
    if match is None or int(match[2]) != webhook.pk:
        return []
    event = Event.objects.filter(organisation=webhook.organisation, pk=int(match[1]), type__in=EVENT_TYPES).first()
    return [] if event is None else [render(event, format) for format in Webhook.Format.values]


def _first_difference(one: bytes, other: bytes) -> int:
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def _other_secret(
    webhook: Webhook, secrets: Mapping[str, str], headers: Mapping[str, str], bodies: Sequence[bytes]
) -> str:
    """A hint that names whose secret makes it match, "" when none of the organisation's does."""
    for other in Webhook.objects.filter(organisation=webhook.organisation, archived_at=None):
        for name, secret in ((PRESENT, other.secret), (PREVIOUS, other.previous_secret)):
            if not secret or secret in secrets.values():
                continue
            if not any(verify([secret], headers, body).valid for body in bodies):
                continue
            if other.pk != webhook.pk:
                return _("It is signed with the secret of another webhook: %(name)s.") % {"name": other.name}
            if name == PRESENT:
                return _("It is signed with the present secret.")
            return _("It is signed with the secret before the latest rotation: the receiver needs the present one.")
    return ""
