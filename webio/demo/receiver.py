"""The customer's side of the demo: a small receiver that verifies every request and prints what it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from core.signing import Signature, verify

#: Whoever posts to an address with this end is told that the system behind it is down.
DOWN = "/warehouse"
#: What the sample customers' systems know, for custom value requests.
VALUES: dict[str, str | float | bool] = {
    "balance": "150.50",
    "currency": "EUR",
    "duedate": "2026-12-01",
    "fullname": "Aoife Kelly",
    "verified": True,
}


@dataclass
class Receiver:
    """Listens on 127.0.0.1:`port` in threads. `secrets` maps a path to the secret of the webhook that posts there."""

    port: int
    say: Callable[[str], None]
    secrets: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Raises `OSError` when the port is taken."""
        receiver = self

        class Handler(_Handler):
            owner = receiver

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        verdict = self._verdict(body)
        try:
            facts: dict[str, Any] = json.loads(body)
        except ValueError:
            facts = {}
        down = urlsplit(self.path).path.endswith(DOWN)
        self._tell(facts.get("type", "?"), _summary(facts), f"{verdict} · answered 503" if down else verdict)
        if down:
            self._answer(503, {"error": "warehouse is down"})
        else:
            self._answer(200, {"received": True})

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        names = [query[key][0] for key in sorted(query) if key.startswith("param")]
        self._tell("custom values", ", ".join(names), self._verdict(b""))
        self._answer(200, {name: VALUES[name] for name in names if name in VALUES})

    def _verdict(self, body: bytes) -> str:
        secret = self.owner.secrets.get(urlsplit(self.path).path)
        if secret is None:
            return "unknown endpoint"
        headers = {name.lower(): value for name, value in self.headers.items()}
        found: Signature = verify([secret], headers, body)
        return "signature valid" if found.valid else f"SIGNATURE INVALID ({found.reason})"

    def _tell(self, what: str, about: str, verdict: str) -> None:
        test = " test" if self.headers.get("x-webio-test") else ""
        self.owner.say(f"{urlsplit(self.path).path:<12} {what}{test} · {about} · {verdict}")

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Said by `_tell` instead."""


def _summary(facts: dict[str, Any]) -> str:
    data = facts.get("data", facts)
    parts = [f"conversation {data.get('conversationId', '?')}"]
    for key in ("body", "statusCode", "status", "queue", "assignedTo", "closedBy", "amount"):
        value = data.get(key)
        if value not in (None, ""):
            shown = value.get("name", "") if isinstance(value, dict) else str(value)
            parts.append(f"{key} {shown!r}")
    return ", ".join(parts)
