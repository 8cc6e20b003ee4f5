"""A node that was killed or stopped goes on where it was."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from replicad.model.manifest import Manifest
from replicad.model.records import Entry
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.events import Target
from replicad.services.fetch import partials as saving
from support.data_node import DataNetwork, DataNode, data_network
from support.storing import RecordingDisk, manifest_of, random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets
MIB = 1 << 20
SIZE = 128 * MIB
CONFIG = FetchConfig(extent_bytes_max=4 * MIB, bytes_in_flight_max=16 * MIB)


async def _half_fetched(network: DataNetwork, *, percent: int) -> tuple[DataNode, DataNode, Manifest]:
    source, sink = await network.node("source"), await network.node("sink", config=CONFIG)
    await network.share("files")
    await network.link(source, sink)
    manifest = await source.add(random_bytes(SIZE))
    await network.publish(source, "files", big=manifest)
    await until(lambda: sink.fetch.percent(manifest.content) >= percent, what="a part")
    return source, sink, manifest


@pytest.mark.parametrize("percent", [20, 50, 80])
async def test_a_crash_costs_at_most_what_was_not_safe_yet(tmp_path: Path, percent: int) -> None:
    async with data_network(tmp_path) as network:
        source, sink, manifest = await _half_fetched(network, percent=percent)
        await network.crash(sink)
        before = source.fetch.provider.sent_bytes
        saved = 0
        sink = await network.node("sink", config=CONFIG)
        for row in await sink.catalog.partials():
            saved = int.from_bytes(row.bitmap, "little").bit_count() * MIB
        assert saved >= before - 64 * MIB, "at most 64 MiB of what was sent are not safe"
        await network.link(source, sink)
        await sink.wait_for(manifest)
        assert source.fetch.provider.sent_bytes - before <= SIZE - saved
        assert sink.store.path_of(manifest.content).stat().st_size == SIZE


async def test_writers_wait_while_as_much_as_a_crash_may_cost_is_not_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's syncs stand still and then go on; nothing but the size of what was written begins one."""
    monkeypatch.setattr(saving, "GROUP_S", 1e9)
    going = threading.Event()
    disk = RecordingDisk(lambda name: going.wait(60.0) if name == "sync" else None)
    async with data_network(tmp_path) as network:
        sink = await network.node("sink", disk=disk)
        content = random_bytes(40 * MIB)
        manifest = manifest_of(content)
        partials, target = sink.fetch._partials, Target(manifest.content, manifest.id)
        await partials.open(manifest)
        highest = 0

        async def write_all() -> None:
            nonlocal highest
            for index in range(40):
                assert await partials.write(target, index, memoryview(content)[index * MIB : (index + 1) * MIB]) == ([index], [])
                highest = max(highest, partials._unsafe_bytes)

        writing = asyncio.create_task(write_all())
        try:
            await until(
                lambda: writing.done() or (partials._unsafe_bytes >= saving.UNSAFE_BYTES_MAX and not partials._room.is_set()), what="a writer that waits"
            )
            assert not writing.done()
            assert "sync" in disk.calls, "one begins long before that"
        finally:
            going.set()
        await asyncio.wait_for(writing, 60.0)
        assert highest == saving.UNSAFE_BYTES_MAX
        await partials.close(target, discard=True)


async def test_a_good_stop_costs_only_what_was_under_way(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink, manifest = await _half_fetched(network, percent=40)
        await network.stop(sink)
        sink = await network.node("sink", config=CONFIG)
        await network.link(source, sink)
        await sink.wait_for(manifest)
        assert source.fetch.provider.sent_bytes <= SIZE + CONFIG.bytes_in_flight_max


async def test_what_is_not_wanted_any_more_is_given_up(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink, manifest = await _half_fetched(network, percent=20)
        await network.unlink(source, sink)
        await replace(network, source, await source.add(random_bytes(3 * MIB, seed=4)))
        await until(lambda: not list((tmp_path / "sink" / "partials").iterdir()), what="an empty directory of partials")
        assert manifest.content not in {transfer.content for transfer in sink.fetch.transfers()}
        assert not sink.holds(manifest)


async def test_what_a_crash_left_of_a_content_that_is_not_wanted_any_more_is_removed(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink, manifest = await _half_fetched(network, percent=20)
        await network.unlink(source, sink)
        task, sink.task = sink.task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await replace(network, source, await source.add(random_bytes(3 * MIB, seed=4)))
        assert await sink.store.partial_files() == [(manifest.content, manifest.id)]
        await network.stop(sink)
        sink = await network.node("sink", config=CONFIG)
        await until(lambda: not list((tmp_path / "sink" / "partials").iterdir()), what="an empty directory of partials")
        assert await sink.catalog.partials() == []


async def replace(network: DataNetwork, node: DataNode, manifest: Manifest) -> None:
    """The only file is another content now."""
    (listed,) = await node.catalog.entries("files")
    superseded = tuple(await node.catalog.live_records("files", listed.key, "prod"))
    await network.author(node, "files", Entry(listed.path, "prod", manifest.content, manifest.size, manifest.id, 1_700_000_001, supersedes=superseded))
