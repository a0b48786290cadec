"""Adding a webhook, and every reason not to."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Cast
from conversations.events import EVENT_TYPES
from core.actors import SYSTEM
from core.errors import Conflict, Invalid, Refusal
from core.signing import secret_bytes
from organisations.models import AuditEntry
from webhooks.actions import archive_webhook, create_webhook, events_of
from webhooks.custom_headers import headers_of
from webhooks.models import Subscription, Webhook

URL = "https://hooks.example.com/in"


def create(cast: Cast, **changes: Any) -> tuple[Webhook, str]:
    values: dict[str, Any] = {"name": "orders", "callback_url": URL, "events": ["inboundMessage"], **changes}
    return create_webhook(organisation=cast.organisation, actor=SYSTEM, **values)


def assert_refused(cast: Cast, *fields: str, **changes: Any) -> Invalid:
    """The verb refuses, names exactly `fields`, and nothing has changed."""
    before = AuditEntry.objects.count(), Webhook.objects.count(), Subscription.objects.count()
    with pytest.raises(Invalid) as refusal:
        create(cast, **changes)
    assert set(refusal.value.errors) == set(fields)
    assert (AuditEntry.objects.count(), Webhook.objects.count(), Subscription.objects.count()) == before
    return refusal.value


def test_a_webhook_has_its_events_and_a_secret_of_its_own(acme: Cast) -> None:
    webhook, secret = create(acme, events=["payment", "inboundMessage", "payment"], headers={"X-Key": "k v"})
    webhook.refresh_from_db()
    assert events_of(webhook) == ["inboundMessage", "payment"]
    assert (webhook.state, webhook.format, webhook.ordering) == ("active", "webio", "first")
    assert secret == webhook.secret
    assert secret.startswith("whsec_")
    assert len(secret_bytes(secret)) >= 24
    assert headers_of(webhook) == {"X-Key": "k v"}
    assert create(acme)[1] != secret


def test_a_webhook_can_bring_its_secret(acme: Cast) -> None:
    own = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    webhook, secret = create(acme, secret=own)
    assert secret == own
    webhook.refresh_from_db()
    assert webhook.secret == own


def test_the_audit_trail_tells_the_facts_and_no_secret(acme: Cast) -> None:
    _webhook, secret = create(acme, headers={"Authorization": "Bearer top-secret"}, callback_url=f"{URL}?key=hush")
    entry = AuditEntry.objects.get(action="webhook.create")
    assert entry.organisation == acme.organisation
    assert entry.data["events"] == ["inboundMessage"]
    for hidden in (secret, "top-secret", "hush"):
        assert hidden not in str(entry.data)


def test_every_event_of_the_catalogue_can_be_wanted(acme: Cast) -> None:
    webhook, _ = create(acme, events=list(EVENT_TYPES))
    assert len(events_of(webhook)) == 9


@pytest.mark.parametrize("name", ["", "   ", "x" * 256, "a\x00b", "a\ud800", None, 7])
def test_a_bad_name_is_refused(acme: Cast, name: Any) -> None:
    assert_refused(acme, "name", name=name)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "javascript:alert(1)",
        "https://",
        "https://user:pass@example.com/",
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "http://2130706433/",
        "http://0x7f.1/",
        "https://example.com/" + "x" * 2000,
        "https://exa mple.com/",
        "https://example.com/\nx",
        "https://example.com:99999/",
        None,
        7,
    ],
)
def test_a_url_that_may_not_be_dialled_is_refused(acme: Cast, url: Any) -> None:
    assert_refused(acme, "callbackUrl", callback_url=url)


@pytest.mark.parametrize(
    "events", [["nothing"], ["messageStatusUpdate"], [7], "inboundMessage", None, [], [""], [["payment"]]]
)
def test_unknown_events_and_no_event_at_all_are_refused(acme: Cast, events: Any) -> None:
    assert_refused(acme, "events", events=events)


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", "whsec_" + "A" * 200, 7])
def test_a_short_or_malformed_secret_is_refused(acme: Cast, secret: Any) -> None:
    assert_refused(acme, "secret", secret=secret)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"host": "x"},
        {"Content-Type": "x"},
        {"User-Agent": "x"},
        {"X-Webio-Token": "x"},
        {"x-webio-test": "x"},
        {"Webhook-Id": "x"},
        {"webhook-signature": "x"},
        {"Connection": "close"},
        {"Transfer-Encoding": "chunked"},
        {"Content-Length": "1"},
        {"TE": "x"},
        {"": "x"},
        {"a b": "x"},
        {"a:b": "x"},
        {"größe": "x"},
        {"x" * 101: "x"},
        {"X-A": ""},
        {"X-A": " x"},
        {"X-A": "x\r\nHost: y"},
        {"X-A": "x\ny"},
        {"X-A": "größe"},
        {"X-A": "x" * 1001},
        {"X-A": 7},
        {"X-A": "1", "x-a": "2"},
        {f"X-{n}": "1" for n in range(21)},
        ["X-A"],
        "X-A: b",
    ],
)
def test_a_header_that_is_reserved_or_malformed_is_refused(acme: Cast, headers: Any) -> None:
    assert_refused(acme, "headers", headers=headers)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("format", {"format": "xml"}),
        ("format", {"format": None}),
        ("format", {"format": []}),
        ("ordering", {"ordering": "random"}),
        ("customValues", {"custom_values": "true"}),
        ("customValues", {"custom_values": 1}),
    ],
)
def test_an_unknown_choice_is_refused(acme: Cast, field: str, change: dict[str, Any]) -> None:
    assert_refused(acme, field, **change)


def test_all_errors_are_told_at_once(acme: Cast) -> None:
    assert_refused(
        acme, "name", "callbackUrl", "events", "secret", name="", callback_url="x", events=["y"], secret="short"
    )


def test_a_webhook_may_serve_custom_values_alone(acme: Cast) -> None:
    webhook, _ = create(acme, events=[], custom_values=True)
    assert events_of(webhook) == []


def test_a_second_custom_value_endpoint_is_refused(acme: Cast, globex: Cast) -> None:
    first, _ = create(acme, custom_values=True)
    refusal = assert_refused(acme, "customValues", custom_values=True)
    assert refusal.code == "custom_values_taken"
    create(globex, custom_values=True)
    archive_webhook(webhook=first, actor=SYSTEM)
    create(acme, custom_values=True)


def test_the_33rd_webhook_is_refused(acme: Cast, globex: Cast, settings: Any) -> None:
    settings.WEBHOOKS_PER_ORGANISATION = 2
    first, _ = create(acme)
    create(acme)
    with pytest.raises(Conflict) as refusal:
        create(acme)
    assert (refusal.value.code, refusal.value.extra) == ("webhook_limit", {"limit": 2})
    assert Webhook.objects.filter(organisation=acme.organisation).count() == 2
    create(globex)
    archive_webhook(webhook=first, actor=SYSTEM)
    create(acme)


def test_the_limit_is_32_unless_the_organisation_has_its_own(acme: Cast, settings: Any) -> None:
    assert settings.WEBHOOKS_PER_ORGANISATION == 32
    acme.organisation.webhook_limit = 1
    acme.organisation.save()
    create(acme)
    with pytest.raises(Refusal, match="at most 1"):
        create(acme)
    acme.organisation.webhook_limit = 0
    acme.organisation.save()
    with pytest.raises(Refusal, match="at most 0"):
        create(acme)
