"""Messages accepted per second through the API, with the time of one call.

`python -m benchmarks.api sqlite|postgresql` runs web server and workers as `manage.py up` does, sends messages from
several keep-alive clients for a while, and prints the rate and p50/p99 of a call in milliseconds.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import sys
import threading
import time

from benchmarks.common import bootstrap, environment, free_port, fresh_database, percentile, running, wait_until_answers

CLIENTS = 8
SECONDS = 10


def post(connection: http.client.HTTPConnection, path: str, key: str, body: dict[str, str]) -> dict[str, str]:
    """One call. Raises `RuntimeError` unless it is answered 201."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", path, json.dumps(body), headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 201:
        raise RuntimeError(f"{path} answered {answer.status}: {data[:300]!r}")
    found: dict[str, str] = json.loads(data)
    return found


def client(number: int, port: int, key: str, channel_id: str, times: list[float]) -> None:
    """Send messages in a conversation of its own until the time is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    start = {"channelId": channel_id, "outboundChannelAddress": f"35387555{number:04d}"}
    conversation = post(connection, "/api/v1/conversations", key, start)["conversationId"]
    deadline = time.monotonic() + SECONDS
    while (began := time.perf_counter()) and time.monotonic() < deadline:
        post(connection, f"/api/v1/conversations/{conversation}/messages", key, {"body": "Your bill is ready."})
        times.append(time.perf_counter() - began)


def clients(port: int, key: str, channel_id: str, results: multiprocessing.Queue[list[float]]) -> None:
    """All clients in one process, so that they share no interpreter with the server."""
    times: list[list[float]] = [[] for _ in range(CLIENTS)]
    threads = [
        threading.Thread(target=client, args=(number, port, key, channel_id, times[number]))
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put([value for part in times for value in part])


def measure(kind: str) -> dict[str, float]:
    """`{"rate": messages/s, "p50": ms, "p99": ms}` on a fresh database."""
    with fresh_database(kind) as url:
        made = bootstrap(url)
        port = free_port()
        with running("manage.py", "up", "--port", str(port), env=environment(url)):
            wait_until_answers(f"http://127.0.0.1:{port}/readyz")
            results: multiprocessing.Queue[list[float]] = multiprocessing.Queue()
            process = multiprocessing.Process(target=clients, args=(port, made["apiKey"], made["channelId"], results))
            process.start()
            times = results.get()
            process.join()
    return {
        "rate": len(times) / SECONDS,
        "p50": percentile(times, 0.5) * 1000,
        "p99": percentile(times, 0.99) * 1000,
    }


if __name__ == "__main__":
    for name in sys.argv[1:] or ["sqlite"]:
        print(name, measure(name))
