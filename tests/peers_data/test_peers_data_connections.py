"""Connections to peers' doors: opened before they are needed, used again, no more than are good for something."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from replicad.errors import NotFoundError, UnreachableError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.net.client import ClientConfig, PeerClient
from replicad.protocol.fetch.config import FIRST_REQUESTS
from support.data_node import DataNetwork, DataNode, data_network
from support.storing import manifest_of, random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets


class Silent:
    """A door that counts who comes and never answers."""

    def __init__(self) -> None:
        self.open = self.seen = 0

    async def __call__(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        self.open += 1
        try:
            await reader.read()
        finally:
            self.open -= 1


async def _pair(network: DataNetwork, door: Silent) -> tuple[DataNode, DataNode]:
    nodes = await network.node("source", door=door), await network.node("sink")
    await network.share("files")
    return nodes


@pytest.mark.parametrize("tls", [False, True])
async def test_what_was_prepared_is_used(tmp_path: Path, tls: bool) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        await network.publish(source, "files", a=await source.add(random_bytes(3 * CHUNK_SIZE_MIN, seed=1)))
        (wanted,) = await sink.catalog.wanted()
        async with PeerClient() as client:
            await asyncio.gather(*(client.prepare(to_source) for _ in range(3)))
            prepared = set(client._open)
            assert len(prepared) == FIRST_REQUESTS
            for _ in range(3):
                await client.manifest(to_source, wanted)
            assert set(client._open) == prepared


async def test_what_was_idle_for_too_long_is_replaced_and_what_ended_is_closed(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        door = Silent()
        source, sink = await _pair(network, door)
        to_source, _ = await network.link(sink, source)
        async with PeerClient(ClientConfig(idle_s=-1.0)) as client:
            await client.prepare(to_source)
            await client.prepare(to_source)
            assert client.connections == FIRST_REQUESTS
            await until(lambda: (door.seen, door.open) == (2 * FIRST_REQUESTS, FIRST_REQUESTS), what="new connections in place of the old")
            client.forget(source.id)
            assert client.connections == 0
            await until(lambda: door.open == 0, what="their end")


async def test_what_the_door_closes_just_before_its_first_use_is_replaced(tmp_path: Path) -> None:
    """As a door does that has too many connections: the peer did nothing wrong and can be asked."""
    seen = 0

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        closes = seen <= FIRST_REQUESTS
        await reader.readuntil(b"\r\n\r\n")
        if not closes:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", door=door), await network.node("sink")
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        async with PeerClient() as client:
            await client.prepare(to_source)
            await until(lambda: seen == FIRST_REQUESTS, what="connections")
            await network.unlink(source, sink)
            await network.publish(source, "files", a=manifest_of(random_bytes(3 * CHUNK_SIZE_MIN, seed=1)))
            (wanted,) = await sink.catalog.wanted()
            with pytest.raises(NotFoundError):
                await client.manifest(to_source, wanted)


async def test_a_door_that_cannot_be_reached_is_found_out_and_prepared_again_later(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        door = Silent()
        source, sink = await _pair(network, door)
        to_source, _ = await network.link(sink, source)
        async with PeerClient() as client:
            url, to_source.peer_url = to_source.peer_url, "http://127.0.0.1:1"
            with pytest.raises(UnreachableError):
                await client.prepare(to_source)
            to_source.peer_url = None
            await client.prepare(to_source)
            assert client.connections == 0
            to_source.peer_url = url
            await client.prepare(to_source)
            assert client.connections == FIRST_REQUESTS


@pytest.mark.parametrize("size", [5, 3 * CHUNK_SIZE_MIN], ids=["small", "large"])
async def test_whoever_hears_what_is_sought_is_connected_to_before_there_is_anything_to_ask_for(tmp_path: Path, size: int) -> None:
    async with data_network(tmp_path) as network:
        door = Silent()
        source, sink = await _pair(network, door)
        await network.link(sink, source)
        assert door.seen == 0
        await network.publish(source, "files", a=manifest_of(random_bytes(size, seed=2)))
        await until(lambda: door.seen == FIRST_REQUESTS, what="connections")
