"""How the engine does with endpoints that take their time, that speak TLS, or of which one never answers.

`python -m benchmarks.endpoints [--kind sqlite|postgresql] [--runs N]` prints the median (least-most) of each figure,
beside what it should be. It runs the real engine in a real django-q cluster.

Slow endpoints take 50 ms for each answer, and one engine serves them. The rate of one of them alone is that of the
later half of its requests, when its cap has grown; the cap is what the endpoint sees as unanswered at once. TLS
endpoints have a certificate of an authority of our own (`OUTBOUND_CA_FILE`) and are compared with the same ones without
TLS in the same run. Beside a hanging endpoint, events come at a constant pace, for each endpoint so many a second; the
time of a delivery is from the event's commit to its arrival at one of the others, and undisturbed is the same load
without the hanging endpoint, just before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from benchmarks.common import (
    Figure,
    delays,
    environment,
    free_port,
    fresh_database,
    get_json,
    inside,
    percentile,
    receiving,
    report,
    running,
    wait_until_answers,
)
from benchmarks.delivery import JOBS, cluster

SLOW = "slow/50"
SLOW_ENDPOINTS = 64
SLOW_EVENTS = 20_000
ALONE_EVENTS = 5_000
ENDPOINTS = 20
TLS_EVENTS = 100_000
#: Events a second for each endpoint, all in one commit, and how long, in seconds: longer than a request may take, and
#: than a slice of the engine, so that one ends meanwhile.
PACE = 7
STEADY_SECONDS = 64

ALONE = "1280 (64 / 50 ms)"
FIGURES = (
    Figure("slow", "deliveries/s to 64 endpoints of 50 ms, one engine", ">= 7000", ">= 7000"),
    Figure("slow_at_once", "requests at once to them at most", "512", "512"),
    Figure("alone", "deliveries/s to one endpoint of 50 ms", ALONE, ALONE),
    Figure("alone_16", "ms from its first request to 16 at once"),
    Figure("alone_32", "ms from its first request to 32 at once"),
    Figure("alone_64", "ms from its first request to 64 at once"),
    Figure("plain", "deliveries/s to 20 endpoints without TLS"),
    Figure("tls", "deliveries/s to 20 endpoints with TLS"),
    Figure("tls_share", "of the rate without TLS", ">= 0.85", ">= 0.85"),
    Figure("tls_reuse", "% of TLS requests over a connection used before", ">= 95", ">= 95"),
    Figure("calm_p50", "ms to 20 endpoints at a constant pace, p50"),
    Figure("calm_p99", "ms to 20 endpoints at a constant pace, p99"),
    Figure("beside_p50", "ms to them beside one that hangs, p50"),
    Figure("beside_p99", "ms to them beside one that hangs, p99"),
    Figure("beside_ratio", "times the p99 without it", "<= 2", "<= 2"),
)


def drained(url: str, address: str, count: int, events: int, apart: str = "", **extra: str) -> float:
    """The rate at which a backlog for so many endpoints is delivered."""
    after = inside(url, JOBS, "prepare", address, count, events, "", apart)["after"]
    with cluster(url, **extra) as engine:
        found: dict[str, float] = inside(url, JOBS, "drained", events, after, engine.pid)
    return found["rate"]


def growth(receiver: str) -> list[float]:
    """When a receiver first had 1, 2, 3 … slow requests unanswered, `time.time()`."""
    found: list[float] = get_json(f"{receiver}/growth")["growth"]  # type: ignore[assignment]
    return found


def slow(url: str) -> dict[str, float]:
    """Many endpoints that take 50 ms."""
    with receiving() as receiver:
        rate = drained(url, f"{receiver}/{SLOW}", SLOW_ENDPOINTS, SLOW_EVENTS, "apart", DELIVERY_DRAINS="1")
        return {"slow": rate, "slow_at_once": len(growth(receiver))}


def alone(url: str) -> dict[str, float]:
    """One endpoint that takes 50 ms."""
    with receiving() as receiver:
        drained(url, f"{receiver}/{SLOW}", 1, ALONE_EVENTS, "apart", DELIVERY_DRAINS="1")
        reached = growth(receiver)
        times = sorted(at for _identifier, at in get_json(f"{receiver}/arrivals")["arrivals"])  # type: ignore[attr-defined]
    later = times[len(times) // 2 :]
    found = {
        f"alone_{number}": (reached[number - 1] - reached[0]) * 1000
        for number in (16, 32, 64)
        if number <= len(reached)
    }
    return {"alone": (len(later) - 1) / (later[-1] - later[0]), **found}


@contextmanager
def both_ways() -> Iterator[tuple[str, str, str]]:
    """The addresses of one receiver without and with TLS, and the file of the authority that it is known by."""
    with tempfile.TemporaryDirectory(prefix="webio-bench-tls-") as folder:
        authority = trustme.CA()
        trusted, pem = Path(folder, "authority.pem"), Path(folder, "receiver.pem")
        authority.cert_pem.write_to_path(trusted)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
        port, tls_port = free_port(), free_port()
        with running("-m", "benchmarks.receiver", str(port), str(tls_port), str(pem), env=environment("")):
            wait_until_answers(f"http://127.0.0.1:{port}/arrivals")
            yield f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}", str(trusted)


def with_tls(url: str) -> dict[str, float]:
    """The same endpoints without and with TLS."""
    with both_ways() as (plain, tls, trusted):
        plain_rate = drained(url, plain, ENDPOINTS, TLS_EVENTS)
        before = get_json(f"{plain}/arrivals")
        tls_rate = drained(url, tls, ENDPOINTS, TLS_EVENTS, OUTBOUND_CA_FILE=trusted)
        after = get_json(f"{plain}/arrivals")
    made, requests = (after[name] - before[name] for name in ("connections", "count"))  # type: ignore[operator]
    return {
        "plain": plain_rate,
        "tls": tls_rate,
        "tls_share": tls_rate / plain_rate,
        "tls_reuse": (1 - made / requests) * 100,
    }


def steadily(url: str) -> dict[str, float]:
    """Times of deliveries at a constant pace, first undisturbed, then beside an endpoint that never answers."""
    with receiving() as receiver:
        prepared = inside(url, JOBS, "prepare", receiver, ENDPOINTS, ENDPOINTS)
        good = prepared["organisations"]
        # Recording shall not take as long as delivering, because the planner has not seen the tables yet.
        inside(url, "benchmarks.common", "vacuum")
        with cluster(url) as engine:
            inside(url, JOBS, "drained", ENDPOINTS, prepared["after"], engine.pid)
            calm = delays(receiver, inside(url, JOBS, "steady", STEADY_SECONDS, PACE, "", *good))
            hanging = inside(url, "benchmarks.common", "endpoints", f"{receiver}/hang", 1)
            beside = delays(receiver, inside(url, JOBS, "steady", STEADY_SECONDS, PACE, *hanging, *good))
    return {
        "calm_p50": percentile(calm, 0.5),
        "calm_p99": percentile(calm, 0.99),
        "beside_p50": percentile(beside, 0.5),
        "beside_p99": percentile(beside, 0.99),
        "beside_ratio": percentile(beside, 0.99) / percentile(calm, 0.99),
    }


def measure(kind: str) -> dict[str, float]:
    """What `FIGURES` names."""
    with fresh_database(kind) as url:
        return {**slow(url), **alone(url), **with_tls(url), **steadily(url)}


if __name__ == "__main__":
    report("endpoints", FIGURES, measure)
