"""A client of a node that still fetches what it asks for: its part comes first, in order, and it hears when it is here."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from replicad.errors import BusyError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.records import Tombstone
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.events import Priority, Target
from support.data_node import DataNode, data_network
from support.storing import random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets
MIB = 1 << 20


def _spied(node: DataNode) -> list[tuple[Target, int]]:
    """(target, first byte) of every extent that the node gives away from now on."""
    given: list[tuple[Target, int]] = []
    real = node.fetch.provider.open_chunks

    async def open_chunks(asker: object, target: Target, *, start: int, stop: int) -> tuple[int, int]:
        given.append((target, start))
        return await real(asker, target, start=start, stop=stop)  # type: ignore[arg-type]

    node.fetch.provider.open_chunks = open_chunks  # type: ignore[assignment,method-assign]
    return given


async def test_what_a_client_reads_comes_first_and_can_be_read_as_it_comes(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        sink = await network.node("sink", config=FetchConfig(contents_max=1, requests_per_peer=1))
        await network.share("files")
        contents = [random_bytes(12 * MIB + 5, seed=number) for number in range(2)]
        first, second = [await source.add(content) for content in contents]
        small = await source.add(b"small")
        await network.publish(source, "files", a=first, b=second, c=small)
        given = _spied(source)
        (wanted,) = [one for one in await sink.catalog.wanted() if one.content == second.content]
        (little,) = [one for one in await sink.catalog.wanted() if one.content == small.content]
        with sink.fetch.clients.waiting(wanted) as client, sink.fetch.clients.waiting(little) as other:
            with pytest.raises(BusyError, match="no peer brought byte 7340039"):
                await client.verified(7 * MIB + 7, timeout_s=0)
            await network.link(source, sink)
            at, received = 7 * MIB + 7, b""
            while at < wanted.size:
                end = await client.verified(at, timeout_s=30)
                descriptor = await client.descriptor()
                received += os.pread(descriptor, end - at, at)
                os.close(descriptor)
                at = end
            assert received == contents[1][7 * MIB + 7 :]
            assert await other.verified(0, timeout_s=30) == 5
        await sink.wait_for(first, second, small)
        extents = [(target.content, start // CHUNK_SIZE_MIN) for target, start in given]
        assert extents[0] == (second.content, 7)
        ahead = [chunk for content, chunk in extents if content == second.content and chunk >= 7]
        assert ahead == sorted(ahead), "in order"
        assert extents.index((first.content, 0)) > extents.index((second.content, ahead[-1])), "and before the older content"


async def test_what_a_client_waits_for_comes_although_no_name_stands_for_it_any_more(tmp_path: Path) -> None:
    """Large or small, and nothing else that is not named; and it is not looked for again while the client still reads it."""
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        large, small, other, *markers = [await source.add(random_bytes(size, seed=size)) for size in (3 * MIB + 5, 5, 6, 2 * MIB, 2 * MIB + 1)]
        await network.publish(source, "files", large=large, small=small, other=other)
        wanted = {one.content: one for one in await sink.catalog.wanted()}
        plan = sink.fetch._plan
        with sink.fetch.clients.waiting(wanted[large.content]) as one, sink.fetch.clients.waiting(wanted[small.content]) as another:
            asked = asyncio.gather(one.verified(large.size - 1, timeout_s=30), another.verified(0, timeout_s=30))
            names = {path: tuple(await source.catalog.live_records("files", path, "prod")) for path in ("large", "small", "other")}
            await network.author(source, "files", *(Tombstone(path, "prod", supersedes=records) for path, records in names.items()))
            await network.publish(source, "files", marker=markers[0])
            await until(lambda: plan.job(markers[0].content), what="the sink to know what it wants now")
            await network.link(source, sink)
            assert await asked == [large.size, small.size]
            await network.publish(source, "files", marker2=markers[1])
            await sink.wait_for(*markers)
            assert plan.job(large.content) is None
        assert not sink.holds(other)


async def test_what_was_lost_is_fetched_after_everything_else_and_what_is_urgent_before(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        sink = await network.node("sink", config=FetchConfig(contents_max=1, requests_per_peer=1))
        await network.share("files")
        manifests = [await source.add(random_bytes(2 * MIB, seed=number)) for number in range(4)]
        lost, new, urgent, _ = manifests
        await network.publish(source, "files", lost=lost)
        await network.link(source, sink)
        await sink.wait_for(lost)
        await network.unlink(source, sink)
        await sink.store.remove(lost.content)
        await sink.catalog.lose(lost.content)
        await network.publish(source, "files", new=new)
        await network.publish(source, "files", urgent=True, hasty=urgent)
        classes = {lost: Priority.HEAL, new: Priority.NEW, urgent: Priority.URGENT}
        plan = sink.fetch._plan
        await until(lambda: all((job := plan.job(one.content)) and job.priority is known for one, known in classes.items()), what="the classes to be known")
        given = _spied(source)
        await network.link(source, sink)
        await sink.wait_for(lost, new, urgent)
        assert list(dict.fromkeys(target.content for target, _ in given)) == [urgent.content, new.content, lost.content]
