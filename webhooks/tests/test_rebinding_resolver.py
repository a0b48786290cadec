"""DNS rebinding with a resolver that does it: a name server of our own in a network of its own (root, SQLite)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from testing import services

pytestmark = pytest.mark.once

#: In its own network: starts the name server and an endpoint, creates a webhook for a name, and tries again and again.
INSIDE = """
import fcntl, socket, struct, threading
import django
django.setup()
from conftest import make_cast
from conversations.actions import receive_message
from core.tests.receivers import receiver
from webhooks.models import Attempt
from webhooks.tests.conftest import make_webhook
from webhooks.tests.engine import deliver, only

SIOCSIFFLAGS, UP, A = 0x8914, 0x41, b"\\0\\1"
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
fcntl.ioctl(names, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", UP))
names.bind(("127.0.0.1", 53))
answers = iter(["8.8.8.8", *["127.0.0.1", "169.254.169.254"] * 2])

def serve():
    while True:
        query, peer = names.recvfrom(512)
        question = query[12 : query.index(b"\\0", 12) + 5]
        found = b""
        if question[-4:-2] == A:
            address = next(answers)
            print("answered", address, flush=True)
            # The question's name, A, IN, for no second.
            found = b"\\xc0\\x0c\\0\\1\\0\\1" + struct.pack("!IH", 0, 4) + socket.inet_aton(address)
        names.sendto(query[:2] + struct.pack("!5H", 0x8180, 1, bool(found), 0, 0) + question + found, peer)

threading.Thread(target=serve, daemon=True).start()
cast = make_cast("acme")
with receiver() as endpoint:
    webhook = make_webhook(cast, callback_url=f"http://rebound.example.com:{endpoint.port}/hook")
    receive_message(channel=cast.channel, address="447717472695", body="Hello")
    due = None
    for _ in range(5):
        deliver(due)
        due = only(webhook).next_attempt_at
        print(Attempt.objects.latest("id").error, flush=True)
    print("connections", endpoint.connections)
"""
UNSHARED = ["unshare", "--net", "--mount"]


def test_each_answer_of_a_rebinding_resolver_is_judged_when_it_is_dialled(
    environment: dict[str, str], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("A network of its own takes root.")
    services.need(subprocess.run([*UNSHARED, "true"], stderr=subprocess.DEVNULL).returncode == 0, "unshare")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    bound = ["sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(tmp_path / "resolv.conf")]
    done = subprocess.run(
        [*UNSHARED, *bound, sys.executable, "-c", INSIDE],
        env={**environment, "OUTBOUND_ALLOWED_NETWORKS": ""},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    inside = ["answered 127.0.0.1", "refused_address", "answered 169.254.169.254", "refused_address"]
    # No route leads from there to the public address.
    assert done.stdout.splitlines() == ["answered 8.8.8.8", "connect", *inside * 2, "connections 0"]
