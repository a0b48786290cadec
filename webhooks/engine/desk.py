"""Who asks the database: a process of its own, so that requests go on while a statement runs.

Work is a course: a generator that yields jobs for the database and gets their results. What it does between jobs
happens in the engine's own process, so the engine's state belongs to that alone. The jobs of a line are done one after
another, in the order in which they were given, and so are the steps that follow them. They and their results are
pickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pickle
import select
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from enum import IntEnum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NoReturn

from django.db import connections

log = logging.getLogger("webio.deliveries")

#: Room for what the two processes tell each other, bytes: neither waits until the other has read a part of it. Linux
#: gives an ordinary user so much (pipe(7)).
ROOM = 1024 * 1024

#: What the database is asked; its result is what the course's `yield` gives.
Job = Callable[[], Any]
Course = Generator[Job, Any, None]


class Line(IntEnum):
    """Who waits for whom: jobs of one line are done one after another."""

    #: Looking for new events and for what is due.
    LOOK = 0
    #: Outcomes.
    WRITE = 1
    #: New events while a look goes on.
    GLANCE = 2


class Inline:
    """Does each job at once, in the caller's process and transaction."""

    #: Courses that are not over.
    busy = 0
    #: How many jobs it can do at once.
    lines = 1

    def follow(self, course: Course, line: Line = Line.LOOK) -> None:
        """Begin a course, in one of the lines. Raises what its jobs raise."""
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

    def abandon(self, seconds: float) -> bool:
        """Let the jobs that were given be done, without what was to follow, waiting so long at most.

        Returns whether nobody does any more.
        """
        return True


class Desk(Inline):
    """Does jobs in a process of its own, which ends with the one that made it.

    It has a database connection for each of so many lines. What is given to one waits for no other; the last takes what
    is for further ones.

    A context manager, entered by a process's main thread while no other works. It closes the thread's connections: what
    SQLite knows of its open files must not be carried over a fork (sqlite.org/howtocorrupt.html, 2.6). When the other
    process dies, `follow`, `proceed` and `wait` raise `EOFError` or `OSError`.
    """

    def __init__(self, lines: int = 1) -> None:
        self.busy = 0
        self.lines = lines
        #: Courses of each line that wait for a job's result, in the order of their jobs.
        self._waiting: tuple[deque[Course], ...] = tuple(deque() for _ in range(lines))

    def __enter__(self) -> Desk:
        connections.close_all()
        given, self._jobs = _roomy_pipe()
        self._results, told = _roomy_pipe()
        self.process = os.fork()
        if not self.process:
            self._jobs.close()
            self._results.close()
            _serve(given, told, self.lines)
        given.close()
        told.close()
        self._told = select.poll()
        self._told.register(self._results, select.POLLIN)
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.close()
        self._results.close()
        _pid, status = os.waitpid(self.process, 0)
        if status:
            log.error("who asks the database ended with %d", os.waitstatus_to_exitcode(status))

    def follow(self, course: Course, line: Line = Line.LOOK) -> None:
        self.busy += 1
        self._step(course, min(line, self.lines - 1), None)

    def fileno(self) -> int:
        return self._results.fileno()

    def proceed(self) -> None:
        # The connection's own `poll` makes a selector each time, and this is asked between any few requests.
        while self._told.poll(0):
            line, done = _addressed(self._results.recv_bytes())
            course = self._waiting[line].popleft()
            result, problem = pickle.loads(done)
            if problem is not None:
                self.busy -= 1
                raise problem
            self._step(course, line, result)

    def wait(self) -> None:
        while self.busy:
            self._told.poll()
            self.proceed()

    def abandon(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        try:
            while any(self._waiting) and self._told.poll(max(0.0, until - time.monotonic()) * 1000):
                line, _done = _addressed(self._results.recv_bytes())
                self._waiting[line].popleft()
        except (EOFError, OSError):
            # It has died.
            for waiting in self._waiting:
                waiting.clear()
        self.busy = sum(map(len, self._waiting))
        return not self.busy

    def _step(self, course: Course, line: int, result: Any) -> None:
        try:
            job = course.send(result)
        except StopIteration:
            self.busy -= 1
        else:
            self._jobs.send_bytes(_address(line, pickle.dumps(job, pickle.HIGHEST_PROTOCOL)))
            self._waiting[line].append(course)


def _address(line: int, what: bytes) -> bytes:
    """A job of a line, or its result, on its way."""
    return bytes((line,)) + what


def _addressed(given: bytes) -> tuple[int, memoryview]:
    """The line and what was given to `_address`."""
    return given[0], memoryview(given)[1:]


def _roomy_pipe() -> tuple[Connection, Connection]:
    """The two ends of a pipe, to receive and to send."""
    receives, sends = Pipe(duplex=False)
    # One whose user has very many pipes, or whose system is no Linux, has less room, and it works all the same.
    with contextlib.suppress(AttributeError, OSError):
        fcntl.fcntl(sends.fileno(), fcntl.F_SETPIPE_SZ, ROOM)
    return receives, sends


def _serve(given: Connection, told: Connection, lines: int) -> NoReturn:
    """Do jobs until nobody is left to give any."""
    status = 1
    try:
        # Ctrl-C reaches the whole group; who gave the jobs still wants their results.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        jobs: list[SimpleQueue[memoryview | None]] = [SimpleQueue() for _ in range(lines)]
        telling = threading.Lock()
        # Their connections are their own, and whoever gives a job need not wait until the one before is done.
        work = [threading.Thread(target=_work, args=(told, telling, line, own)) for line, own in enumerate(jobs)]
        for one in work:
            one.start()
        with contextlib.suppress(EOFError, OSError):
            while True:
                line, job = _addressed(given.recv_bytes())
                jobs[line].put(job)
        for own in jobs:
            own.put(None)
        for one in work:
            one.join()
        status = 0
    except BaseException:
        log.exception("who asks the database failed")
    finally:
        os._exit(status)


def _work(told: Connection, telling: threading.Lock, line: int, jobs: SimpleQueue[memoryview | None]) -> None:
    try:
        while (job := jobs.get()) is not None:
            done = _address(line, _done(job))
            with telling:
                told.send_bytes(done)
    except OSError:
        # Nobody waits for it any more.
        pass
    except BaseException:
        log.exception("who asks the database failed")
        os._exit(1)
    connections.close_all()


def _done(given: memoryview) -> bytes:
    """Do a pickled job. Returns its pickled result and None, or None and what it raised."""
    try:
        return pickle.dumps((pickle.loads(given)(), None), pickle.HIGHEST_PROTOCOL)
    except BaseException as problem:
        told = traceback.format_exc()
        with contextlib.suppress(Exception):
            problem.add_note(told)
            pickled = pickle.dumps((None, problem))
            pickle.loads(pickled)
            return pickled
        return pickle.dumps((None, RuntimeError(told)))
