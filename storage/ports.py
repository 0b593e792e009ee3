"""Ports for servers that are found again under the address they had.

A port that the kernel hands out ("any that is free") lies where it also takes the near ends of outgoing
connections from, so while a server is down a stranger's connection may sit on its port.  Ports chosen here lie
below those, and above the ones Ray gives its workers (10002 to 19999).
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 20_000
#: Linux: where the near ends of connections begin and end (ip(7), ip_local_port_range).
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 200


def bound(host: str, port: int) -> socket.socket:
    """A TCP socket bound (not listening) to ``port`` of ``host``; `OSError` where somebody else has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As servers do it: a port in TIME_WAIT is free, one that somebody listens on is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        bound(host, port).close()
    except OSError:
        return False
    return True


def choose(host: str) -> int:
    """A free port of ``host`` that no outgoing connection is going to take."""
    beyond = _first_ephemeral()
    for port in random.SystemRandom().sample(range(_LOWEST, beyond), min(_TRIES, beyond - _LOWEST)):
        if is_free(host, port):
            return port
    # The kernel was told to use (nearly) all ports for connections: its choice is as good as any.
    with bound(host, 0) as any_free:
        return int(any_free.getsockname()[1])


def _first_ephemeral() -> int:
    try:
        first = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32_768
    return max(_LOWEST, min(first, 65_536))
