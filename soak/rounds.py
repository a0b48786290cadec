"""One round: record, kill, wait until everything is delivered, and judge what arrived."""

from __future__ import annotations

import json
import random
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

from benchmarks.common import bootstrap
from soak.endpoint import Arrival, Book, running_book
from soak.platform import Platform, running_platform
from soak.recorder import Recorder
from soak.servers import Postgresql, Sqlite, own_server

Server = Sqlite | Postgresql

#: After the last kill everything is delivered within so many seconds and one more for every 100 events.
RECOVERY_SECONDS = 120.0
#: Recording that makes no progress for so long has failed, seconds.
STUCK_SECONDS = 90.0
#: So long a part that is to be killed may be absent, as it was killed before, seconds.
ABSENT_SECONDS = 60.0
#: Ways to kill a database, taken in turn by all rounds on it: so none is without a SIGKILL to the whole server.
MANNERS = ("server", "server process", "connections")

#: What a killed process held is free after so many seconds: twice as long as it takes the living to renew theirs. Freed
#: at once, what the living hold would be served by two for as long.
HURRY = {
    "UPDATE core_slot SET lease_until = '{0}' WHERE lease_until > '{0}'": 4.0,
    "UPDATE core_slot SET queued_until = '{0}' WHERE queued_until > '{0}'": 4.0,
    "UPDATE webhooks_lease SET until = '{0}' WHERE until > '{0}'": 10.0,
}
_LATEST = "SELECT max(id) FROM conversations_event"
_EVENTS = "SELECT id, conversation_id, seq FROM conversations_event WHERE type = 'inboundMessage'"
_OPEN = """
SELECT (SELECT count(*) FROM conversations_undispatched),
       (SELECT count(*) FROM webhooks_delivery WHERE state <> 'delivered')
"""
_DELIVERIES = "SELECT webhook_id, event_id, state FROM webhooks_delivery"
_MESSAGES = "SELECT id, body FROM conversations_message WHERE direction = 'inbound'"


@dataclass
class Report:
    """What came of a round. `faults` is empty when every promise was kept."""

    events: int
    arrivals: int
    #: Arrivals of what the endpoint had accepted before.
    duplicates: int
    #: Arrivals of what it had refused.
    retries: int
    #: API calls that were made again because something had been killed.
    repeated: int
    kills: dict[str, int] = field(default_factory=dict)
    #: From the end of the last kill until everything was delivered.
    recovery: float = 0.0
    seconds: float = 0.0
    lost: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        killed = ", ".join(f"{part} {count}" for part, count in sorted(self.kills.items()))
        return (
            f"{self.events} events, {self.arrivals} arrivals, lost {self.lost}, duplicates {self.duplicates}, "
            f"retries {self.retries}, calls repeated {self.repeated}, killed {killed}; "
            f"{self.recovery:.0f} s from the last kill to the last delivery, {self.seconds:.0f} s in all"
        )


@dataclass
class Stage:
    """A platform on a database of its own, with an organisation and two webhooks of one endpoint."""

    server: Server
    platform: Platform
    book: Book
    key: str
    channel_id: str
    #: Each webhook's order by its id.
    webhooks: dict[int, str]
    rounds: int = 0
    manners: Iterator[str] = field(default_factory=lambda: cycle(MANNERS))


@contextmanager
def running_stage(kind: str) -> Iterator[Stage]:
    """A stage on an empty database, "sqlite" or "postgresql"."""
    with (
        own_server(kind) as server,
        running_book() as (book, receiver),
        tempfile.TemporaryDirectory(prefix="webio-soak-") as counts,
    ):
        made = bootstrap(server.url, "Soak")
        with running_platform(server.url, Path(counts)) as platform:
            webhooks = make_webhooks(platform, made["apiKey"], f"http://127.0.0.1:{receiver.port}")
            yield Stage(server, platform, book, made["apiKey"], made["channelId"], webhooks)


