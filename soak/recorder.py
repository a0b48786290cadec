"""Clients of the API that record events and never give up, whatever is killed meanwhile."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field

#: A client asks again after a failed call, seconds.
PAUSE = 0.1
#: Contacts of each client: its conversations.
CONTACTS = 6


@dataclass
class Recorder:
    """`clients` threads play `events` contact's messages in all. `acknowledged`: text → id of its message."""

    port: int
    key: str
    channel_id: str
    events: int
    #: What all texts begin with.
    prefix: str = ""
    clients: int = 8
    #: Calls that were not answered 201 and were made again.
    repeated: int = 0
    acknowledged: dict[str, str] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin to record."""
        for number in range(self.clients):
            thread = threading.Thread(target=self._guarded, args=(number,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def recording(self) -> bool:
        """Whether there is more to come."""
        return any(thread.is_alive() for thread in self.threads)

    def _guarded(self, number: int) -> None:
        try:
            self._record(number)
        except BaseException as error:
            self.errors.append(error)

    def _record(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for count in range(number, self.events, self.clients):
            address = f"4477{number:03}{count // self.clients % CONTACTS:05}"
            text = f"{self.prefix}{count}"
            while (found := self._call(connection, address, text)) is None:
                self.repeated += 1
                time.sleep(PAUSE)
            self.acknowledged[text] = found
        connection.close()

    def _call(self, connection: http.client.HTTPConnection, address: str, text: str) -> str | None:
        """One call; the id of the message it made, None when nobody knows whether it made one."""
        body = json.dumps({"channelId": self.channel_id, "outboundChannelAddress": address, "body": text})
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/api/v1/sandbox/inbound", body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            return None
        if answer.status == 201:
            return str(json.loads(data)["communicationActionId"])
        if answer.status < 500:
            raise RuntimeError(f"A message was refused with {answer.status}: {data[:300]!r}")
        return None
