"""What it costs to record what happened, beside the bare message.

`python -m benchmarks.recording [--runs N]` saves messages in transactions of their own, in turn three ways, in one
process: the bare row; the row with its event, its conversation's sequence number and the engine's wake-up; and the
verb `receive_message`, which also finds and locks contact and conversation. It prints medians in µs and their ratios,
with 0, 1 and 20 webhooks that want the event. No engine runs, but somebody listens, as an engine would.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.common import figure, fresh_database, inside, kinds, machine, options

WEBHOOKS = (0, 1, 20)
#: Messages saved each way, and conversations that take turns.
MESSAGES = 1000
CONVERSATIONS = 20
TARGETS = {"sqlite": "<= 2.1", "postgresql": "<= 1.7"}


def record(webhooks: str) -> dict[str, float]:
    """Median µs of each way: "bare", "recorded" and "verb"."""
    from django.db import transaction

    from benchmarks.common import endpoints
    from conversations.actions import receive_message
    from conversations.models import Channel, Conversation, Message
    from core.actors import Actor, acting_as
    from core.wakeup import Waiter
    from webhooks.signals import LOOP

    [organisation] = endpoints("http://127.0.0.1:9", "1", webhooks)
    channel = Channel.objects.select_related("organisation").get(organisation_id=organisation)
    addresses = [f"4477009{number:05d}" for number in range(CONVERSATIONS)]
    for address in addresses:
        receive_message(channel=channel, address=address, body="Hello?")
    found = Conversation.objects.select_related("organisation", "channel", "contact").filter(channel=channel)
    conversations = {conversation.contact.address: conversation for conversation in found}

    def message(address: str) -> Message:
        conversation = conversations[address]
        return Message(
            organisation=conversation.organisation,
            conversation=conversation,
            channel=conversation.channel,
            direction=Message.Direction.INBOUND,
            state=Message.State.RECEIVED,
            body="A message of the usual length, no more.",
            actor_kind="contact",
            actor_id=str(conversation.contact_id),
            actor_label=address,
        )

    def bare(address: str) -> None:
        with transaction.atomic():
            # Raw saves are not tracked (`core.tracking`): the same INSERT, and nothing follows from it.
            message(address).save_base(raw=True, force_insert=True)

    def recorded(address: str) -> None:
        with transaction.atomic(), acting_as(Actor("contact", "1", address)):
            message(address).save(force_insert=True)

    def verb(address: str) -> None:
        receive_message(channel=channel, address=address, body="A message of the usual length, no more.")

    ways: dict[str, Callable[[str], None]] = {"bare": bare, "recorded": recorded, "verb": verb}
    times: dict[str, list[float]] = {name: [] for name in ways}
    waiter = Waiter(LOOP)
    for number in range(-CONVERSATIONS, MESSAGES):
        for name, way in ways.items():
            began = time.perf_counter()
            way(addresses[number % CONVERSATIONS])
            # The first round is for caches to fill.
            if number >= 0:
                times[name].append(time.perf_counter() - began)
        waiter.woken()
    waiter.close()
    return {name: statistics.median(values) * 1_000_000 for name, values in times.items()}


def main() -> None:
    """Measure and print."""
    chosen = options("recording").parse_args()
    print(f"machine   {machine()}")
    for kind in kinds():
        print(f"{kind}, median of {chosen.runs} (least-most)", flush=True)
        for webhooks in WEBHOOKS:
            with fresh_database(kind) as url:
                runs = [inside(url, "benchmarks.recording", "record", webhooks) for _ in range(chosen.runs)]
            print(figure([run["bare"] for run in runs], f"µs for the bare message, {webhooks} webhooks"))
            ratios = [run["recorded"] / run["bare"] for run in runs]
            print(figure(ratios, f"times that with event, sequence and wake-up, {webhooks} webhooks", TARGETS[kind]))
            ratios = [run["verb"] / run["bare"] for run in runs]
            print(figure(ratios, "times that by the verb, contact and conversation included"), flush=True)


if __name__ == "__main__":
    main()
