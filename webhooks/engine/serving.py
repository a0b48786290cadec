"""What an engine serves: webhooks on which it has a lease, a lane for each, and its place among the other engines."""

from __future__ import annotations

from webhooks.engine.due import Due
from webhooks.engine.lane import Lane
from webhooks.engine.leases import Leases


class Serving:
    """Lanes and leases of one engine, and which webhooks should be its own."""

    def __init__(self) -> None:
        self.lanes: dict[int, Lane] = {}
        self.leases = Leases()
        #: This engine's number, from 0, and how many there are.
        self.place = (0, 1)
        #: Which engine should serve a webhook, of those that are known (`webhooks.engine.due.Wanting`).
        self.homes: dict[int, int] = {}
        #: Webhooks to be left to others when nothing of theirs is under way any more; those that are for the rest of
        #: the slice: slow at its end, or their settings cannot be read here.
        self.leaving: set[int] = set()
        self.slow: set[int] = set()
        #: A lane has become free whose next ones may not have been read because they waited.
        self.freed = False
        #: Since the latest reading began: deliveries written that keep none back, and webhooks of which it was written
        #: that they are left alone from now on or no longer. The reading may not have seen it.
        self.released: set[int] = set()
        self.changed: set[int] = set()
        #: Webhooks of which an outcome has shown that their settings are no longer those that are known.
        self.moved: set[int] = set()

    def lane(self, webhook_id: int) -> Lane:
        """What is held for a webhook."""
        if webhook_id not in self.lanes:
            self.lanes[webhook_id] = Lane()
        return self.lanes[webhook_id]

    def mine(self, webhook_id: int) -> bool:
        """Whether this engine is the one that should serve the webhook, as far as is known."""
        number, count = self.place
        return self.homes.get(webhook_id, number) % count == number

    def serves(self, webhook_id: int) -> bool:
        """Whether this engine may read the webhook's deliveries and send them."""
        return webhook_id in self.leases and webhook_id not in self.leaving

    def follows(self, delivery: Due) -> bool:
        """Whether all before it in its conversation is here or no longer keeps it back."""
        behind = delivery.behind
        return behind is None or behind in self.lanes[delivery.webhook_id].held or behind in self.released

    def waiting(self) -> dict[int, int]:
        """How many deliveries wait to be started, by organisation."""
        found: dict[int, int] = {}
        for lane in self.lanes.values():
            if lane.waiting:
                found[lane.organisation_id] = found.get(lane.organisation_id, 0) + len(lane.waiting)
        return found

    def settle(self, place: tuple[int, int]) -> None:
        """Renew the leases, and leave to the other engines, as many as there are now, what is theirs."""
        self.place = place
        for webhook_id in self.leases.renew():
            self.lane(webhook_id).forget_waiting()
        self.leaving = {pk for pk in self.leases if not self.mine(pk) or pk in self.slow}
        for webhook_id in self.leaving:
            self.lane(webhook_id).forget_waiting()
        self.leave()

    def leave(self) -> None:
        """Give up the leases of webhooks that are another engine's as soon as all is written of what was sent."""
        done = {webhook_id for webhook_id in self.leaving if not self.lane(webhook_id).held}
        if done:
            self.leaving -= done
            self.leases.give_up(done)
