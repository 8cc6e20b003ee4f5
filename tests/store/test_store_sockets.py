"""Receiving straight from a socket: the same promises as from a stream, on both loops, and nothing is taken that is not the upload's."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicad.errors import InputError, IntegrityError
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.store.space import StoreConfig
from support.storing import MIB, manifest_of, opened_store, random_bytes, receive_socket, verify_no_trace
from support.waiting import until

pytestmark = pytest.mark.sockets
SHORT_STALL = StoreConfig(reserve_fraction=0.0, stall_s=0.05)


@contextmanager
def connected(family: socket.AddressFamily = socket.AF_UNIX) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(the client's, ours), both non-blocking."""
    if family == socket.AF_UNIX:
        client, ours = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            ours, _ = server.accept()
    with client, ours:
        client.setblocking(False)
        ours.setblocking(False)
        yield client, ours


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
@pytest.mark.parametrize("prefix", [0, 1, 70_000, MIB, 3 * MIB])
async def test_it_takes_exactly_its_bytes(tmp_path: Path, family: socket.AddressFamily, prefix: int) -> None:
    content = random_bytes(5 * MIB + 17)
    with connected(family) as (client, ours):
        async with opened_store(tmp_path) as store, asyncio.TaskGroup() as group:
            sending = group.create_task(asyncio.get_running_loop().sock_sendall(client, content[prefix:] + b"GET / HTTP/1.1"))
            manifest = await receive_socket(store, ours.fileno(), prefix=content[:prefix], size=len(content), expect=manifest_of(content).content)
            await sending
        assert manifest == manifest_of(content)
        assert store.path_of(manifest.content).read_bytes() == content
        assert ours.recv(100) == b"GET / HTTP/1.1"


@pytest.mark.parametrize("size", [0, 1, 1000, MIB])
async def test_small_ones_too_even_when_all_is_there_already(tmp_path: Path, size: int) -> None:
    content = random_bytes(size)
    with connected() as (_, ours):
        async with opened_store(tmp_path) as store:
            assert await receive_socket(store, ours.fileno(), prefix=content, size=size) == manifest_of(content)


async def test_a_sender_that_comes_byte_by_byte(tmp_path: Path) -> None:
    """Each byte is taken before the next is sent, so every wait of the reader is passed through."""
    content = random_bytes(MIB + 30)
    with connected() as (client, ours):
        loop = asyncio.get_running_loop()
        async with opened_store(tmp_path) as store, asyncio.TaskGroup() as group:
            receiving = group.create_task(receive_socket(store, ours.fileno(), prefix=content[: MIB - 10], size=len(content)))
            for index in range(MIB - 10, len(content)):
                await loop.sock_sendall(client, content[index : index + 1])
                await until(lambda: pending(ours) == 0, what="the byte to be taken")
        assert receiving.result() == manifest_of(content)


def pending(ours: socket.socket) -> int:
    try:
        return len(ours.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return 0


@pytest.mark.parametrize("size", [1000, 4 * MIB])
async def test_a_sender_that_goes_away_leaves_no_trace(tmp_path: Path, size: int) -> None:
    content = random_bytes(size)
    async with opened_store(tmp_path) as store:
        with connected() as (client, ours):
            client.send(content[: size // 2 - 100])
            client.close()
            with pytest.raises(IntegrityError, match=f"of {size} bytes"):
                await receive_socket(store, ours.fileno(), prefix=content[:100], size=size)
        verify_no_trace(store, tmp_path)
        with connected() as (client, ours):
            client.send(content[:500])
            client.shutdown(socket.SHUT_WR)
            with pytest.raises(IntegrityError):
                await receive_socket(store, ours.fileno(), prefix=b"", size=size)
        verify_no_trace(store, tmp_path)
        with connected() as (client, ours):
            client.send(content[:500])
            ours_reading = asyncio.ensure_future(receive_socket(store, ours.fileno(), prefix=b"", size=500, expect=Digest(bytes(32))))
            with pytest.raises(IntegrityError, match="expected 0000"):
                await ours_reading
        verify_no_trace(store, tmp_path)


@pytest.mark.parametrize("size", [1000, 4 * MIB])
async def test_a_sender_that_stalls_is_given_up(tmp_path: Path, size: int) -> None:
    async with opened_store(tmp_path, config=SHORT_STALL) as store:
        with connected() as (client, ours):
            client.send(bytes(900))
            with pytest.raises(InputError, match="stalled") as caught:
                await receive_socket(store, ours.fileno(), prefix=b"", size=size)
            assert not asyncio.get_running_loop().remove_reader(ours.fileno())
        assert caught.value.error_code == "stalled"
        verify_no_trace(store, tmp_path)


@pytest.mark.parametrize("size", [1000, 4 * MIB])
async def test_cancelled_it_lets_go_of_the_socket(tmp_path: Path, size: int) -> None:
    content = random_bytes(size)
    async with opened_store(tmp_path) as store:
        with connected() as (client, ours):
            receiving = asyncio.ensure_future(receive_socket(store, ours.fileno(), prefix=b"", size=size))
            client.send(content[:700])
            await until(lambda: pending(ours) == 0, what="the bytes to be taken")
            receiving.cancel()
            await asyncio.wait([receiving])
            assert receiving.cancelled()
            assert not asyncio.get_running_loop().remove_reader(ours.fileno())
            verify_no_trace(store, tmp_path)
            client.send(b"next")
            assert ours.recv(10) == b"next"


async def test_slow_senders_do_not_keep_the_threads_from_others(tmp_path: Path) -> None:
    """More waiting senders than threads, and yet an upload gets through."""
    content = random_bytes(3 * MIB)
    slow: list[tuple[socket.socket, socket.socket]] = []
    async with opened_store(tmp_path) as store:
        tasks: list[asyncio.Future[Manifest]] = []
        for _ in range(8):
            pair = socket.socketpair()
            pair[1].setblocking(False)
            pair[0].send(b"x")
            slow.append(pair)
            tasks.append(asyncio.ensure_future(receive_socket(store, pair[1].fileno(), prefix=b"", size=2 * MIB)))
        with connected() as (client, ours):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.get_running_loop().sock_sendall(client, content))
                assert await receive_socket(store, ours.fileno(), prefix=b"", size=len(content)) == manifest_of(content)
        assert not any(task.done() for task in tasks)
        for pair in slow:
            pair[0].close()
        await asyncio.wait(tasks)
        assert all(isinstance(task.exception(), IntegrityError) for task in tasks)
        for pair in slow:
            pair[1].close()
        assert store.used_bytes == len(content)


async def test_the_loop_keeps_turning_while_a_big_upload_runs(tmp_path: Path) -> None:
    """Hashing and writing 192 MiB takes some 300 ms: the loop must get hundreds of turns meanwhile, not a handful."""
    loop, turns, done = asyncio.get_running_loop(), 0, False
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    block = random_bytes(MIB)

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not done:
            loop.call_later(0.0005, turn)

    def write_all() -> None:
        for _ in range(192):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(write_end, rest) :]
        os.close(write_end)

    async with opened_store(tmp_path) as store:
        turn()
        writing = loop.run_in_executor(None, write_all)
        manifest = await receive_socket(store, read_end, prefix=b"", size=192 * MIB)
        done = True
        await writing
    os.close(read_end)
    assert manifest.size == 192 * MIB
    assert turns > 50
