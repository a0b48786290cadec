"""Who asks the database: a thread of its own, so that requests go on while a statement runs.

Work is a course: a generator that yields jobs for the database and gets their results. What it does between jobs
happens in the engine's own thread, so the engine's state belongs to one thread alone. Jobs are done one after another,
in the order in which they were given, and so are the steps that follow them.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any

from django.db import connections

#: What the database is asked; its result is what the course's `yield` gives.
Job = Callable[[], Any]
Course = Generator[Job, Any, None]


class Inline:
    """Does each job at once, in the caller's thread and transaction."""

    #: Courses that are not over.
    busy = 0

    def follow(self, course: Course) -> None:
        """Begin a course. Raises what its jobs raise."""
        result = None
        with contextlib.suppress(StopIteration):
            while True:
                result = course.send(result)()

    def fileno(self) -> int | None:
        """A descriptor that becomes readable when `proceed` has something to do; None when it never has."""
        return None

    def proceed(self) -> None:
        """Take the courses further whose jobs are done. Raises what a job raised."""

    def wait(self) -> None:
        """Take all courses to their end."""


class Desk(Inline):
    """Does jobs in a thread with a database connection of its own. A context manager; not to be used after a fork."""

    def __init__(self) -> None:
        self.busy = 0
        self._jobs: SimpleQueue[tuple[Course, Job] | None] = SimpleQueue()
        self._done: deque[tuple[Course, Any, BaseException | None]] = deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._work, name="engine-database", daemon=True)

    def __enter__(self) -> Desk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.put(None)
        self._thread.join()
        os.close(self._bell)

    def follow(self, course: Course) -> None:
        self.busy += 1
        self._step(course, None)

    def fileno(self) -> int:
        return self._bell

    def proceed(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        while self._done:
            course, result, problem = self._done.popleft()
            if problem is not None:
                self.busy -= 1
                raise problem
            self._step(course, result)

    def wait(self) -> None:
        while self.busy:
            select.select([self._bell], [], [])
            self.proceed()

    def _step(self, course: Course, result: Any) -> None:
        try:
            job = course.send(result)
        except StopIteration:
            self.busy -= 1
        else:
            self._jobs.put((course, job))

    def _work(self) -> None:
        try:
            while (given := self._jobs.get()) is not None:
                course, job = given
                try:
                    self._done.append((course, job(), None))
                except BaseException as problem:
                    self._done.append((course, None, problem))
                os.eventfd_write(self._bell, 1)
        finally:
            connections.close_all()
