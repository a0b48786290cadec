"""A small supervisor: parts run as process groups of their own, come back when they die, and never outlive it.

A process that is killed with SIGKILL cannot take its children with it, and the parts fork children of their own.
So the first thing started is a guardian: it holds the reading end of a pipe whose writing end only the supervisor
has. When the supervisor is gone, by whatever means, the pipe ends and the guardian kills every group it was told of.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

PR_SET_PDEATHSIG = 1
#: How long a part may take to end on its own, seconds.
STOP_SECONDS = 8.0
#: How long what is left may take when the supervisor is gone, seconds.
ORPHAN_SECONDS = 0.5
BACK_OFF = (0.2, 0.5, 1.0, 2.0, 5.0)
#: A part that lived this long starts its back-off anew, seconds.
HEALTHY_SECONDS = 30.0


def guard(pipe: int) -> None:
    """The guardian's whole life: read `+<group>` and `-<group>` lines until the pipe ends, then kill the groups."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A Ctrl-C reaches everybody in the terminal; the guardian leaves last.
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    with os.fdopen(pipe, "r") as lines:
        for line in lines:
            group = int(line[1:])
            groups.add(group) if line[0] == "+" else groups.discard(group)
    for group in groups:
        _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < deadline and any(_group_alive(group) for group in groups):
        time.sleep(0.05)
    for group in groups:
        _signal_group(group, signal.SIGKILL)


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent is gone; elsewhere the guardian alone does it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@dataclass
class Part:
    """Something to keep running: a name for messages, a command, and what its environment has besides ours.

    It is stopped with `stop_signal`, sent to its leader or, with `stop_group`, to all its processes.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: int = signal.SIGTERM
    stop_group: bool = False
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    start_at: float = 0.0


class Supervisor:
    """Runs parts until SIGINT or SIGTERM. `tick` is called every `tick_seconds`; what it raises is said, not fatal."""

    def __init__(
        self,
        parts: Sequence[Part],
        say: Callable[[str], None],
        tick: Callable[[], None] | None = None,
        tick_seconds: float = 5.0,
    ) -> None:
        self.parts = list(parts)
        self.say = say
        self.tick = tick
        self.tick_seconds = tick_seconds
        self.stopping = False
        self._guardian: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def run(self) -> None:
        """Start everything, restart what dies, and return when told to stop and everything has ended."""
        wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)

        def stop(*_: object) -> None:
            self.stopping = True
            with contextlib.suppress(BlockingIOError):
                os.write(wake_writer, b"x")

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        next_tick = time.monotonic()
        try:
            while not self.stopping:
                self._keep_guardian()
                for part in self.parts:
                    self._keep(part)
                if self.tick is not None and time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + self.tick_seconds
                    try:
                        self.tick()
                    except Exception as error:
                        self.say(f"keep-alive failed: {error}")
                select.select([wake_reader], [], [], 0.2)
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(wake_reader)
            os.close(wake_writer)

    def _keep_guardian(self) -> None:
        if self._guardian is not None and self._guardian.poll() is None:
            return
        if self._pipe >= 0:
            os.close(self._pipe)
        reader, self._pipe = os.pipe()
        command = [sys.executable, "-m", "core.supervisor", str(reader)]
        # Its own session: neither a terminal's signals nor our group's end reach it.
        self._guardian = subprocess.Popen(command, pass_fds=(reader,), start_new_session=True)
        os.close(reader)
        for part in self.parts:
            if part.process is not None:
                self._tell(f"+{part.process.pid}")

    def _tell(self, line: str) -> None:
        # A guardian that just died is replaced at the next look and told everything.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, f"{line}\n".encode())

    def _keep(self, part: Part) -> None:
        now = time.monotonic()
        if part.process is not None and part.process.poll() is None:
            return
        if part.process is not None:
            # Its children may still be there.
            _signal_group(part.process.pid, signal.SIGKILL)
            self._tell(f"-{part.process.pid}")
            lived = now - part.started_at
            part.deaths = 1 if lived > HEALTHY_SECONDS else part.deaths + 1
            wait = BACK_OFF[min(part.deaths, len(BACK_OFF)) - 1]
            part.start_at = now + wait
            self.say(f"{part.name} ended with {part.process.returncode}; starting it again in {wait} s")
            part.process = None
        if now >= part.start_at:
            part.process = subprocess.Popen(
                part.command,
                env={**os.environ, **part.environment},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            part.started_at = now
            self._tell(f"+{part.process.pid}")

    def _stop_all(self) -> None:
        running = [part for part in self.parts if part.process is not None]
        for part in running:
            assert part.process is not None
            if part.stop_group:
                _signal_group(part.process.pid, part.stop_signal)
            else:
                part.process.send_signal(part.stop_signal)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(part.process.poll() is None for part in running):  # type: ignore[union-attr]
            time.sleep(0.05)
        for part in running:
            assert part.process is not None
            _signal_group(part.process.pid, signal.SIGKILL)
            part.process.wait()
            self._tell(f"-{part.process.pid}")
        if self._guardian is not None:
            os.close(self._pipe)
            self._pipe = -1
            self._guardian.wait()
            self._guardian = None


if __name__ == "__main__":
    guard(int(sys.argv[1]))
