"""Parts come back when they die and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]

#: A part that starts a child which ignores SIGTERM, and writes both process ids down.
PART = """
import os, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
with open(sys.argv[1], "a") as pids:
    pids.write(f"{os.getpid()} {child.pid}\\n")
time.sleep(600)
"""

SUPERVISOR = """
import sys
from core.supervisor import Part, Supervisor
part = Part("part", [sys.executable, sys.argv[1], sys.argv[2]])
Supervisor([part], lambda text: print(text, flush=True)).run()
"""


def running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


class Tree:
    """A supervisor with one part that has a child."""

    def __init__(self, folder: Path) -> None:
        self.pids_file = folder / "pids"
        self.pids_file.touch()
        (folder / "part.py").write_text(textwrap.dedent(PART))
        (folder / "supervisor.py").write_text(textwrap.dedent(SUPERVISOR))
        command = [sys.executable, str(folder / "supervisor.py"), str(folder / "part.py"), str(self.pids_file)]
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT)

    def starts(self) -> list[tuple[int, int]]:
        """(part, its child) of every start so far."""
        lines = [line.split() for line in self.pids_file.read_text().splitlines()]
        return [(int(part), int(child)) for part, child in lines]

    def wait_for_start(self, number: int) -> tuple[int, int]:
        assert until(lambda: len(self.starts()) >= number, 10)
        return self.starts()[number - 1]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    until(lambda: not any(running(pid) for pair in made.starts() for pid in pair), 5)


def test_a_part_that_dies_is_started_again_and_its_children_are_gone(tree: Tree) -> None:
    part, child = tree.wait_for_start(1)
    os.kill(part, signal.SIGKILL)
    again, _ = tree.wait_for_start(2)
    assert again != part
    assert until(lambda: not running(child), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_everything(tree: Tree, number: int) -> None:
    part, child = tree.wait_for_start(1)
    tree.process.send_signal(number)
    assert tree.process.wait(12) == 0
    assert not running(part)
    assert until(lambda: not running(child), 2)


def test_when_the_supervisor_is_killed_everything_ends_within_two_seconds(tree: Tree) -> None:
    part, child = tree.wait_for_start(1)
    tree.process.kill()
    assert until(lambda: not running(part) and not running(child), 2.0)


def test_a_guardian_that_was_killed_is_replaced_and_knows_the_parts(tree: Tree) -> None:
    part, child = tree.wait_for_start(1)
    guardians = subprocess.run(
        ["pgrep", "-P", str(tree.process.pid), "-f", "core.supervisor"], capture_output=True, text=True
    ).stdout.split()
    assert len(guardians) == 1
    os.kill(int(guardians[0]), signal.SIGKILL)
    time.sleep(0.6)
    tree.process.kill()
    assert until(lambda: not running(part) and not running(child), 2.0)
