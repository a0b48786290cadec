"""The guide for receivers names the test of each promise: they are there, and no promise is without."""

from __future__ import annotations

import re
from pathlib import Path

from django.conf import settings

TESTS = Path(__file__).parent
GUIDE = Path(settings.BASE_DIR) / "docs/webhooks.md"


def rows() -> list[tuple[str, str]]:
    """Promises and what proves them."""
    section = GUIDE.read_text().partition("## Every promise and its test")[2].partition("\n## ")[0]
    return re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)[1:]


def test_every_promise_names_tests_that_are_there() -> None:
    assert len(rows()) > 30
    for promise, proof in rows():
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", proof)
        assert proof == ", ".join(f"`{file}::{name}`" for file, name in named), promise
        assert named, promise
        for file, name in named:
            assert f"def {name}(" in (TESTS / file).read_text(), (promise, file, name)
