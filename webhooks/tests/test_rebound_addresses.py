"""A name that points inside since it was saved: nothing that sends to a webhook reaches what it points to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from conftest import Cast
from core import outbound
from core.actors import SYSTEM
from core.outbound import Request
from core.tests.receivers import Receiver, answer, receiver
from webhooks.actions import resend_delivery
from webhooks.custom_values import ask
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.testing import CUSTOM_VALUE, try_webhook
from webhooks.tests.conftest import make_delivery, make_webhook
from webhooks.tests.engine import deliver
from webhooks.tests.replays import begin, past, work_off

pytestmark = pytest.mark.django_db

NAME = "rebound.example"
ADDRESSES = ["127.0.0.1", "[::1]", "169.254.169.254", "168.63.129.16", "10.0.0.1", "192.168.1.1", "[fd00:ec2::254]"]


@dataclass
class Inside:
    """A server on this machine, and the address to which `NAME` points."""

    server: Receiver
    address: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """A callback URL that nobody would refuse by looking at it."""
        return f"http://{NAME}:{self.server.port}/hook"


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """DNS as its owner likes it; nothing but the public internet may be dialled."""
    with receiver() as server:
        found = Inside(server)
        prepare = outbound._Transfer.prepare

        def with_dns(transfer: Any, request: Request, token: Any) -> None:
            prepare(transfer, replace(request, resolve=[f"{NAME}:{server.port}:{found.address}"]), token)

        monkeypatch.setattr(outbound._Transfer, "prepare", with_dns)
        yield found


def an_event(cast: Cast, webhook: Webhook) -> str:
    make_delivery(cast, webhook)
    deliver()
    return Delivery.objects.get(webhook=webhook).last_error


def a_resend(cast: Cast, webhook: Webhook) -> str:
    again = resend_delivery(delivery=make_delivery(cast, webhook, state="failed"), actor=SYSTEM)
    deliver()
    again.refresh_from_db()
    return again.last_error


def a_replay(cast: Cast, webhook: Webhook) -> str:
    past(cast, webhook, 1)
    assert work_off(begin(webhook)).state == "done"
    deliver()
    return Delivery.objects.get(webhook=webhook, kind="replay").last_error


def a_test_event(cast: Cast, webhook: Webhook) -> str:
    return try_webhook(webhook=webhook, actor=SYSTEM, event="payment").error


def a_custom_value_request(cast: Cast, webhook: Webhook) -> str:
    return ask(webhook, fields=["balance"]).outcome.error


def a_test_of_custom_values(cast: Cast, webhook: Webhook) -> str:
    return try_webhook(webhook=webhook, actor=SYSTEM, event=CUSTOM_VALUE, fields=["balance"]).error


WAYS: list[Callable[[Cast, Webhook], str]] = [
    an_event, a_resend, a_replay, a_test_event, a_custom_value_request, a_test_of_custom_values,
]  # fmt: skip
EACH_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.replace("_", " "))


@EACH_WAY
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_way_of_sending_reaches_it(
    acme: Cast, inside: Inside, way: Callable[[Cast, Webhook], str], address: str
) -> None:
    inside.address = address
    webhook = make_webhook(acme, callback_url=inside.url, custom_values=True)
    assert way(acme, webhook) == "refused_address"
    assert inside.server.connections == 0
    assert not Attempt.objects.exclude(status_code=None, response_body="").exists()


@EACH_WAY
def test_where_it_may_be_dialled_the_same_request_arrives(
    acme: Cast, inside: Inside, settings: Any, way: Callable[[Cast, Webhook], str]
) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    webhook = make_webhook(acme, callback_url=inside.url, custom_values=True)
    assert way(acme, webhook) == ""
    assert len(inside.server.requests) == 1


@EACH_WAY
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
def test_nor_is_a_token_asked_for_there(
    acme: Cast, inside: Inside, way: Callable[[Cast, Webhook], str], address: str
) -> None:
    inside.address = address
    asks = {"type": "oauth2", "tokenUrl": inside.url, "clientId": "webio", "clientSecret": "s3cr3t"}
    webhook = make_webhook(acme, authentication=asks, custom_values=True)
    assert way(acme, webhook) == "auth"
    assert inside.server.connections == 0


def test_a_redirect_there_is_not_followed(acme: Cast, inside: Inside, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = ["127.0.0.1/32"]
    with receiver(answer(307, b"", f"location: {inside.url}\r\n")) as public:
        webhook = make_webhook(acme, callback_url=public.url)
        make_delivery(acme, webhook)
        deliver()
    assert Delivery.objects.get(webhook=webhook).last_status_code == 307
    assert inside.server.connections == 0
