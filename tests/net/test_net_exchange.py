"""The kernel wakes an exchange for many bytes of a body at once: what is less than that is heard of all the same, at the end of the body and when the peer falls silent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from replicad.net.exchange import BULK_BYTES, RECORD_BYTES_MAX, Answer, Connection
from support.waiting import until

pytestmark = pytest.mark.sockets
LENGTH = 4 * BULK_BYTES
LITTLE = BULK_BYTES // 8
CRUMB = 512


@asynccontextmanager
async def begun(*, stall_s: float, length: int, kind: type[Connection] = Connection) -> AsyncIterator[tuple[socket.socket, Connection, asyncio.Task[Answer]]]:
    """An exchange over a connection: the peer's socket, from which the head has come, this side's connection, which is woken for many bytes at once, and what will come of it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, closing(socket.create_connection(listener.getsockname())) as own:
        peer, _ = listener.accept()
        with closing(peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LENGTH)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            own.setblocking(False)
            _, connection = await asyncio.get_running_loop().create_connection(kind, sock=own)

            async def send() -> None:
                peer.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % length)

            async with asyncio.TaskGroup() as group, asyncio.timeout(30):
                body = memoryview(bytearray(length))
                answer = group.create_task(connection.exchange(send, lambda _head: body, stall_s=stall_s, limit_s=60))
                await until(lambda: connection._bulk_bytes > 1, what="the head")
                yield peer, connection, answer
                await answer
            connection.close()


@asynccontextmanager
async def exchange(*, stall_s: float) -> AsyncIterator[tuple[socket.socket, Connection, asyncio.Task[Answer]]]:
    """The same when the first bytes of ``LENGTH`` have come, too, and this side is woken for ``BULK_BYTES`` at once."""
    async with begun(stall_s=stall_s, length=LENGTH) as (peer, connection, answer):
        assert connection._bulk_bytes == BULK_BYTES
        peer.sendall(bytes(BULK_BYTES))
        await until(lambda: connection._received == BULK_BYTES, what="the first bytes")
        yield peer, connection, answer


async def test_what_a_peer_sent_before_it_fell_silent_counts() -> None:
    async with exchange(stall_s=0.5) as (peer, _, answering):
        peer.sendall(bytes(LITTLE))
        answer = await answering
    assert answer.received == BULK_BYTES + LITTLE
    assert answer.error is not None
    assert answer.error.error_code == "stalled"


async def test_a_peer_that_goes_on_after_a_silence_is_not_given_up() -> None:
    """Longer than it may be silent in one piece, but never that long without a byte."""
    async with exchange(stall_s=0.5) as (peer, connection, answering):
        peer.sendall(bytes(LITTLE))
        await until(lambda: connection._received == BULK_BYTES + LITTLE, what="the little")
        peer.sendall(bytes(LENGTH - BULK_BYTES - LITTLE))
        answer = await answering
    assert answer == Answer(answer.head, LENGTH, None)


async def test_a_body_that_ends_with_little_ends_at_once() -> None:
    async with exchange(stall_s=60) as (peer, connection, answering):
        peer.sendall(bytes(LENGTH - BULK_BYTES - LITTLE))
        await until(lambda: connection._received == LENGTH - LITTLE, what="all but the last bytes")
        peer.sendall(bytes(LITTLE))
        answer = await answering
    assert answer == Answer(answer.head, LENGTH, None)


async def test_a_body_that_is_cut_after_little_loses_none_of_it() -> None:
    async with exchange(stall_s=60) as (peer, _, answering):
        peer.sendall(bytes(LITTLE))
        peer.shutdown(socket.SHUT_WR)
        answer = await answering
    assert answer.received == BULK_BYTES + LITTLE
    assert answer.error is not None
    assert answer.error.error_code == "cut-body"


@pytest.mark.parametrize("length", [LENGTH, BULK_BYTES, BULK_BYTES // 2])
async def test_a_body_that_comes_in_crumbs_is_read_in_few_pieces(length: int) -> None:
    """However many there are on its way, to its very end: what is left is waited for as well, but for the last of what a TLS record may hold back."""
    reads = list[int]()

    class Counting(Connection):
        def buffer_updated(self, nbytes: int) -> None:
            reads.append(nbytes)
            super().buffer_updated(nbytes)

    async with begun(stall_s=60, length=length, kind=Counting) as (peer, _, answering):

        def crumbs() -> None:
            for _ in range(length // CRUMB):
                peer.sendall(bytes(CRUMB))

        await asyncio.to_thread(crumbs)
        answer = await answering
    assert answer == Answer(answer.head, length, None)
    assert len(reads) <= 1 + length // BULK_BYTES + 1 + RECORD_BYTES_MAX // CRUMB