def play(stage: Stage, events: int, kills: int, chance: random.Random, *, hurry: bool = False) -> Report:
    """One round on a stage where everything has been delivered.

    `hurry` frees what killed processes had leased sooner, so that a short round need not wait for so much time to pass.
    """
    began = time.monotonic()
    stage.rounds += 1
    before = stage.server.rows(_LATEST)[0][0] or 0
    arrived = len(stage.book.arrivals)
    recorder = Recorder(stage.platform.port, stage.key, stage.channel_id, events, f"{stage.rounds}-")
    recorder.start()
    killed = kill_meanwhile(stage, recorder, kills, chance, hurry)
    last_kill = time.monotonic()
    left = wait_until_delivered(stage.server, RECOVERY_SECONDS + events / 100)
    recovery = time.monotonic() - last_kill
    report = judge(stage, recorder, before, stage.book.arrivals[arrived:])
    report.kills, report.recovery, report.seconds = dict(killed), recovery, time.monotonic() - began
    if left:
        report.faults.append(f"after {recovery:.0f} s there were left: {left}")
    report.faults += [f"recording: {error!r}" for error in recorder.errors]
    return report


def make_webhooks(platform: Platform, key: str, receiver: str) -> dict[int, str]:
    """Two webhooks for what is recorded; each one's order by its id."""
    found = {}
    for ordering in ("first", "strict"):
        body = {"name": ordering, "callbackUrl": f"{receiver}/{ordering}", "events": ["inboundMessage"]}
        request = urllib.request.Request(
            f"{platform.url}/api/v1/webhooks",
            json.dumps({**body, "ordering": ordering}).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found[int(json.loads(answer.read())["id"])] = ordering
    return found


def kill_meanwhile(stage: Stage, recorder: Recorder, kills: int, chance: random.Random, hurry: bool) -> Counter[str]:
    """Kill each kind of part in turn at random points of the recording. Returns what was killed how often."""
    victims = (["database"] if isinstance(stage.server, Postgresql) else []) + ["engine", "web"]
    order = [victims[number % len(victims)] for number in range(kills)]
    chance.shuffle(order)
    points = sorted(chance.randrange(recorder.events) for _ in order)
    done: Counter[str] = Counter()
    for point, victim in zip(points, order, strict=True):
        wait_for_progress(recorder, point)
        time.sleep(chance.random() / 5)
        victim = next(stage.manners) if victim == "database" else victim
        kill(stage.platform, stage.server, victim, chance)
        done[victim] += 1
        if hurry:
            free_leases(stage.server)
    wait_for_progress(recorder, recorder.events)
    return done


def kill(platform: Platform, server: Server, victim: str, chance: random.Random) -> None:
    """Kill one part, or the database in one of `MANNERS`, once there is something of it.

    A server that is down is started again, as an operator's supervisor would. Raises `TimeoutError` when nothing comes.
    """
    deadline = time.monotonic() + ABSENT_SECONDS
    while not strike(platform, server, victim, chance):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"There was nothing to kill of {victim} for {ABSENT_SECONDS} s.")
        time.sleep(0.05)
    if victim == "server":
        assert isinstance(server, Postgresql)
        time.sleep(chance.random())
        server.start()


def strike(platform: Platform, server: Server, victim: str, chance: random.Random) -> int:
    """Kill what there is of a part; how many processes or connections that was."""
    if victim not in MANNERS:
        return platform.kill(victim, chance)
    assert isinstance(server, Postgresql)
    return {"server": server.kill, "server process": server.kill_one, "connections": server.terminate_all}[victim]()


def free_leases(server: Server) -> None:
    """See `HURRY`."""
    for statement, seconds in HURRY.items():
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        for _ in range(50):
            try:
                server.rows(statement.format(at.isoformat(" ")))
                break
            except Exception:
                # It has just been killed.
                time.sleep(0.1)


