"""Two organisations with people, channels, queues and a week of conversations, all made through the verbs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password
from django.db import transaction

from conversations import actions
from conversations.models import Channel, Contact, Conversation, Message, Queue, Status
from core.actors import SYSTEM, Actor
from core.clock import held_at, now
from organisations.actions import create_organisation
from organisations.models import Membership, Organisation, Role, User
from payments.actions import record_payment

PASSWORD = "webio-demo"
#: The same conversations on every machine.
SEED = 20
DAYS = 7


@dataclass(frozen=True)
class Company:
    """What a sample organisation consists of."""

    name: str
    slug: str
    domain: str
    people: tuple[tuple[str, str], ...]
    channels: tuple[tuple[str, str], ...]
    queues: tuple[str, ...]
    statuses: tuple[str, ...]
    conversations: int
    customer_prefix: str
    currency: str


COMPANIES = (
    Company(
        name="Brightwater Energy",
        slug="brightwater",
        domain="brightwater.example",
        people=(
            (Role.OWNER, "Ada Byrne"),
            (Role.ADMIN, "Piotr Nowak"),
            (Role.DEVELOPER, "Mei Tanaka"),
            (Role.AGENT, "Sam Okafor"),
            (Role.AGENT, "Rosa Jimenez"),
            (Role.VIEWER, "Lars Holm"),
        ),
        channels=(("Brightwater SMS", "353871230001"), ("Brightwater WhatsApp", "")),
        queues=("Billing", "Moving home", "Vulnerable customers"),
        statuses=("New", "Promise to pay", "Resolved", "Call back"),
        conversations=180,
        customer_prefix="BW",
        currency="EUR",
    ),
    Company(
        name="Northgate Lending",
        slug="northgate",
        domain="northgate.example",
        people=(
            (Role.OWNER, "Tom Adeyemi"),
            (Role.ADMIN, "Ines Duarte"),
            (Role.DEVELOPER, "Kofi Mensah"),
            (Role.AGENT, "Jo Fraser"),
            (Role.VIEWER, "Hana Novak"),
        ),
        channels=(("Northgate SMS", "447700900500"),),
        queues=("Collections", "Complaints"),
        statuses=("Open", "Arrangement made", "Disputed"),
        conversations=90,
        customer_prefix="NL",
        currency="GBP",
    ),
)

#: Talks as (who speaks, text). {amount} and {name} are filled in.
TALKS: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("us", "Hello {name}, your bill of {amount} is ready. Reply HELP to talk to us."),
        ("contact", "Can I pay it in two parts?"),
        ("us", "Yes. Half today and half on the 28th?"),
        ("contact", "Perfect, thanks"),
    ),
    (
        ("contact", "Hi, I am moving house next week"),
        ("us", "Congratulations! What is the date and the new address?"),
        ("contact", "The 3rd, 14 Harbour Row"),
        ("us", "Done: your supply moves with you on the 3rd."),
        ("contact", "That was quick"),
    ),
    (
        ("us", "A payment of {amount} did not go through. Shall we try again?"),
        ("contact", "No I don't"),
        ("us", "No problem. When would suit you?"),
        ("contact", "Friday is pay day"),
    ),
    (
        ("contact", "Why is my bill so high this month?"),
        ("us", "Your meter was estimated last time. Could you send us a reading?"),
        ("contact", "It says 48213"),
        ("us", "Thank you. Your corrected bill is {amount}."),
    ),
    (
        ("us", "Your engineer visits tomorrow between 9:00 and 11:00."),
        ("contact", "Can they ring the bell at number 2? Ours is broken"),
        ("us", "Noted, they will."),
    ),
    (
        ("contact", "I lost my job and cannot pay right now"),
        ("us", "I am sorry to hear that, {name}. We have a hardship plan and can pause collections for 30 days."),
        ("contact", "Please do"),
        ("us", "It is paused. We will write on the first of the month."),
    ),
    (("us", "Reminder: {amount} is due on Monday."), ("contact", "Already paid!")),
    (("contact", "STATUS?"), ("us", "Your account is up to date, {name}.")),
)

NAMES = (
    "Aoife Kelly",
    "Bilal Hussain",
    "Chiara Rossi",
    "Daniel Weber",
    "Emma O'Neill",
    "Femi Balogun",
    "Grace Walsh",
    "Hugo Martin",
    "Ivana Petrova",
    "Jack Doyle",
    "Kasia Lis",
    "Liam Burke",
    "Maya Singh",
    "Niamh Ryan",
    "Oskar Berg",
    "Priya Patel",
)


def load(say: Callable[[str], None]) -> list[Organisation]:
    """Make what is missing of the sample organisations; an organisation that is there is left as it is."""
    chance = random.Random(SEED)
    made = []
    for company in COMPANIES:
        organisation = Organisation.objects.filter(slug=company.slug).first()
        if organisation is None:
            say(f"Making {company.name} with {company.conversations} conversations …")
            with transaction.atomic():
                organisation = _make(company, chance)
        made.append(organisation)
    if not User.objects.filter(is_superuser=True).exists():
        User.objects.create_superuser("staff@webio.example", PASSWORD, name="Webio Staff")
    return made


@cache
def _hashed() -> str:
    """Everybody's password: to hash it for each of them takes a fifth of the time that the sample data take."""
    return make_password(PASSWORD)


