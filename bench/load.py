"""A closed-loop HTTP client over raw sockets: each connection asks again as soon as its answer is complete. It throws bodies away in the kernel, so that it costs as little as it can."""

from __future__ import annotations

import itertools
import re
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
HEAD_BYTES = 8192
DISCARD_BYTES = 4 << 20
TICKS = 100
"""Of /proc/PID/stat in a second: USER_HZ on Linux."""


@dataclass(frozen=True)
class Load:
    """What one run saw. ``cpu_s`` is the serving processes' time, user and system."""

    seconds: float
    answers: int
    body_bytes: int
    p99_ms: float
    cpu_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def mib_s(self) -> float:
        """MiB of bodies a second."""
        return self.body_bytes / self.seconds / (1 << 20)

    @property
    def cpu_us(self) -> float:
        """Microseconds of the server's CPU for one answer."""
        return self.cpu_s / self.answers * 1e6

    @property
    def cpu_s_gib(self) -> float:
        """Seconds of the server's CPU for one GiB."""
        return self.cpu_s / self.body_bytes * (1 << 30)


class Connection:
    """One client. ``receive`` says whether an answer is complete."""

    def __init__(self, port: int, status: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.begun = 0.0
        self.body_bytes = 0
        self._status = status
        self._left = -1

    def ask(self, request: bytes) -> None:
        self.begun = time.perf_counter()
        self.socket.send(request)

    def receive(self, scratch: bytearray) -> bool:
        if self._left < 0:
            self._read_head(self.socket.recv(HEAD_BYTES))
        else:
            got = self.socket.recv_into(scratch, min(self._left, DISCARD_BYTES), socket.MSG_TRUNC)
            if not got:
                raise RuntimeError("the server closed in the middle of an answer")
            self._left -= got
        if self._left:
            return False
        self._left = -1
        return True

    def _read_head(self, first: bytes) -> None:
        head, end, body = first.partition(b"\r\n\r\n")
        if not end or head.split(b" ", 2)[1] != self._status:
            raise RuntimeError(f"unexpected answer: {first[:300]!r}")
        length = LENGTH.search(head + b"\r\n")
        self.body_bytes = int(length[1]) if length else 0
        self._left = self.body_bytes - len(body)


def run(port: int, requests: Sequence[bytes], *, clients: int, seconds: float, pids: Sequence[int], status: bytes = b"200") -> Load:
    """Ask for ``seconds``, and until the answers under way are complete. ``requests`` are taken in turn."""
    scratch = bytearray(DISCARD_BYTES)
    turn = itertools.cycle(requests)
    poll = select.epoll()
    connections = {connection.socket.fileno(): connection for connection in (Connection(port, status) for _ in range(clients))}
    took: list[float] = []
    body_bytes = 0
    cpu_before, begun = cpu_s(pids), time.perf_counter()
    for number, connection in connections.items():
        poll.register(number, select.EPOLLIN)
        connection.ask(next(turn))
    busy = clients
    while busy:
        for number, _ in poll.poll():
            connection = connections[number]
            if not connection.receive(scratch):
                continue
            now = time.perf_counter()
            took.append(now - connection.begun)
            body_bytes += connection.body_bytes
            if now - begun < seconds:
                connection.ask(next(turn))
            else:
                busy -= 1
    ended = time.perf_counter()
    spent = cpu_s(pids) - cpu_before
    for connection in connections.values():
        connection.socket.close()
    poll.close()
    took.sort()
    return Load(ended - begun, len(took), body_bytes, took[int(len(took) * 0.99)] * 1000, spent)


def cpu_s(pids: Sequence[int]) -> float:
    """What these processes have spent so far."""
    spent = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / TICKS
