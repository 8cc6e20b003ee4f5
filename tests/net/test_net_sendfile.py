"""Sending files: exact bytes through every path, cold pages, stalls, truncation, cancellation."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from replicad.crypto import certificate
from replicad.errors import StorageError
from replicad.net import sendfile
from replicad.net.sendfile import BURST_BYTES, SMALL_BYTES, Terms, send_file
from support.waiting import until

pytestmark = pytest.mark.sockets

BODY = random.Random(5).randbytes(3 * BURST_BYTES + 12_345)


class Sender(asyncio.Protocol):
    """One end of a connection, with aiohttp's idea of ``drain``."""

    def __init__(self) -> None:
        self.connected: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()
        self.room = asyncio.Event()
        self.room.set()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]
        self.connected.set_result(transport)  # type: ignore[arg-type]

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, _: Exception | None) -> None:
        self.lost.set()
        self.room.set()

    async def drain(self) -> None:
        await self.room.wait()


class Receiver(asyncio.Protocol):
    """The other end: keeps what came; ``pause_reading`` on its transport makes it slow."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.ended.set()


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


@pytest.fixture
def connected(tmp_path: Path, tls: bool) -> Callable[[], object]:
    @asynccontextmanager
    async def connected() -> AsyncIterator[tuple[Sender, Receiver]]:
        loop = asyncio.get_running_loop()
        sender, receiver = Sender(), Receiver()
        server_context = client_context = None
        if tls:
            certificate.ensure(tmp_path / "crt", tmp_path / "key")
            server_context, client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            server_context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
            client_context.check_hostname = False
            client_context.verify_mode = ssl.CERT_NONE
        server = await loop.create_server(lambda: sender, "127.0.0.1", 0, ssl=server_context)
        async with server:
            await loop.create_connection(
                lambda: receiver, "127.0.0.1", server.sockets[0].getsockname()[1], ssl=client_context, server_hostname="x" if tls else None
            )
            await sender.connected
            try:
                yield sender, receiver
            finally:
                sender.transport.abort()
                receiver.transport.abort()  # type: ignore[attr-defined]
                await receiver.ended.wait()
                await sender.lost.wait()

    return connected


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(BODY)
    return path


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


SPANS = (
    (0, 0),
    (17, 1),
    (100, 4096),
    (0, SMALL_BYTES),
    (1, SMALL_BYTES + 1),
    (5, BURST_BYTES),
    (0, BURST_BYTES + 1),
    (0, len(BODY)),
    (len(BODY) - 1, 1),
)


@pytest.mark.parametrize("head", [b"", b"HEAD\r\n\r\n", b"H" * 300_000], ids=["no head", "head", "huge head"])
async def test_exact_bytes(connected: Callable, file: Path, head: bytes) -> None:
    async with connected() as (sender, receiver), opened(file) as fd:
        for offset, count in SPANS:
            await send_file(sender.transport, fd, offset=offset, count=count, head=head, drain=sender.drain)
        sender.transport.close()
        await receiver.ended.wait()
        assert receiver.received == b"".join(head + BODY[offset : offset + count] for offset, count in SPANS)


async def test_nothing_overtakes_what_the_transport_still_has(connected: Callable, file: Path, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sendfile, "_open_socket", lambda _: pytest.fail("the socket is written to under the transport"))
    async with connected() as (sender, receiver), opened(file) as fd:
        queued = b"q" * 8_000_000
        sender.transport.write(queued)
        assert tls or sender.transport.get_write_buffer_size() > 0
        await send_file(sender.transport, fd, offset=0, count=len(BODY), head=b"head", drain=sender.drain)
        sender.transport.close()
        await receiver.ended.wait()
        assert receiver.received == queued + b"head" + BODY


async def test_a_slow_receiver_gets_everything(connected: Callable, file: Path) -> None:
    """Stops and goes on several times; nothing is lost, and plain connections keep nothing in this process."""
    async with connected() as (sender, receiver), opened(file) as fd:
        receiver.transport.pause_reading()

        async def send() -> None:
            for _ in range(4):
                await send_file(sender.transport, fd, offset=0, count=len(BODY), head=b"head", drain=sender.drain)
            sender.transport.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            while not receiver.ended.is_set():
                before = len(receiver.received)
                receiver.transport.resume_reading()
                await until(lambda before=before: len(receiver.received) > before or receiver.ended.is_set(), what="more bytes")
                with suppress(RuntimeError):  # it ended meanwhile
                    receiver.transport.pause_reading()
        assert receiver.received == (b"head" + BODY) * 4


async def test_a_large_file_leaves_in_whole_segments_and_its_last_bytes_at_once(connected: Callable, file: Path, tls: bool) -> None:
    async with connected() as (sender, receiver), opened(file) as fd:
        connection = sender.transport.get_extra_info("socket")

        def corked() -> bool:
            return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))

        receiver.transport.pause_reading()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send_file(sender.transport, fd, offset=0, count=len(BODY), drain=sender.drain))
            await until(lambda: sendfile._unacknowledged(connection) > 0, what="the first bytes")
            assert corked() is not tls
            receiver.transport.resume_reading()
        await sending
        assert not corked()
        await until(lambda: len(receiver.received) == len(BODY), what="the whole file, the connection being open")


async def test_pages_that_are_not_cached_are_read_by_a_thread(connected: Callable, tmp_path: Path, tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file for each try: the kernel may read it back between its being dropped and the first look (1 in 400 on a quick disk), and then nothing has to be read by anybody."""
    hops = []
    real_hop = sendfile._hop

    async def counted(blocking: Callable[..., object], fd: int, offset: int, count: int) -> object:
        hops.append((offset, count))
        return await real_hop(blocking, fd, offset, count)

    monkeypatch.setattr(sendfile, "_hop", counted)
    first_hops = []
    expected = b""
    async with connected() as (sender, receiver):
        for count in (4096, len(BODY)):
            hops.clear()
            for attempt in range(20):
                path = tmp_path / f"{count} {attempt}"
                path.write_bytes(BODY)
                async with opened(path) as fd:
                    os.fsync(fd)
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    await send_file(sender.transport, fd, offset=0, count=count, drain=sender.drain)
                path.unlink()
                expected += BODY[:count]
                if hops:
                    break
            first_hops += hops[:1]
        sender.transport.close()
        await receiver.ended.wait()
        assert receiver.received == expected
    if len(first_hops) < 2:
        pytest.skip("this file system keeps its pages or cannot tell")
    assert first_hops == [(0, 4096), (0, SMALL_BYTES if tls else BURST_BYTES)]


