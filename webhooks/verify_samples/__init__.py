"""How receivers verify a signature, in several languages: shown by the panel and in docs/webhooks.md, and tested.

Each file is complete and needs nothing but its language's standard library.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Sample:
    """One language: what it is called, here and in Markdown, and its file."""

    language: str
    fence: str
    file: str


SAMPLES = (
    Sample("Python", "python", "genuine.py"),
    Sample("Node", "js", "genuine.js"),
    Sample("PHP", "php", "genuine.php"),
    Sample("Go", "go", "genuine.go"),
    Sample("Java", "java", "Genuine.java"),
    Sample("C#", "csharp", "Genuine.cs"),
    Sample("Ruby", "ruby", "genuine.rb"),
)


@cache
def text_of(sample: Sample) -> str:
    """The program."""
    return (FOLDER / sample.file).read_text()
