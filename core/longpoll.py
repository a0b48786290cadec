"""Answers that are made later: a request waits for something to happen, or for its time to be over.

A server that can (`webio.web_worker`) keeps such a request aside without a thread until it has waited; with any other
the thread that writes the answer waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse

#: Set in the environment of a request by a server that keeps waiting requests aside.
PARKS = "webio.parks"
#: What ends a wait should be on time; whoever holds the request goes on by itself after so many seconds more.
GRACE_SECONDS = 1.0


def parks(request: HttpRequest) -> bool:
    """Whether a wait costs the server no thread."""
    return PARKS in request.META


def end(waited: Future[None]) -> None:
    """The wait is over; once more changes nothing."""
    with suppress(InvalidStateError):
        waited.set_result(None)


class WaitingResponse(StreamingHttpResponse):
    """Writes what `make` returns once `waited` is done, which must be within `seconds`."""

    def __init__(self, waited: Future[None], seconds: float, make: Callable[[], bytes], **kwargs: Any) -> None:
        self.waited = waited
        #: By `time.monotonic`.
        self.until = time.monotonic() + seconds + GRACE_SECONDS
        super().__init__(self._pieces(make), **kwargs)

    def _pieces(self, make: Callable[[], bytes]) -> Iterator[bytes]:
        with suppress(TimeoutError):
            self.waited.result(max(0.0, self.until - time.monotonic()))
        yield make()

    def close(self) -> None:
        """Also what a server does whose client has gone: nobody waits any longer."""
        end(self.waited)
        super().close()