def wait_for_progress(recorder: Recorder, count: int) -> None:
    """Until so many events were acknowledged, or recording ended. Raises `TimeoutError` when nothing moves."""
    seen, moved_at = -1, time.monotonic()
    while len(recorder.acknowledged) < count and recorder.recording():
        if len(recorder.acknowledged) > seen:
            seen, moved_at = len(recorder.acknowledged), time.monotonic()
        if time.monotonic() - moved_at > STUCK_SECONDS:
            raise TimeoutError(f"No event was acknowledged for {STUCK_SECONDS} s after {seen}.")
        time.sleep(0.005)


def wait_until_delivered(server: Server, seconds: float) -> str:
    """Wait until no event waits and every delivery is delivered; "" or what was left."""
    deadline = time.monotonic() + seconds
    left: tuple[int, ...] = ()
    while time.monotonic() < deadline:
        with suppress(Exception):
            left = server.rows(_OPEN)[0]
            if not any(left):
                return ""
        time.sleep(0.25)
    return f"{left} events without deliveries, deliveries not delivered"


def judge(stage: Stage, recorder: Recorder, before: int, arrivals: list[Arrival]) -> Report:
    """Compare the rows of events after `before` with what arrived."""
    rows = stage.server.rows(f"{_EVENTS} AND id > {before}")
    states = {(webhook, event): state for webhook, event, state in stage.server.rows(_DELIVERIES)}
    report = Report(len(rows), len(arrivals), 0, 0, recorder.repeated)
    check_recorded(stage.server, recorder, report)
    for pk, ordering in stage.webhooks.items():
        lanes = {f"msg_{event}_{pk}": (conversation, seq) for event, conversation, seq in rows}
        own = [arrival for arrival in arrivals if arrival.path == f"/{ordering}"]
        check_arrivals(ordering, lanes, own, report)
        undelivered = sum(states.get((pk, event)) != "delivered" for event, _conversation, _seq in rows)
        if undelivered:
            report.faults.append(f"{ordering}: {undelivered} events are not marked as delivered")
    return report


def check_recorded(server: Server, recorder: Recorder, report: Report) -> None:
    """What the API acknowledged is in the database, though it was killed right afterwards."""
    messages = {str(pk): body for pk, body in server.rows(_MESSAGES)}
    gone = [text for text, pk in recorder.acknowledged.items() if messages.get(pk) != text]
    if gone:
        report.lost += len(gone)
        report.faults.append(f"{len(gone)} acknowledged messages are not in the database, such as {gone[:3]}")
    if len(recorder.acknowledged) != recorder.events or report.events < recorder.events:
        report.faults.append(f"{len(recorder.acknowledged)} of {recorder.events} were recorded, {report.events} rows")


def check_arrivals(ordering: str, lanes: dict[str, tuple[int, int]], arrivals: list[Arrival], report: Report) -> None:
    """Every event arrived and was accepted, each copy the same, in its conversation's order."""
    accepted: set[str] = set()
    digests: dict[str, bytes] = {}
    latest: dict[int, int] = {}
    unfinished: dict[int, set[int]] = {}
    for arrival in arrivals:
        name = arrival.identifier
        if name not in lanes:
            report.faults.append(f"{ordering}: {name} arrived and is no event")
            continue
        conversation, seq = lanes[name]
        if name not in digests:
            digests[name] = arrival.digest
            if seq < latest.get(conversation, 0):
                report.faults.append(f"{ordering}: {name} came after a later one of its conversation")
            latest[conversation] = max(seq, latest.get(conversation, 0))
            if ordering == "strict" and unfinished.get(conversation):
                report.faults.append(f"strict: {name} came before an earlier one had ended")
        elif name in accepted:
            report.duplicates += 1
        else:
            report.retries += 1
        if arrival.digest != digests[name]:
            report.faults.append(f"{ordering}: {name} came with another body")
        if arrival.accepted:
            accepted.add(name)
            unfinished.setdefault(conversation, set()).discard(seq)
        else:
            unfinished.setdefault(conversation, set()).add(seq)
    lost = len(lanes) - len(accepted)
    if lost:
        report.lost += lost
        report.faults.append(f"{ordering}: {lost} events were never accepted")
