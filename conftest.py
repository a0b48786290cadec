"""The cast of the tests: two full organisations with people in every role, and staff."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest
from django.contrib.auth.hashers import make_password
from pytest_django.live_server_helper import LiveServer

from conversations import actions as conversation_actions
from conversations.models import Channel, Contact, Conversation, Message, Queue, Status
from core import wakeup
from core.actors import SYSTEM
from organisations.actions import create_api_key
from organisations.models import ApiKey, Membership, Organisation, Role, User
from organisations.scopes import SCOPES

PASSWORD = "correct horse battery staple"


@dataclass
class Cast:
    """One organisation with everything in it. `key` is a whole API key with all scopes."""

    organisation: Organisation
    owner: User
    admin: User
    developer: User
    agent: User
    viewer: User
    api_key: ApiKey
    key: str
    channel: Channel
    contact: Contact
    queue: Queue
    other_queue: Queue
    inactive_queue: Queue
    status: Status
    conversation: Conversation
    message: Message
    people: dict[str, User] = field(default_factory=dict)

    @property
    def auth(self) -> dict[str, str]:
        """Headers of an API call, for Django's test client (`headers=`)."""
        return {"Authorization": f"Bearer {self.key}"}


def make_user(email: str, **extra: object) -> User:
    """A user whose password is `PASSWORD`."""
    return User.objects.create_user(email, PASSWORD, **extra)


def make_cast(name: str) -> Cast:
    """An organisation called `name` with one of everything. Addresses: `owner@<name>.example` and so on."""
    organisation = Organisation.objects.create(name=name.title(), slug=name)
    password = make_password(PASSWORD)
    people = {
        role: User(email=f"{role}@{name}.example", name=f"{role.title()} {name.title()}", password=password)
        for role in Role.values
    }
    User.objects.bulk_create(people.values())
    Membership.objects.bulk_create(
        Membership(organisation=organisation, user=user, role=role) for role, user in people.items()
    )
    api_key, key = create_api_key(organisation=organisation, actor=SYSTEM, name="all", scopes=SCOPES)
    make = {"organisation": organisation, "actor": SYSTEM}
    channel = conversation_actions.create_channel(**make, kind="sandbox", label="Sandbox")
    queue = conversation_actions.create_queue(**make, name="Billing")
    other_queue = conversation_actions.create_queue(**make, name="Support")
    inactive_queue = conversation_actions.create_queue(**make, name="Old", active=False)
    status = conversation_actions.create_status(**make, name="Promise")
    message = conversation_actions.receive_message(channel=channel, address="447717472695", body=f"Hello {name}")
    return Cast(
        organisation=organisation,
        **people,
        people=people,
        api_key=api_key,
        key=key,
        channel=channel,
        contact=message.conversation.contact,
        queue=queue,
        other_queue=other_queue,
        inactive_queue=inactive_queue,
        status=status,
        conversation=message.conversation,
        message=message,
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin what is `long` first, so that no process is left with it at the end.

    `--dist worksteal` first gives each process an equal part, one after another, of what is collected.
    """
    items[:] = in_shares(items, getattr(config, "workerinput", {"workercount": 1})["workercount"])


def in_shares(items: list[pytest.Item], count: int) -> list[pytest.Item]:
    """The same for `count` processes, each of whose parts begins with its part of what is long."""
    long = [item for item in items if item.get_closest_marker("long")]
    short = iter([item for item in items if not item.get_closest_marker("long")])
    found: list[pytest.Item] = []
    begun = 0
    for left in range(count, 0, -1):
        size = (len(items) - len(found)) // left
        own = long[begun : begun + min(size, -(-(len(long) - begun) // left))]
        begun += len(own)
        found += own + list(islice(short, size - len(own)))
    return [*found, *long[begun:], *short]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """The databases, which can be dropped once nobody is connected any more."""
    yield
    wakeup._notifier.close()


@pytest.fixture(scope="session")
def live_server(django_db_setup: None, live_server: LiveServer) -> LiveServer:
    """A server that starts after the test database is made.

    Before that SQLite's is still called `:memory:`, which makes server and test share one connection, and crash.
    """
    return live_server


@pytest.fixture
def acme(db: None) -> Cast:
    """The organisation under test."""
    return make_cast("acme")


@pytest.fixture
def globex(db: None) -> Cast:
    """The outsiders, with data of their own."""
    return make_cast("globex")


@pytest.fixture
def staff(db: None) -> User:
    """A member of staff who is a superuser."""
    return User.objects.create_superuser("staff@webio.example", PASSWORD)


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Any) -> None:
    """Each test makes ten people; a slow hash would be most of its time."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