@pytest.mark.parametrize("count", [4096, len(BODY)])
async def test_a_file_that_ends_early(connected: Callable, file: Path, count: int) -> None:
    os.truncate(file, count - 1)
    async with connected() as (sender, _), opened(file) as fd:
        with pytest.raises(StorageError):
            await send_file(sender.transport, fd, offset=0, count=count, drain=sender.drain)


async def test_a_file_that_cannot_be_read(connected: Callable, tmp_path: Path) -> None:
    async with connected() as (sender, _), opened(tmp_path) as fd:
        for count in (4096, len(BODY)):
            with pytest.raises(StorageError):
                await send_file(sender.transport, fd, offset=0, count=count, drain=sender.drain)
            if sender.transport.is_closing():
                break


async def send_forever(sender: Sender, fd: int, **options: object) -> None:
    for _ in range(1000):
        await send_file(sender.transport, fd, offset=0, count=len(BODY), drain=sender.drain, **options)  # type: ignore[arg-type]
    pytest.fail("3 GiB sent to nobody")


async def test_a_receiver_that_is_gone(connected: Callable, file: Path) -> None:
    async with connected() as (sender, receiver), opened(file) as fd:
        receiver.transport.abort()
        with pytest.raises(ConnectionError):
            await send_forever(sender, fd)


@pytest.mark.parametrize("head", [b"", b"H" * 30_000_000], ids=["in the file", "in the head"])
async def test_a_receiver_that_takes_nothing(connected: Callable, file: Path, head: bytes) -> None:
    async with connected() as (sender, receiver), opened(file) as fd:
        receiver.transport.pause_reading()
        with pytest.raises(ConnectionError):
            await send_forever(sender, fd, head=head, terms=Terms(stall_s=0.1))


async def test_cancelled_anywhere(connected: Callable, file: Path) -> None:
    """Cancelled while it waits for the receiver, and while a thread reads: the descriptor can be closed at once."""
    async with connected() as (sender, receiver), opened(file) as fd:
        receiver.transport.pause_reading()

        async def send() -> None:
            while True:
                await send_file(sender.transport, fd, offset=0, count=len(BODY), drain=sender.drain)

        task = asyncio.get_running_loop().create_task(send())
        await until(lambda: sendfile._unacknowledged(sender.transport.get_extra_info("socket")) > 100_000, what="a full socket")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_watch_gives_up_only_without_progress() -> None:
    acknowledged = iter([0, 10, 20, 30, 30])
    looks: list[int] = []
    given_up = asyncio.Event()

    def look() -> int:
        looks.append(next(acknowledged))
        return looks[-1]

    watch = sendfile._Watch(loop=asyncio.get_running_loop(), stall_s=0.01, acknowledged=look, give_up=given_up.set)
    with watch:
        await given_up.wait()
    assert looks == [0, 10, 20, 30, 30]


async def test_a_cancelled_hop_waits_for_its_thread(tmp_path: Path) -> None:
    left, right = socket.socketpair()
    finished = []

    def blocking(fd: int, offset: int, count: int) -> bytes:
        found = left.recv(1)
        finished.append((fd, offset, count))
        return found

    with left, right:
        task = asyncio.get_running_loop().create_task(sendfile._hop(blocking, 1, 2, 3))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        right.send(b"x")
        with pytest.raises(asyncio.CancelledError):
            await task
    assert finished == [(1, 2, 3)]
