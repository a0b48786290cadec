"""Events pulled from a platform and posted to a developer's own machine, as a webhook would post them.

Runs where the developer is and knows the platform by its API only: no database. Both addresses are the developer's own,
so they are called without the guard that customers' addresses need.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
import requests

from conversations.events import EVENT_TYPES
from core.signing import Signer
from webhooks.engine.outgoing import DEADLINE, USER_AGENT, signed_headers
from webhooks.payloads import Facts, message_id, render

WAIT_SECONDS = 30
CONNECT_SECONDS = 5.0
#: Seconds to the first and at most between further tries, and at least between two pulls that brought nothing.
RETRY_FIRST = 1.0
RETRY_MOST = 30.0
PAUSE_SECONDS = 1.0


class Refused(Exception):
    """The platform will not answer, however often it is asked."""


def body_of(event: dict[str, Any], format: str, time_zone: str) -> bytes:
    """The body that a webhook of `format` would get for an event of the pull, which is in the standard format."""
    if format == "standard":
        return orjson.dumps(event)
    data = event["data"]
    kind = EVENT_TYPES[event["type"]]
    same = () if kind.operational else ("conversationId", "outboundChannelAddress", "inboundChannelAddress")
    facts = Facts(
        id=number_of(event),
        type=kind.name,
        seq=data.get("sequence", 0),
        data={
            **{name: data[name] for name in same},
            "customerUID": data.get("customerUID") or "",
            "timeZone": time_zone,
            "facts": {name: data[name] for name in kind.facts},
        },
        created_at=datetime.fromisoformat(event["timestamp"]),
    )
    return render(facts, format)


def number_of(event: dict[str, Any]) -> int:
    """The event's number."""
    return int(event["id"].removeprefix("evt_"))


@dataclass
class Listener:
    """Pulls from `platform` with `key`, posts to `forward`, and says what came of it."""

    platform: str
    key: str
    forward: str
    signer: Signer
    say: Callable[[str], None]
    format: str = "webio"
    #: Subscription names; empty for all.
    events: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The cursor to begin behind.
    after: str = "latest"
    #: Behind what was last forwarded; "" before the platform has given or taken one.
    cursor: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._api = requests.Session()
        self._api.headers["Authorization"] = f"Bearer {self.key}"
        self._local = requests.Session()
        self._local.headers.clear()
        # No proxy of the environment leads to this machine.
        self._local.trust_env = False
        self._time_zone = ""

    def run(self) -> None:
        """Until interrupted. Raises `Refused`."""
        organisation = self._ask("organisation", {})
        self._time_zone = organisation["timeZone"]
        self.say(f"events of {organisation['name']} → {self.forward}")
        page = self._ask("events", {"after": self.after, "limit": "1"})
        self.cursor = page["next"] if self.after == "latest" else self.after
        while True:
            self.turn()

    def turn(self) -> None:
        """One pull, and what it brought."""
        began = time.monotonic()
        page = self._ask("events", {"after": self.cursor, "wait": str(WAIT_SECONDS)})
        for event in page["results"]:
            if not self.events or event["type"] in self.events:
                self._deliver(event)
        self.cursor = page["next"]
        if not page["results"]:
            # It may not have let us wait.
            time.sleep(max(0.0, began + PAUSE_SECONDS - time.monotonic()))

    def _ask(self, path: str, query: Mapping[str, str]) -> Any:
        """The answer to a GET of the API, asked for until there is one. Raises `Refused`."""
        pause = RETRY_FIRST
        while True:
            try:
                answer = self._api.get(
                    f"{self.platform}/api/v1/{path}",
                    params=query,
                    timeout=(CONNECT_SECONDS, WAIT_SECONDS + 15),
                    allow_redirects=False,
                )
                if answer.status_code == 200:
                    found = answer.json()
                    wait = retry_after(answer)
                    if wait is not None and not found.get("results"):
                        time.sleep(wait)
                    return found
                trouble = f"{self.platform} answered {answer.status_code}{detail(answer)}"
                if answer.status_code < 500 and answer.status_code != 429:
                    raise Refused(trouble)
                pause = retry_after(answer) or pause
            except requests.RequestException as error:
                trouble = f"{self.platform}: {reason(error)}"
            self.say(f"{trouble}; again in {pause:g} s")
            time.sleep(pause)
            pause = min(pause * 2, RETRY_MOST)

    def _deliver(self, event: dict[str, Any]) -> None:
        """Post it. Whatever is answered counts; without an answer because nobody listens it is posted again."""
        body = body_of(event, self.format, self._time_zone)
        identifier = message_id(number_of(event), 0)
        pause = RETRY_FIRST
        while True:
            began = time.monotonic()
            lines = signed_headers(self.signer, identifier, body, int(time.time()))
            headers = {
                "content-type": "application/json",
                "user-agent": USER_AGENT,
                **self.headers,
                **dict(line.split(": ", 1) for line in lines),
            }
            try:
                with self._local.post(
                    self.forward,
                    data=body,
                    headers=headers,
                    timeout=(CONNECT_SECONDS, DEADLINE),
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    result = str(answer.status_code)
            except requests.Timeout:
                result = f"no answer within {DEADLINE:g} s"
            except requests.RequestException as error:
                self.say(f"{event['type']} {event['id']} → {reason(error)}; again in {pause:g} s")
                time.sleep(pause)
                pause = min(pause * 2, RETRY_MOST)
                continue
            self.say(f"{event['type']} {event['id']} → {result} in {(time.monotonic() - began) * 1000:.0f} ms")
            return


def retry_after(answer: requests.Response) -> float | None:
    """The seconds of `Retry-After`, None without."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 3600.0) if text.isascii() and text.isdigit() else None


def detail(answer: requests.Response) -> str:
    """What a refusal says."""
    try:
        found = answer.json()["detail"]
    except (json.JSONDecodeError, LookupError, TypeError):
        return ""
    return f": {found}"


def reason(error: requests.RequestException) -> str:
    """Why there was no answer, in words for a line."""
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate or TLS connection is not valid"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.exceptions.InvalidJSONError):
        return "the answer is no JSON"
    return str(error)
