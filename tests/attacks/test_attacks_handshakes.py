"""Strangers who begin TLS handshakes and never end them, at a door over real sockets, on both loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from replicad.crypto import certificate as certificates
from replicad.net.tls import client_context, server_context
from replicad.server import handshakes
from replicad.server.listening import open_tcp, peers_runner

pytestmark = pytest.mark.sockets

ROOM = 8
OTHER = "127.0.0.2"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def port(stack: AsyncExitStack, tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(handshakes, "TLS_HANDSHAKES_MAX", ROOM)
    monkeypatch.setattr(handshakes, "TLS_HANDSHAKE_TIMEOUT_S", 600.0)  # nothing here ends by itself
    own = tmp_path / "crt", tmp_path / "key"
    certificates.ensure(*own)
    await open_tcp(stack, peers_runner(web.Application()), host="127.0.0.1", port=unused_tcp_port, key="peers.listen", tls=server_context(*own))
    return unused_tcp_port


@pytest.fixture
async def sockets() -> AsyncIterator[ExitStack]:
    with ExitStack() as sockets:
        yield sockets
    await asyncio.sleep(0)


def silent(sockets: ExitStack, port: int, address: str) -> socket.socket:
    """The door takes connections in the order in which they were made."""
    connection = sockets.enter_context(socket.create_connection(("127.0.0.1", port), source_address=(address, 0)))
    connection.setblocking(False)
    return connection


async def served(sockets: ExitStack, port: int, connection: socket.socket | None = None) -> bytes:
    """The first line of the answer over TLS, over that connection or a new one, which stays open."""
    reader, writer = await asyncio.open_connection(sock=connection or silent(sockets, port, "127.0.0.1"), ssl=client_context(), server_hostname="127.0.0.1")
    sockets.callback(writer.close)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    return (await reader.readline()).strip()


async def ended(connection: socket.socket) -> bool:
    """Waits until the door ends it, or says anything."""
    try:
        return await asyncio.get_running_loop().sock_recv(connection, 1) == b""
    except ConnectionError:
        return True


def waits(connection: socket.socket) -> bool:
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def test_who_has_most_under_way_makes_room_with_the_oldest(port: int, sockets: ExitStack) -> None:
    strangers = [silent(sockets, port, OTHER) for _ in range(ROOM)]
    for oldest in strangers[:3]:
        silent(sockets, port, "127.0.0.1")
        assert await ended(oldest)
    assert await served(sockets, port) == b"HTTP/1.1 404 Not Found"
    assert await ended(strangers[3])
    assert all(map(waits, strangers[4:]))


async def test_a_flood_from_one_address_ends_only_its_own(port: int, sockets: ExitStack) -> None:
    """However slow an honest client is, within its ten seconds."""
    slow = silent(sockets, port, "127.0.0.1")
    strangers = [silent(sockets, port, OTHER) for _ in range(5 * ROOM)]
    for one in strangers[: -ROOM + 1]:
        assert await ended(one)
    assert await served(sockets, port, slow) == b"HTTP/1.1 404 Not Found"


async def test_a_flood_from_many_addresses_keeps_nobody_out(port: int, sockets: ExitStack) -> None:
    strangers = [silent(sockets, port, f"127.0.1.{number}") for number in range(1, 3 * ROOM)]
    assert await served(sockets, port) == b"HTTP/1.1 404 Not Found"
    for one in strangers[:-ROOM]:
        assert await ended(one)


async def test_who_is_through_or_gone_takes_no_room(port: int, sockets: ExitStack) -> None:
    waiting = [silent(sockets, port, OTHER) for _ in range(ROOM // 2)]
    for _ in range(3 * ROOM):
        assert await served(sockets, port) == b"HTTP/1.1 404 Not Found"
        gone = silent(sockets, port, "127.0.0.1")
        await asyncio.get_running_loop().sock_sendall(gone, b"no TLS at all\r\n\r\n")
        while not await ended(gone):
            pass
    assert all(map(waits, waiting))


async def test_a_door_that_closes_ends_what_is_under_way(stack: AsyncExitStack, port: int, sockets: ExitStack) -> None:
    waiting = silent(sockets, port, OTHER)
    assert await served(sockets, port) == b"HTTP/1.1 404 Not Found"
    async with asyncio.timeout(30):
        await stack.aclose()
    assert await ended(waiting)
    with pytest.raises(ConnectionRefusedError):
        silent(sockets, port, OTHER)
