"""The samples of verification, each run as it is shown, with genuine and with forged requests."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from core.signing import new_secret, sign
from webhooks.verify_samples import FOLDER, SAMPLES, Sample, text_of

pytestmark = pytest.mark.once

DRIVERS = Path(__file__).parent / "verify_drivers"
#: Language → the program it takes, files beside the sample's, and how to run all of them in a folder.
RUN: dict[str, tuple[str, list[str], list[list[str]]]] = {
    "Python": (sys.executable, ["driver.py"], [[sys.executable, "driver.py"]]),
    "Node": ("node", ["driver.js"], [["node", "driver.js"]]),
    "PHP": ("php", ["driver.php"], [["php", "driver.php"]]),
    "Go": ("go", ["driver.go"], [["go", "run", "driver.go", "genuine.go"]]),
    "Java": ("javac", ["Driver.java"], [["javac", "Genuine.java", "Driver.java"], ["java", "-cp", ".", "Driver"]]),
    "C#": ("dotnet", ["Driver.cs", "driver.csproj"], [["dotnet", "run", "--project", "driver.csproj"]]),
    "Ruby": ("ruby", ["driver.rb"], [["ruby", "driver.rb"]]),
}
BODY = '{"type":"inboundMessage","body":"Grüße 😀"}'.encode()
SECRET, OTHER = new_secret(), new_secret()


@dataclass(frozen=True)
class Case:
    """A request, None for a missing header, and whether it is genuine."""

    name: str
    genuine: bool
    timestamp: str | None
    signature: str | None
    identifier: str | None = "msg_1_2"
    body: bytes = BODY


def cases() -> list[Case]:
    """Everything that may arrive."""
    now = int(time.time())
    right = sign([SECRET], "msg_1_2", now, BODY)
    bare = right.removeprefix("v1,")

    def at(moment: int) -> tuple[str, str]:
        return str(moment), sign([SECRET], "msg_1_2", moment, BODY)

    return [
        Case("genuine", True, str(now), right),
        Case("rotating, the receiver has the old secret", True, str(now), sign([OTHER, SECRET], "msg_1_2", now, BODY)),
        Case("rotating, the receiver has the new secret", True, str(now), sign([SECRET, OTHER], "msg_1_2", now, BODY)),
        Case("beside a signature of another kind", True, str(now), f"v1a,abc {right}"),
        Case("without a body", True, str(now), sign([SECRET], "msg_1_2", now, b""), body=b""),
        Case("bytes that are no text", True, str(now), sign([SECRET], "msg_1_2", now, b"\xff\x00"), body=b"\xff\x00"),
        Case("a while ago", True, *at(now - 240)),
        Case("of a clock ahead", True, *at(now + 240)),
        Case("too old", False, *at(now - 320)),
        Case("too new", False, *at(now + 360)),
        Case("another secret", False, str(now), sign([OTHER], "msg_1_2", now, BODY)),
        Case("a changed body", False, str(now), right, body=BODY + b" "),
        Case("a changed id", False, str(now), right, identifier="msg_1_3"),
        Case("a changed time", False, str(now - 1), right),
        Case("no id", False, str(now), right, identifier=None),
        Case("no timestamp", False, None, right),
        Case("no signature", False, str(now), None),
        Case("an empty id", False, str(now), sign([SECRET], "", now, BODY), identifier=""),
        Case("an empty timestamp", False, "", right),
        Case("an empty signature", False, str(now), ""),
        Case("a timestamp that is no number", False, "now", right),
        Case("a timestamp with a line break", False, f"{now}\n", right),
        Case("a timestamp with a fraction", False, f"{now}.0", right),
        Case("a timestamp in other digits", False, "١٧٠٠٠٠٠٠٠٠", right),
        Case("an endless timestamp", False, "9" * 5000, right),
        Case("a signature without version", False, str(now), bare),
        Case("a signature of another version", False, str(now), f"v2,{bare}"),
        Case("half a signature", False, str(now), right[:-10]),
        Case("a version alone", False, str(now), "v1,"),
        Case("a signature that is no base64", False, str(now), "v1,äöü!!"),
        Case("commas", False, str(now), ",,, ,"),
    ]


def field(value: str | None) -> str:
    """A header for the driver."""
    return "-" if value is None else base64.b64encode(value.encode()).decode()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.language)
def test_a_sample_accepts_what_is_genuine_and_nothing_else(sample: Sample, tmp_path: Path) -> None:
    program, files, commands = RUN[sample.language]
    if not shutil.which(program):
        pytest.skip(f"{program} ({sample.language}) is not there")
    shutil.copy(FOLDER / sample.file, tmp_path)
    for name in files:
        shutil.copy(DRIVERS / name, tmp_path)
    asked = cases()
    lines = "".join(
        "\t".join(
            [
                SECRET,
                field(case.identifier),
                field(case.timestamp),
                field(case.signature),
                base64.b64encode(case.body).decode(),
            ]
        )
        + "\n"
        for case in asked
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    for command in commands:
        done = subprocess.run(
            command, cwd=tmp_path, input=lines, capture_output=True, text=True, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr[-2_000:]
    answers = done.stdout.split()
    assert len(answers) == len(asked)
    wrong = [case.name for case, answer in zip(asked, answers, strict=True) if answer != str(case.genuine).lower()]
    assert wrong == []


def test_every_language_is_tested_when_its_runtime_is_there() -> None:
    assert set(RUN) == {sample.language for sample in SAMPLES}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.language)
def test_the_guide_shows_the_sample_as_it_is(sample: Sample) -> None:
    guide = (settings.BASE_DIR / "docs" / "webhooks.md").read_text()
    assert f"```{sample.fence}\n{text_of(sample)}```\n" in guide