def _make(company: Company, chance: random.Random) -> Organisation:
    start = now() - timedelta(days=DAYS)
    with held_at(start):
        organisation = create_organisation(actor=SYSTEM, name=company.name, slug=company.slug)
        agents = []
        for role, name in company.people:
            email = f"{name.split()[0].lower()}@{company.domain}"
            user = User.objects.create(email=email, name=name, password=_hashed())
            Membership.objects.create(organisation=organisation, user=user, role=role)
            if role == Role.AGENT:
                agents.append(user)
        channels = [
            actions.create_channel(
                organisation=organisation, actor=SYSTEM, kind="sandbox", label=label, address=address
            )
            for label, address in company.channels
        ]
        queues = [actions.create_queue(organisation=organisation, actor=SYSTEM, name=name) for name in company.queues]
        actions.create_queue(organisation=organisation, actor=SYSTEM, name="Old debts", active=False)
        statuses = [
            actions.create_status(organisation=organisation, actor=SYSTEM, name=name) for name in company.statuses
        ]
    cast = _Stage(company, organisation, agents, channels, queues, statuses, chance)
    moments = sorted(
        start + timedelta(minutes=chance.randrange(DAYS * 24 * 60 - 90)) for _ in range(company.conversations)
    )
    for number, moment in enumerate(moments):
        cast.play(number, moment)
    return organisation


@dataclass
class _Stage:
    """Plays talks of one organisation."""

    company: Company
    organisation: Organisation
    agents: list[User]
    channels: list[Channel]
    queues: list[Queue]
    statuses: list[Status]
    chance: random.Random

    def play(self, number: int, moment: datetime) -> None:
        """One conversation from its first message to where it stands now."""
        talk = self.chance.choice(TALKS)
        name = self.chance.choice(NAMES)
        amount = Decimal(self.chance.randrange(1500, 30000)) / 100
        words = {"name": name.split()[0], "amount": f"{amount:.2f} {self.company.currency}"}
        channel = self.chance.choice(self.channels)
        address = f"3538712{self.chance.randrange(10):01d}{number:04d}" if number % 9 else f"35387120{number:02d}0021"
        api = Actor("api", label="billing system")
        agent = self.chance.choice(self.agents)
        person = Actor("user", str(agent.pk), agent.get_full_name())
        conversation: Conversation | None = None
        for turn, (who, text) in enumerate(talk):
            moment += timedelta(seconds=self.chance.randrange(20, 600))
            body = text.format(**words)
            with held_at(moment):
                if who == "contact":
                    conversation = actions.receive_message(channel=channel, address=address, body=body).conversation
                elif conversation is None:
                    conversation, message = actions.start_conversation(
                        organisation=self.organisation,
                        actor=api,
                        channel_id=channel.pk,
                        address=address,
                        customer_uid=f"{self.company.customer_prefix}-{10000 + number}",
                        body=body,
                        fields={"amount": f"{amount:.2f}"},
                    )
                    self._report(channel, message, moment)
                else:
                    message = actions.send_message(
                        organisation=self.organisation, actor=person, conversation_id=conversation.pk, body=body
                    )
                    self._report(channel, message, moment)
                if turn == 0:
                    Contact.objects.filter(pk=conversation.contact_id, name="").update(name=name)
                    self._label(conversation, person, agent)
        if conversation is not None:
            self._finish(conversation, person, amount, moment)

    def _report(self, channel: Channel, message: Message | None, moment: datetime) -> None:
        """What the carrier says about a message, told at its time instead of when the demo starts."""
        if message is None:
            return
        address = message.conversation.contact.address
        with held_at(moment + timedelta(milliseconds=300)):
            code = 21 if address.endswith("0021") else self.chance.choice((2, 2, 2, 4))
            actions.report_outcome(channel=channel, status_code=code, message_id=message.pk)

    def _label(self, conversation: Conversation, person: Actor, agent: User) -> None:
        where: dict[str, Any] = {"organisation": self.organisation, "actor": person, "conversation_id": conversation.pk}
        actions.set_status(**where, status_id=self.statuses[0].pk)
        actions.move_to_queue(**where, queue_id=self.chance.choice(self.queues).pk)
        if self.chance.random() < 0.7:
            actions.take_conversation(**where, user_id=agent.pk)

    def _finish(self, conversation: Conversation, person: Actor, amount: Decimal, moment: datetime) -> None:
        where: dict[str, Any] = {"organisation": self.organisation, "actor": person, "conversation_id": conversation.pk}
        with held_at(moment + timedelta(minutes=2)):
            if self.chance.random() < 0.2:
                record_payment(
                    **where, amount=amount, currency=self.company.currency, reference=f"INV-{conversation.pk}"
                )
            if self.chance.random() < 0.3:
                actions.add_note(**where, body="Customer prefers messages in the evening.")
            if self.chance.random() < 0.6:
                actions.set_status(**where, status_id=self.chance.choice(self.statuses[1:]).pk)
                actions.close_conversation(**where)
