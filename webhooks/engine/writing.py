"""Outcomes on their way to the database: gathered, written many at a time, and what follows for the lanes."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from django.db import DataError, IntegrityError, OperationalError

from core.clock import now
from webhooks.engine import due, record
from webhooks.engine.desk import Course, Inline, Line
from webhooks.engine.record import Result, Written
from webhooks.engine.schedule import OUR_FAULT
from webhooks.engine.serving import Serving

log = logging.getLogger("webio.deliveries")

#: Outcomes are written when there are so many, never more at once, or when the oldest has waited so long, seconds.
FLUSH_COUNT = 1000
FLUSH_SECONDS = 0.02
#: With so many requests under way or about to start there is more to come: outcomes wait longer, for larger writes. To
#: write 1,000 at once takes a third less time for each than to write 250.
FLUSH_BUSY = 32
FLUSH_BUSY_SECONDS = 0.15
#: PostgreSQL manual, appendix A: deadlock_detected.
DEADLOCK = "40P01"


class Writer:
    """Writes the outcomes of one engine, whose totals are those of `slot`."""

    def __init__(self, serving: Serving, desk: Inline, slot: int) -> None:
        self.serving = serving
        self.desk = desk
        self.slot = slot
        self.results: list[Result] = []
        self.oldest_result = 0.0
        #: Outcomes are being written.
        self.writing = False

    def idle(self) -> bool:
        """Nothing waits to be written."""
        return not (self.results or self.writing)

    def add(self, result: Result, *, decides: bool) -> None:
        """Note an outcome; `decides`: what starts next depends on it, so it is written at once."""
        if not self.results:
            self.oldest_result = time.monotonic()
        if decides:
            self.oldest_result = 0.0
            result.decides = True
        self.results.append(result)

    def due(self, more: int) -> bool:
        """Whether it is time to write what is at hand, with so many requests under way or about to start."""
        if self.writing or not self.results:
            return False
        patience = FLUSH_BUSY_SECONDS if more >= FLUSH_BUSY else FLUSH_SECONDS
        return len(self.results) >= FLUSH_COUNT or time.monotonic() - self.oldest_result >= patience

    def flush(self) -> None:
        """Write the outcomes at hand, the oldest `FLUSH_COUNT` if there are more."""
        if self.results:
            results, self.results = self.results[:FLUSH_COUNT], self.results[FLUSH_COUNT:]
            self.writing = True
            self.desk.follow(self.writes(results), Line.WRITE)

    def writes(self, results: list[Result]) -> Course:
        """The course of writing outcomes."""
        webhooks = {result.delivery.webhook_id for result in results}
        tripping = {webhook_id for webhook_id in webhooks if self.serving.lanes[webhook_id].tripping}
        written: Written = yield partial(write, [result.report for result in results], self.slot, tripping)
        self.writing = False
        self.serving.changed |= written.stopped | written.healed
        self.serving.moved |= written.moved
        for webhook_id in written.stopped | written.healed:
            self.serving.lanes[webhook_id].forget_window()
            self.serving.lanes[webhook_id].probing = webhook_id in written.stopped
        for webhook_id in written.stopped:
            self.serving.lanes[webhook_id].settled = False
            self.serving.lanes[webhook_id].forget_waiting()
        for result in results:
            lane = self.serving.lanes[result.delivery.webhook_id]
            lane.undecided -= result.decides
            lane.held.discard(result.delivery.id)
            if result.blocks:
                lane.release(result.delivery)
                lane.forget_followers(result.delivery)
            else:
                self.serving.released.add(result.delivery.id)
                self.serving.freed |= bool(result.delivery.attempt_count and result.delivery.blocks)
            if lane.loaded and not lane.held:
                # Reading left out what was due before the head of its conversation.
                lane.loaded = False
                self.serving.freed = True
            if not result.outcome.ok:
                log.info(
                    "delivery failed",
                    extra={
                        "facts": {
                            "organisation": result.delivery.organisation_id,
                            "webhook": result.delivery.webhook_id,
                            "delivery": result.delivery.id,
                            "event": result.delivery.event_id,
                            "attempt": result.delivery.attempt_count + 1,
                            "status": result.outcome.status,
                            "error": result.outcome.error,
                        }
                    },
                )
        self.serving.leave()


def write(reports: list[tuple[Any, ...]], slot: int, tripping: set[int]) -> Written:
    """Write outcomes (`record.write`); one that cannot be written is put off and takes no other with it."""
    try:
        try:
            return record.write(reports, slot, tripping)
        except OperationalError as problem:
            # Two that lock the same rows in another order: PostgreSQL ends one, which can go on after the other.
            if getattr(problem.__cause__, "sqlstate", "") != DEADLOCK:
                raise
            return record.write(reports, slot, tripping)
    except (DataError, IntegrityError, ArithmeticError, TypeError, ValueError):
        if len(reports) > 1:
            middle = len(reports) // 2
            first = write(reports[:middle], slot, tripping)
            return first.merged(write(reports[middle:], slot, tripping))
        report = record.Report._make(reports[0])
        log.exception("outcome could not be written", extra={"facts": {"delivery": report.id}})
        due.put_off(report.id, report.number - 1, now() + OUR_FAULT)
        return Written(0)
