"""Bounds, counted at real sockets: contents and bytes at once, requests per peer, answers at once, one visible waiting request."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replicad.errors import BusyError
from replicad.model.chunks import Extent
from replicad.model.ids import Digest, NodeId
from replicad.net.client import PeerClient
from replicad.net.exchange import Answer
from replicad.net.link import Link
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.supply import SEEKS_PER_PEER_MAX, WATCHES_PER_PEER_MAX
from replicad.protocol.wire import Interest, Seek, Small
from support.data_node import data_network
from support.storing import random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets
MIB = 1 << 20


class Counting:
    """Exchanges under way with each peer, counted where they are asked for: one that is given up ends here at once, at the serving side only when that notices."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        now: Counter[NodeId] = Counter()
        exchange = PeerClient._exchange

        async def counted(client: PeerClient, link: Link, *rest: Any, **named: Any) -> Answer:
            now[link.node] += 1
            self.most = max(self.most, now[link.node])
            try:
                return await exchange(client, link, *rest, **named)
            finally:
                now[link.node] -= 1

        monkeypatch.setattr(PeerClient, "_exchange", counted)


async def test_requests_bytes_and_contents_at_once_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = FetchConfig(contents_max=2, requests_per_peer=2, bytes_in_flight_max=5 * MIB, extent_bytes_max=2 * MIB)
    counting = Counting(monkeypatch)
    async with data_network(tmp_path) as network:
        sources = [await network.node(f"source{number}") for number in range(2)]
        sink = await network.node("sink", config=config)
        await network.share("files")
        for source in sources:
            await network.link(source, sink)
        manifests = [await sources[0].add(random_bytes(12 * MIB, seed=number)) for number in range(6)]
        for number in range(6):
            await sources[1].add(random_bytes(12 * MIB, seed=number))
        await network.publish(sources[0], "files", **{f"f{number}": manifest for number, manifest in enumerate(manifests)})
        most_bytes = most_contents = 0
        while not sink.holds(*manifests):
            await asyncio.sleep(0)
            most_bytes = max(most_bytes, sink.fetch._buffers.taken_bytes)
            most_contents = max(most_contents, len(sink.fetch.transfers()))
        assert most_bytes <= config.bytes_in_flight_max
        assert most_contents <= config.contents_max
        assert counting.most == config.requests_per_peer
        assert sink.fetch._buffers.kept_bytes <= config.bytes_in_flight_max


async def test_one_request_waits_visibly_the_next_hears_busy(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source", config=FetchConfig(uploads_max=1, upload_patience_s=60))
        sink, other = [await network.node(name) for name in ("sink", "other")]
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        manifest = await source.add(random_bytes(2 * MIB))
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        provider, buffers = source.fetch.provider, [memoryview(bytearray(MIB)) for _ in range(2)]
        async with PeerClient() as client, asyncio.TaskGroup() as group:
            async with provider.turn(other.id):
                waiting = group.create_task(client.chunks(to_source, manifest, Extent(0, 1), buffers[0]))
                await until(lambda: provider._waiting, what="the waiting request")
                received, error = await client.chunks(to_source, manifest, Extent(1, 1), buffers[1])
                assert received == 0
                assert isinstance(error, BusyError)
                assert not waiting.done()
            assert await waiting == (MIB, None)
            assert (await client.chunks(to_source, manifest, Extent(1, 1), buffers[1])) == (MIB, None)


async def test_a_second_node_that_asks_for_what_another_just_got_hears_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.protocol.fetch.watched.SPREAD_S", 3600.0)  # however slow this machine is
    async with data_network(tmp_path) as network:
        source, sink, other = [await network.node(name) for name in ("source", "sink", "other")]
        await network.share("files")
        links = [(await network.link(node, source))[0] for node in (sink, other)]
        manifest = await source.add(random_bytes(2 * MIB))
        await network.publish(source, "files", big=manifest)
        for node in (sink, other):
            await node.wait_for(manifest)
        supply, buffer = source.fetch.provider.supply, memoryview(bytearray(MIB))
        await until(lambda: not supply.watching, what="the end of the fetches")
        for link in links:
            link.send(Interest(manifest.content, manifest.id))
        await until(lambda: supply.watching == 2, what="both interests")
        async with PeerClient() as client:
            assert await client.chunks(links[0], manifest, Extent(0, 1), buffer) == (MIB, None)
            received, error = await client.chunks(links[1], manifest, Extent(0, 1), buffer)
            assert received == 0
            assert isinstance(error, BusyError)
            assert await client.chunks(links[1], manifest, Extent(1, 1), buffer) == (MIB, None)
            assert await client.chunks(links[0], manifest, Extent(0, 1), buffer) == (MIB, None)


async def test_a_waiting_request_that_gives_up_leaves_nothing_behind(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source", config=FetchConfig(uploads_max=1, upload_patience_s=60))
        provider = source.fetch.provider
        async with provider.turn(source.id):
            waiting = asyncio.create_task(_take_turn(source))
            await until(lambda: provider._waiting, what="the waiting request")
            waiting.cancel()
            await asyncio.wait([waiting])
        assert not provider._waiting
        assert not provider._turns._waiting
        assert not provider._turns._running
        async with provider.turn(source.id):
            assert len(provider._turns._running) == 1


async def _take_turn(source: object) -> None:
    async with source.fetch.provider.turn(source.id):  # type: ignore[attr-defined]
        raise AssertionError("not its turn")


async def test_memory_stays_bounded_when_a_peer_watches_and_seeks_without_end(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.link(sink, source)
        to_source = sink.table.get(source.id)
        assert to_source is not None
        supply = source.fetch.provider.supply
        for number in range(3 * WATCHES_PER_PEER_MAX):
            to_source.send(Interest(Digest(number.to_bytes(32, "big")), Digest(bytes(32))))
        for start in range(0, 3 * SEEKS_PER_PEER_MAX, 1024):
            to_source.send(Seek(tuple(Small(Digest(number.to_bytes(32, "big")), 5) for number in range(start, start + 1024))))
        last = Small(Digest((3 * SEEKS_PER_PEER_MAX - 1).to_bytes(32, "big")), 5)
        await until(lambda: last in supply._seeks.get(sink.id, ()), what="the last seek")
        assert len(supply._seeks[sink.id]) == SEEKS_PER_PEER_MAX
        assert len(supply._watches[sink.id]) == WATCHES_PER_PEER_MAX
        assert len(supply._watched) == WATCHES_PER_PEER_MAX
        await network.unlink(sink, source)
        assert not supply._watched
        assert not supply._seeks
