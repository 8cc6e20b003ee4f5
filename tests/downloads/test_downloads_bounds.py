"""What hostile, broken, slow and many clients get, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import logging
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path

import pytest
from downloads_world import Client, World, listening, read_reply, request_of

from replicad.errors import StorageError
from replicad.server.downloads import application, connections
from replicad.server.downloads.config import DownloadsConfig
from replicad.server.listening import UNSENT_BYTES, open_downloads
from support.network import free_port
from support.waiting import until

pytestmark = pytest.mark.sockets

HUGE = 256 << 20
"""More than any socket buffer takes."""


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    def kinds() -> list[str]:
        found = []
        for name in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(str(name.readlink()))
        return [kind for kind in found if "/" in kind and "/proc" not in kind and "/dev" not in kind]

    before = kinds()
    yield
    assert sorted(kinds()) == sorted(before)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.share("jamf")
    world.put("jamf", "small", b"0123456789" * 100)
    content = world.put("jamf", "huge", b"")
    with world.path_of(content).open("ab") as huge:
        huge.truncate(HUGE)
    world.name("jamf", "huge", content, size=HUGE)
    return world


@pytest.fixture(params=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


async def closed_without_a_word(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        return await reader.read() == b""


async def test_a_head_without_an_end(world: World, tls: bool) -> None:
    async with world.serve(tls=tls) as client:
        reader, writer = await client.connect()
        writer.write(b"GET / HTTP/1.1\r\n")
        for number in range(5):
            writer.write(f"X-{number}: {'a' * 7000}\r\n".encode())
            await writer.drain()
        reply = await read_reply(reader)
        assert (reply.status, reply.fields["connection"]) == (431, "close")
        assert await closed_without_a_word(reader)
        writer.close()


@pytest.mark.parametrize("start", [b"", b"GET /jamf/small HT", request_of("/jamf/small")[:-2]], ids=["silence", "half a line", "half a head"])
async def test_who_never_asks_is_closed(world: World, tls: bool, start: bytes) -> None:
    async with world.serve(tls=tls, config=DownloadsConfig(idle_s=0.2)) as client:
        reader, writer = await client.connect()
        writer.write(start)
        assert await closed_without_a_word(reader)
        writer.close()


async def test_who_asks_without_end_in_single_bytes_is_closed(world: World, tls: bool) -> None:
    """Slowloris: what trickles in does not put the end off."""
    async with world.serve(tls=tls, config=DownloadsConfig(idle_s=0.3)) as client:
        reader, writer = await client.connect()
        writer.write(b"GET /jamf/small HTTP/1.1\r\nX-A: ")
        async with asyncio.timeout(10):
            while not reader.at_eof():
                writer.write(b"a")
                with contextlib.suppress(TimeoutError):
                    assert await asyncio.wait_for(reader.read(1), 0.05) == b""
        writer.close()


async def test_idle_after_an_answer_is_closed(world: World, tls: bool) -> None:
    async with world.serve(tls=tls, config=DownloadsConfig(idle_s=0.2)) as client:
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/small"))
        assert (await read_reply(reader)).status == 200
        writer.write(b"GET /jamf/sm")
        assert await closed_without_a_word(reader)
        writer.close()


async def test_more_connections_than_allowed(world: World, tls: bool) -> None:
    async with world.serve(tls=tls, config=DownloadsConfig(connections_max=2)) as client:
        first, second = await client.connect(), await client.connect()
        for reader, writer in (first, second):
            writer.write(request_of("/jamf/small"))
            assert (await read_reply(reader)).status == 200
        refused, writer = await client.connect()
        raw = await refused.read()
        assert raw.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in raw
        writer.close()
        first[1].close()
        await until(lambda: len(client.server.connections) == 1, what="the place of a client that left")
        assert (await client.get("/jamf/small")).status == 200
        second[1].close()


async def test_no_client_alone_keeps_the_others_out(world: World) -> None:
    """127.0.0.0/8 is many clients, here; a trusted proxy is many, too."""

    async def statuses(client: Client, *sources: str) -> list[bytes]:
        found = []
        for source in sources:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port, local_addr=(source, 0))
            client._writers.append(writer)
            writer.write(request_of("/jamf/small"))
            found.append((await reader.readexactly(12))[9:])
        return found

    config = DownloadsConfig(connections_max=5, connections_per_client_max=2)
    async with world.serve(config=config) as client:
        assert await statuses(client, *["127.0.0.2"] * 3, "127.0.0.3") == [b"200", b"200", b"503", b"200"]
        client._writers.pop(0).close()
        await until(lambda: len(client.server.connections) == 2, what="the place of a client that left")
        assert await statuses(client, "127.0.0.2", "127.0.0.2") == [b"200", b"503"]
    await until(lambda: not client.server._of_client, what="the end of all connections")
    async with world.serve(config=dataclasses.replace(config, proxies=(ip_network("127.0.0.2/32"),))) as client:
        assert await statuses(client, *["127.0.0.2"] * 4, "127.0.0.3", "127.0.0.3") == [b"200"] * 5 + [b"503"]


async def test_a_client_that_takes_nothing_is_cut_off(world: World, tls: bool) -> None:
    async with world.serve(tls=tls, config=DownloadsConfig(stall_s=0.2)) as client:
        with socket.create_connection(("127.0.0.1", client.port)) as raw:
            raw.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=raw, ssl=client._context, server_hostname="x" if tls else None, limit=1024)
            writer.write(request_of("/jamf/huge"))
            await until(lambda: client.server.connections, what="the connection")
            writer.transport.pause_reading()
            await until(lambda: not client.server.connections, what="the end of a client that takes nothing")
            writer.transport.abort()
        del reader
        assert (await client.get("/jamf/small")).status == 200


def queued_bytes(transport: asyncio.Transport | None) -> int:
    """What the kernel keeps for the other end."""
    if transport is None:
        return 0
    queued = bytearray(4)
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, queued)
    return int.from_bytes(queued, "little")


async def test_a_slow_client_costs_no_memory_here(world: World, tls: bool) -> None:
    """Nothing is read ahead for it: plain, the kernel has it all; with TLS at most what one read and one low-water mark make."""
    async with world.serve(tls=tls) as client:
        reader, writer = await client.connect()
        writer.transport.pause_reading()
        writer.write(request_of("/jamf/huge"))

        def stalled() -> bool:
            return any(queued_bytes(handler.transport) > 0 for handler in client.server.connections)

        await until(stalled, what="a full socket")
        for handler in client.server.connections:
            assert handler.transport is not None
            assert handler.transport.get_write_buffer_size() <= ((256 + 64 + 64) << 10 if tls else 0)
        writer.transport.abort()
        del reader


async def test_the_kernel_keeps_little_for_a_slow_client(world: World) -> None:
    """Of a file of many MiB; a segment of the loopback more than the bound, and what is on its way into a window of a few KiB."""
    server, port = world.server(), free_port()
    async with AsyncExitStack() as stack:
        await open_downloads(stack, server, host="127.0.0.1", port=port)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", port))
            slow.sendall(request_of("/jamf/huge"))
            await until(lambda: any(queued_bytes(handler.transport) for handler in server.connections), what="the beginning of the answer")
            assert max(queued_bytes(handler.transport) for handler in server.connections) <= UNSENT_BYTES + (128 << 10)


async def test_a_client_that_leaves_in_the_middle(world: World, tls: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with world.serve(tls=tls) as client:
        for linger in (False, True):
            reader, writer = await client.connect()
            writer.write(request_of("/jamf/huge"))
            await reader.readexactly(100_000)
            if linger:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await until(lambda: not client.server.connections, what="the end of both connections")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_half_closed_clients_get_their_file(world: World) -> None:
    """`nc` and some proxies end their sending side once the request is out."""
    async with world.serve() as client:
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/huge", "Range: bytes=0-20000000"))
        writer.write_eof()
        reply = await read_reply(reader)
        assert (reply.status, len(reply.body)) == (206, 20_000_001)
        writer.close()


async def send_forever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    async with asyncio.timeout(10):
        while True:
            writer.write(piece)
            await writer.drain()


ENDLESS = {
    "a length": (b"Content-Length: 10000000000", bytes(65536)),
    "chunks": (b"Transfer-Encoding: chunked", b"10000\r\n" + bytes(65536) + b"\r\n"),
    "chunks of nothing but extensions": (b"Transfer-Encoding: chunked", b"1;" + b"a" * 65536),
}


@pytest.mark.parametrize("shape", ENDLESS)
async def test_an_endless_body_is_not_read(world: World, tls: bool, shape: str) -> None:
    field, piece = ENDLESS[shape]
    async with world.serve(tls=tls, config=DownloadsConfig(linger_s=0.2)) as client:
        reader, writer = await client.connect()
        writer.write(b"PUT /jamf/new HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % field)
        reply = await read_reply(reader)
        assert (reply.status, reply.fields["connection"]) == (405, "close")
        with pytest.raises(ConnectionError):  # the door closes under a client that goes on sending
            await send_forever(writer, piece)
        writer.close()


async def test_requests_without_reading_answers(world: World, tls: bool) -> None:
    """Pipelined without end, never reading: reading stops instead of queueing answers."""
    async with world.serve(tls=tls) as client:
        reader, writer = await client.connect()
        writer.transport.pause_reading()
        request = request_of("/jamf/small") * 100
        sent = 0
        while sent < 200 << 20:
            writer.write(request)
            sent += len(request)
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                break
        else:
            pytest.fail("the door took 200 MiB of requests whose answers nobody reads")
        for handler in client.server.connections:
            assert handler.transport is not None
            assert handler.transport.get_write_buffer_size() <= 128 << 10
            assert 0 < len(handler._waiting) <= connections.PIPELINED_MAX
            assert len(handler._tail) < 512 << 10, "one read of the loop"
        writer.transport.abort()
        del reader


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    application.log._seldom.clear()
    connections.log._seldom.clear()
    caplog.set_level(logging.WARNING)
    return caplog


async def test_garbage_is_logged_once_per_client(world: World, warnings: pytest.LogCaptureFixture) -> None:
    async with world.serve() as client:
        for garbage in (b"\x00\xff" * 50 + b"\r\n\r\n", b"GET\r\n\r\n", b"\r\n" * 50 + b"nonsense\r\n\r\n") * 5:
            assert (await client.ask(garbage)).status == 400
        assert (await client.get("/jamf/small")).status == 200
    assert [record.getMessage() for record in warnings.records] == ["bad request"]
    assert warnings.records[0].fields["client"] == "127.0.0.1"  # type: ignore[attr-defined]


async def test_an_unforeseen_error_is_one_500(world: World, warnings: pytest.LogCaptureFixture) -> None:
    async with world.serve() as client:
        world.shares = None  # type: ignore[assignment]
        reply = await client.get("/jamf/small")
        assert (reply.status, reply.body) == (500, b"500 Internal Server Error\n")
    assert [record.getMessage() for record in warnings.records] == ["a request failed"]
    assert warnings.records[0].exc_info is not None


async def test_an_answer_that_fails_unforeseen_ends_the_connection(
    world: World, tls: bool, warnings: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.serve(tls=tls) as client:
        with monkeypatch.context() as broken:
            broken.setattr(connections.Response, "_head", lambda *_: 1 / 0)
            reader, writer = await client.connect()
            writer.write(request_of("/jamf/small"))
            with contextlib.suppress(ConnectionError):
                assert await closed_without_a_word(reader)
            writer.close()
        assert (await client.get("/jamf/small")).status == 200
    assert [record.getMessage() for record in warnings.records] == ["an answer failed"]


async def test_what_was_asked_before_an_upgrade_is_answered(world: World) -> None:
    async with world.serve() as client:
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/small") + request_of("/jamf/small", "Connection: Upgrade", "Upgrade: websocket") + request_of("/jamf/small"))
        assert [(await read_reply(reader)).fields.get("connection") for _ in range(2)] == [None, "close"]
        assert await closed_without_a_word(reader)
        writer.close()


@pytest.mark.parametrize("error", [StorageError("opening small: Too many open files"), OSError(errno.EMFILE, "Too many open files")])
async def test_a_file_that_cannot_be_opened_for_now(world: World, error: StorageError | OSError, warnings: pytest.LogCaptureFixture) -> None:
    """No descriptors are left, or a directory is out of reach."""
    async with world.serve() as client:
        world.open_error = error
        reply = await client.get("/jamf/small")
        assert (reply.status, reply.fields["retry-after"]) == (503, "1")
        assert world.lost == []
        world.open_error = None
        assert (await client.get("/jamf/small")).status == 200
    [told] = warnings.records
    assert told.getMessage() == "a file cannot be opened"
    assert told.fields["reason"].endswith("Too many open files")  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("damage", ["missing", "short", "long"])
async def test_a_blob_that_is_not_as_promised(world: World, method: str, damage: str, warnings: pytest.LogCaptureFixture) -> None:
    content = world.put("jamf", "victim", b"x" * 100_000)
    path = world.path_of(content)
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 99_999 if damage == "short" else 100_001)
    async with world.serve() as client:
        reply = await client.get("/jamf/victim", method=method)
        assert reply.status == 404
        assert world.lost == [content]
        assert (await client.get("/jamf/victim")).status == 404
    assert world.lost == [content]
    assert [record.getMessage() for record in warnings.records] == ["content on this disk cannot be read as it should be"]


async def test_a_blob_that_shrinks_while_it_is_sent(world: World, tls: bool) -> None:
    """The connection ends short of Content-Length, and somebody hears of it."""
    content = next(listed.content for (_, key), listed in world.names.items() if key == "huge")
    async with world.serve(tls=tls) as client:
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/huge"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {HUGE}".encode() in head
        os.truncate(world.path_of(content), HUGE // 2)
        received = 0
        try:
            while piece := await reader.read(1 << 20):
                received += len(piece)
        except ConnectionError:
            pass
        assert received < HUGE
        await until(lambda: world.lost == [content], what="a report of the loss")
        writer.close()


async def test_stopping_cuts_downloads_within_twice_the_drain(world: World, tls: bool) -> None:
    server = application.make(world, world, view=application.View(world.visible, world), waiting_for=list)
    async with asyncio.timeout(20) as limit, listening(server, tls=world.server_context() if tls else None, timeout_s=0.3) as port:
        client = Client(port, tls=tls, server=server)
        idle_reader, idle_writer = await client.connect()
        idle_writer.write(request_of("/jamf/small"))
        assert (await read_reply(idle_reader)).status == 200
        reader, writer = await client.connect()
        writer.write(request_of("/jamf/huge"))
        await reader.readuntil(b"\r\n\r\n")
        limit.reschedule(asyncio.get_running_loop().time() + 5)
    assert await closed_without_a_word(idle_reader)
    received = 0
    try:
        while piece := await reader.read(1 << 20):
            received += len(piece)
    except ConnectionError:
        pass
    assert received < HUGE
    writer.close()
    idle_writer.close()


async def test_a_download_under_way_is_finished_when_stopping(world: World) -> None:
    server = application.make(world, world, view=application.View(world.visible, world), waiting_for=list)

    async def read_all(reader: asyncio.StreamReader) -> int:
        received = 0
        while piece := await reader.read(1 << 20):
            received += len(piece)
        return received

    async with asyncio.TaskGroup() as group, listening(server, timeout_s=20) as port:
        reader, writer = await Client(port, tls=False, server=server).connect()
        writer.write(request_of("/jamf/huge"))
        await reader.readuntil(b"\r\n\r\n")
        reading = group.create_task(read_all(reader))
    assert reading.result() == HUGE
    writer.close()
