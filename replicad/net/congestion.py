"""Which congestion control suits a connection on which a file leaves."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

NEAR_US = 2000
"""A shorter round trip is that of one place: a network between places has more, and there what the system prefers may be good for losses (a guess)."""
NAME_BYTES_MAX = 16
MIN_RTT = struct.Struct("148xI")
"""``tcpi_min_rtt`` in ``struct tcp_info``, microseconds (linux/tcp.h)."""


def suit(transport: asyncio.Transport) -> None:
    """Replace BBR by Reno, which every Linux allows everybody, on a connection whose shortest round trip is that of one place; anything else stays as the system has it.

    BBR lets about as much be on its way as one shortest round trip holds (draft-ietf-ccwg-bbr). Microseconds hold a few packets, so as soon as anything queues, it sends these one by one: with eight nodes a quarter of all CPU (ADR 0009).
    """
    connection = transport.get_extra_info("socket")
    if connection is None:  # closed, with TLS
        return
    with contextlib.suppress(OSError, struct.error):
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_BYTES_MAX).startswith(b"bbr"):
            (shortest_us,) = MIN_RTT.unpack(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, MIN_RTT.size))
            if shortest_us < NEAR_US:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
