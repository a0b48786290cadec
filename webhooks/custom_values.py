"""The custom value request: one GET that asks a customer's endpoint for the values of `<<field>>`s.

The panel's test and the bots use this one client, so that a test shows what a run gets.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from django.utils.translation import gettext as _

from core.errors import Invalid
from core.outbound import BODY_KEPT, Outcome, Request
from core.text import FIELDS_MAX, clean_field_name, text_error
from webhooks.models import Webhook
from webhooks.single import send_single, single_request

#: Seconds from the first byte of the first try to the last byte of the last.
DEADLINE = 5.0
#: Seconds before the one retry after a connection failure.
RETRY_AFTER = 0.1
#: Failures after which no answer can have begun.
RETRIED = frozenset({"dns", "connect", "reset"})
PLACEHOLDER = re.compile(r"<<([^<>]*)>>")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint's answer gave: values by field, and the fields it gave none for.

    `problem` is "" or the reason why the answer as a whole, or some value in it, could not be used.
    """

    values: Mapping[str, str]
    missing: tuple[str, ...]
    problem: str = ""


def fields_in(text: str) -> list[str]:
    """Names of the `<<field>>`s in `text`, without repeats, in order of first use."""
    return list(dict.fromkeys(match.strip() for match in PLACEHOLDER.findall(text) if match.strip()))


def clean_fields(field_name: str, value: Any) -> list[str]:
    """Field names to ask for, without repeats, in order of first use. Raises `Invalid` naming `field_name`."""
    if not isinstance(value, list) or not value:
        raise Invalid.field(field_name, _("Must be a list of at least one field name."))
    if len(value) > FIELDS_MAX:
        raise Invalid.field(field_name, _("Must have at most %(maximum)d fields.") % {"maximum": FIELDS_MAX})
    return list(dict.fromkeys(clean_field_name(field_name, name) for name in value))


def build_url(callback_url: str, *, customer_uid: str, address: str, fields: Iterable[str]) -> str:
    """The URL that asks for `fields`: the callback URL with its own query kept and ours behind it.

    Fields are numbered from 1 in order of first use; everything is percent-encoded (RFC 3986, a space is %20).
    """
    pairs = [("customerUID", customer_uid), ("outboundChannelAddress", address)]
    pairs += [(f"param{number}", name) for number, name in enumerate(dict.fromkeys(fields), start=1)]
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    parts = urlsplit(callback_url)
    own = parts.query.rstrip("&")
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", f"{own}&{query}" if own else query, ""))


def parse_answer(body: bytes, fields: Iterable[str]) -> Answer:
    """Read an endpoint's answer: a JSON object by field name, or a list of `{"name", "value"}`.

    Strings, numbers and booleans are values; null and an absent field are missing, and so is a nested value and text
    with NUL or a lone surrogate, which are named in `problem`. Numbers keep the digits they were sent with.
    """
    asked = tuple(dict.fromkeys(fields))
    try:
        data = json.loads(body, parse_float=_Digits, parse_int=_Digits, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Answer({}, asked, _("The answer is not JSON."))
    if isinstance(data, list):
        if not all(isinstance(item, dict) and isinstance(item.get("name"), str) for item in data):
            return Answer({}, asked, _('The list must hold objects with "name" and "value".'))
        data = {item["name"]: item.get("value") for item in data}
    if not isinstance(data, dict):
        return Answer({}, asked, _("The answer must be a JSON object or a list of name and value."))
    values = {}
    unusable = []
    for name in asked:
        value = data.get(name)
        if isinstance(value, dict | list) or (isinstance(value, str) and text_error(value, maximum=BODY_KEPT)):
            unusable.append(name)
        elif value is not None:
            values[name] = str(value).lower() if isinstance(value, bool) else str(value)
    problem = ""
    if unusable:
        problem = _("Not a usable string, number or boolean: %(names)s.") % {"names": ", ".join(unusable)}
    return Answer(values, tuple(name for name in asked if name not in values), problem)


class _Digits(str):
    """A JSON number as it was written: 150.50 must not become 150.5."""


def _refuse_constant(name: str) -> Any:
    """NaN and Infinity are no JSON (RFC 8259 §6)."""
    raise ValueError(name)


@dataclass(frozen=True, slots=True)
class Lookup:
    """One custom value request: what was asked, what came back and what it gave."""

    request: Request
    outcome: Outcome
    answer: Answer


def ask(
    webhook: Webhook,
    *,
    fields: Sequence[str],
    customer_uid: str = "",
    address: str = "",
    extra: Sequence[tuple[str, str]] = (),
) -> Lookup:
    """Ask `webhook` for `fields`, all in one request. Never raises for what the endpoint does.

    5 seconds for everything; when no connection could be made or it broke before an answer, one more try within
    them. Without a usable answer every field is missing. Must not run inside a transaction. `extra` headers go along.
    """
    started = time.monotonic()
    url = build_url(webhook.callback_url, customer_uid=customer_uid, address=address, fields=fields)
    # Of no event: each request is a message of its own, and its retry the same one.
    identifier = f"req_{uuid.uuid4().hex}"
    request = single_request(webhook, "GET", url, identifier=identifier, deadline=DEADLINE, extra=extra)
    outcome = send_single(webhook, request)
    left = DEADLINE - (time.monotonic() - started) - RETRY_AFTER
    if outcome.status is None and outcome.error in RETRIED and left > 0:
        time.sleep(RETRY_AFTER)
        outcome = send_single(webhook, replace(request, deadline=left))
    return Lookup(request, outcome, read(outcome, fields))


def read(outcome: Outcome, fields: Sequence[str]) -> Answer:
    """What an outcome gave: its body, when it is a whole 2xx answer, else nothing."""
    if outcome.error:
        return Answer({}, tuple(fields), outcome.detail)
    if not outcome.ok:
        return Answer({}, tuple(fields), _("The endpoint answered %(status)s.") % {"status": outcome.status})
    if outcome.truncated:
        return Answer({}, tuple(fields), _("The answer is longer than %(limit)d bytes.") % {"limit": BODY_KEPT})
    return parse_answer(outcome.body, fields)
