"""Which congestion control a connection is left with."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from replicad.crypto import certificate
from replicad.net.congestion import MIN_RTT, NEAR_US, suit
from replicad.net.tls import client_context, server_context
from support.waiting import until

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
LEFT_WITH = {"bbr": "reno"}


@contextmanager
def _connected() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other:
            yield one


def _suit(connection: object) -> None:
    suit(cast("Any", SimpleNamespace(get_extra_info=lambda _: connection)))


def _name(connection: socket.socket) -> str:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


@pytest.mark.sockets
@pytest.mark.parametrize("name", ALLOWED)
def test_bbr_gives_way_on_a_short_way_and_nothing_else_does(name: str) -> None:
    with _connected() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        _suit(connection)
        assert _name(connection) == LEFT_WITH.get(name, name)


class Far:
    """A connection under BBR whose shortest round trip took so long: the loopback has none."""

    def __init__(self, shortest_us: int, known_bytes: int = MIN_RTT.size) -> None:
        self._info = MIN_RTT.pack(shortest_us)[:known_bytes]
        self.name = b"bbr"

    def getsockopt(self, _level: int, option: int, _room: int) -> bytes:
        return self.name.ljust(16, b"\0") if option == socket.TCP_CONGESTION else self._info

    def setsockopt(self, _level: int, _option: int, name: bytes) -> None:
        self.name = name


@pytest.mark.parametrize(("far", "left_with"), [(Far(NEAR_US - 1), b"reno"), (Far(NEAR_US), b"bbr"), (Far(1, known_bytes=104), b"bbr")])
def test_on_a_long_way_or_one_that_an_old_kernel_does_not_tell_of_it_stays(far: Far, left_with: bytes) -> None:
    _suit(far)
    assert far.name == left_with


@pytest.mark.sockets
@pytest.mark.parametrize("name", ALLOWED)
async def test_under_tls_it_is_the_same_until_the_connection_is_closed(tmp_path: Path, name: str) -> None:
    """Then it has no socket any more, which must not end in an error in the log."""
    certificate.ensure(tmp_path / "crt", tmp_path / "key")
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0, ssl=server_context(tmp_path / "crt", tmp_path / "key"))
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_context())
        try:
            connection = writer.transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
            suit(writer.transport)
            assert _name(connection) == LEFT_WITH.get(name, name)
        finally:
            writer.transport.abort()
        await until(lambda: writer.transport.get_extra_info("socket") is None, what="the end of the connection")
        suit(writer.transport)


@pytest.mark.sockets
def test_a_closed_connection_or_one_that_is_not_tcp_is_left_alone() -> None:
    one, other = socket.socketpair()
    with one, other:
        _suit(one)
        one.send(b"still")
        assert other.recv(5) == b"still"
    _suit(one)
    assert one.fileno() == -1
