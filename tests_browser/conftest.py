"""Chromium for the tests, and what must never happen in it.

A page that logs an error, breaks the content security policy or asks another host fails its test.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from pytest_django.live_server_helper import LiveServer

from conftest import PASSWORD, Cast, make_cast
from webhooks.tests.endpoint import Endpoint, running_endpoint

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Playwright's loop makes Django think that the test runs in asynchronous code.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test in here is marked `once` and has a real database."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.once)
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; each gets a fresh profile."""
    if not CHROMIUM.exists():
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(f"{CHROMIUM} is missing and REQUIRE_SERVICES=1 asks for it.")
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A person at a browser: `page` to act on, and what went wrong meanwhile."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.wrong: list[str] = []
        host = urlsplit(base).netloc
        page.on(
            "console",
            lambda entry: self._note(
                entry.type in ("error", "warning"), f"console: {entry.text} {entry.location.get('url', '')}"
            ),
        )
        page.on("pageerror", lambda error: self._note(True, f"script: {error}"))
        page.on("request", lambda request: self._note(urlsplit(request.url).netloc != host, f"asked {request.url}"))
        page.on(
            "response",
            lambda response: self._note(response.status >= 500, f"{response.status} from {response.url}"),
        )

    def _note(self, bad: bool, what: str) -> None:
        # The console repeats an answer of 400, which is how a form says that it was not saved.
        if bad and "status of 400" not in what:
            self.wrong.append(what)

    def go(self, path: str) -> None:
        """Open a page of ours."""
        answer = self.page.goto(self.base + path)
        assert answer is not None
        assert answer.ok, f"{answer.status} {path}"

    def sign_in(self, email: str) -> None:
        """Sign in as somebody of the cast."""
        self.go("/accounts/login/")
        self.page.locator("input[name=login]").fill(email)
        self.page.locator("input[name=password]").fill(PASSWORD)
        self.page.locator(
            "form:has(input[name=password]) [type=submit], form:has(input[name=password]) button"
        ).first.click()
        self.page.wait_for_url(lambda url: "/accounts/login/" not in url)


@pytest.fixture(params=[True, False], ids=["with-javascript", "without-javascript"])
def javascript(request: pytest.FixtureRequest) -> bool:
    """Whether the browser runs scripts."""
    return bool(request.param)


@pytest.fixture
def visit(chromium: Browser, live_server: LiveServer, javascript: bool) -> Iterator[Visit]:
    """A visit that ends with the question whether anything went wrong."""
    context = chromium.new_context(java_script_enabled=javascript)
    context.set_default_timeout(10_000)
    one = Visit(context.new_page(), live_server.url)
    yield one
    context.close()
    assert one.wrong == []


@pytest.fixture
def acme(transactional_db: None) -> Cast:
    """The organisation under test."""
    return make_cast("acme")


@pytest.fixture
def endpoint(settings: Any) -> Iterator[Endpoint]:
    """A customer's endpoint on this machine, which may be dialled."""
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with running_endpoint() as running:
        yield running
