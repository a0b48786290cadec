"""The cheapest sender there is in Python: libcurl's multi interface and bytes that are ready to be posted."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pycurl

#: Requests at once.
AT_ONCE = 32


def post_all(url: str, requests: Sequence[tuple[Sequence[str], bytes]]) -> float:
    """Post (header lines, body) each and wait for all answers. Returns requests per second."""
    multi = pycurl.CurlMulti()
    waiting = iter(requests)
    under_way = 0
    began = time.perf_counter()

    def start(curl: pycurl.Curl) -> int:
        following = next(waiting, None)
        if following is None:
            return 0
        curl.setopt(pycurl.HTTPHEADER, [*following[0], "Expect:", "Accept:"])
        curl.setopt(pycurl.POSTFIELDS, following[1])
        multi.add_handle(curl)
        return 1

    # Kept here: pycurl's multi handle does not hold on to them.
    handles = [_handle(url) for _ in range(AT_ONCE)]
    for curl in handles:
        under_way += start(curl)
    while under_way:
        multi.perform()
        queued = 1
        done = 0
        while queued:
            queued, succeeded, failed = multi.info_read()
            if failed:
                raise RuntimeError(f"{url} did not answer: {failed[0][2]}")
            for curl in succeeded:
                multi.remove_handle(curl)
                under_way += start(curl) - 1
                done += 1
        if not done:
            multi.select(1.0)
    return len(requests) / (time.perf_counter() - began)


def _handle(url: str) -> pycurl.Curl:
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url)
    curl.setopt(pycurl.POST, 1)
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.WRITEFUNCTION, lambda data: None)
    return curl
