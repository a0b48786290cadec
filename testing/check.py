"""`make check`: one line per check; the output of those that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
APPS = ["core", "organisations", "conversations", "payments", "webhooks", "gateways", "webio"]
#: A production-like environment: what the deployment check judges.
PRODUCTION = {
    "SECRET_KEY": "check-only-2f6b1c9d8e7a4503b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5",
    "FIELD_ENCRYPTION_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    "ALLOWED_HOSTS": "webio.example.com",
    "PUBLIC_URL": "https://webio.example.com",
    "DATABASE_URL": "sqlite://:memory:",
}


def checks() -> list[tuple[str, list[str], dict[str, str]]]:
    """(name, command, extra environment) of every check."""
    templates = [str(path) for path in sorted((ROOT / "templates").rglob("*.html"))]
    manage = [sys.executable, "manage.py"]
    return [
        ("format", [str(BIN / "ruff"), "format", "--check", "."], {}),
        ("lint", [str(BIN / "ruff"), "check", "."], {}),
        ("types", [str(BIN / "mypy"), *APPS, "testing", "benchmarks", "soak"], {"DEMO": "1"}),
        ("templates", [str(BIN / "djade"), "--target-version", "5.2", "--check", *templates], {}),
        ("layers", [str(BIN / "lint-imports")], {"DEMO": "1"}),
        ("migrations", [*manage, "makemigrations", "--check", "--dry-run"], {"DEMO": "1"}),
        ("deployment", [*manage, "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION),
    ]


def main() -> int:
    """Run all checks; the number of failed ones."""
    failed = 0
    for name, command, extra in checks():
        began = time.monotonic()
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', '')}", **extra}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        verdict = "ok" if done.returncode == 0 else "FAILED"
        print(f"check     {name:<12} {verdict:<7} {time.monotonic() - began:5.1f} s", flush=True)
        if done.returncode:
            failed += 1
            print(done.stdout, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
