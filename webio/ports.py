"""Whether a port is ours to take, asked before anything is started on it."""

from __future__ import annotations

import socket
import time

from django.core.management.base import CommandError

#: Seconds that whoever is just ending there, such as the children of a killed `up`, gets to leave.
PATIENCE = 5.0


def claim(host: str, port: int, option: str = "--port") -> None:
    """Raises `CommandError` naming `option` when nothing can listen there."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise CommandError(
                    f"Port {port} of {host} cannot be had ({error.strerror}): choose another with {option}."
                ) from error
        time.sleep(0.2)
