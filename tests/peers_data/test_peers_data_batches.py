"""Answers with many small contents: where they are read, and that exactly what is here arrives."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from replicad.crypto.hashing import sha256
from replicad.errors import PeerError
from replicad.model.chunks import CHUNK_SIZE_MIN
from replicad.model.records import Role
from replicad.net.client import PeerClient
from replicad.protocol.fetch import batch, supply
from replicad.protocol.fetch.batch import Mark
from replicad.protocol.wire import Hold, Seek, SendMany, Small
from support.data_node import DataNode, data_network
from support.storing import random_bytes
from support.waiting import until

pytestmark = pytest.mark.sockets


def _watch(monkeypatch: pytest.MonkeyPatch, *, cached: bool) -> set[threading.Thread]:
    """The threads that read files from now on, whose pages all are in memory, or none."""
    real: Callable[..., int] = os.preadv
    threads: set[threading.Thread] = set()

    def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if flags and not cached:
            raise BlockingIOError
        threads.add(threading.current_thread())
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    return threads


def _overhear(monkeypatch: pytest.MonkeyPatch, node: DataNode) -> list[supply.SupplyEvent]:
    """What the node's supply is told from now on."""
    told: list[supply.SupplyEvent] = []
    tell = node.fetch.provider.tell
    monkeypatch.setattr(node.fetch.provider, "tell", lambda event: (told.append(event), tell(event)))
    return told


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("tls", [False, True])
async def test_what_is_in_memory_is_read_at_once_and_what_is_not_or_is_for_tls_by_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool, tls: bool
) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        bodies = [random_bytes(size, seed=size) for size in (60_000, 1, 50_000)]
        manifests = [await source.add(body) for body in bodies]
        await network.publish(source, "files", **{f"f{at}": manifest for at, manifest in enumerate(manifests)})
        contents = [Small(manifest.content, manifest.size) for manifest in manifests]
        readers = _watch(monkeypatch, cached=cached)
        async with PeerClient() as client:
            found = await client.batch(to_source, contents, memoryview(bytearray(batch.answer_bytes_max(contents))))
        assert [bytes(part) for part in found if isinstance(part, memoryview)] == bodies
        assert {reader is threading.main_thread() for reader in readers} == {cached and not tls}


@pytest.mark.parametrize("lost", [b"", b"longer than it was", b"cut"], ids=["gone", "longer", "shorter"])
async def test_what_the_disk_lost_is_absent_and_the_rest_arrives(tmp_path: Path, lost: bytes) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        bodies = [b"it is here", b"it was here"]
        manifests = [await source.add(body) for body in bodies]
        path = source.store.path_of(manifests[1].content)
        path.unlink()
        if lost:
            path.write_bytes(lost)
        await network.publish(source, "files", here=manifests[0], lost=manifests[1])
        contents = [Small(manifest.content, manifest.size) for manifest in manifests]
        async with PeerClient() as client:
            found = await client.batch(to_source, contents, memoryview(bytearray(batch.answer_bytes_max(contents))))
        assert [bytes(part) if isinstance(part, memoryview) else part for part in found] == [bodies[0], Mark.ABSENT]
        assert source.holds(manifests[0])
        assert not source.holds(manifests[1])


async def test_a_blob_that_fails_after_the_head_has_left_cuts_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with data_network(tmp_path) as network:
        source, guest = await network.node("source"), await network.node("guest", role=Role.MIRROR)
        await network.share("files")
        to_source, _ = await network.link(guest, source)
        manifests = [await source.add(random_bytes(CHUNK_SIZE_MIN, seed=seed)) for seed in (1, 2)]
        await network.publish(source, "files", one=manifests[0], two=manifests[1])
        contents = [Small(manifest.content, manifest.size) for manifest in manifests]
        real, failing = os.preadv, source.store.path_of(manifests[1].content).stat().st_ino

        def preadv(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
            if os.fstat(fd).st_ino == failing:
                raise OSError(errno.EIO, "as the test asked")
            return real(fd, buffers, offset, flags)

        monkeypatch.setattr(os, "preadv", preadv)
        told = _overhear(monkeypatch, source)
        async with PeerClient() as client:
            with pytest.raises(PeerError) as caught:
                await client.batch(to_source, contents, memoryview(bytearray(batch.answer_bytes_max(contents))))
        assert caught.value.error_code == "cut-body"
        assert supply.UndeliveredSmall(guest.id, tuple(contents)) in told


@pytest.mark.parametrize("reachable", [True, False], ids=["from the door", "over the link"])
async def test_whoever_asks_patiently_is_not_given_what_another_was_given_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reachable: bool) -> None:
    monkeypatch.setattr("replicad.protocol.fetch.firsts.GIVEN_S", 3600.0)  # however slow this machine is
    async with data_network(tmp_path) as network:
        source, first, second = [await network.node(name) for name in ("source", "first", "second")]
        await network.share("files")
        bodies = [random_bytes(size, seed=size) for size in (60_000, 1, 50_000)]
        manifests = [await source.add(body) for body in bodies]
        await network.publish(source, "files", **{f"f{at}": manifest for at, manifest in enumerate(manifests)})
        contents = [Small(manifest.content, manifest.size) for manifest in manifests]
        ways = [(node, (await network.link(node, source, reachable=(reachable, True)))[0]) for node in (first, second)]
        for node, link in ways:
            await node.wait_for(*manifests)
            link.send(Seek(tuple(contents)))
        await until(lambda: source.fetch.provider.supply.watching == 2, what="both seek")
        source.fetch.provider.supply._firsts._first.clear()

        async def ask(at: int, wanted: list[Small], *, patient: bool) -> list[bytes | Mark]:
            node, link = ways[at]
            found = await node.fetch._getting.batch(link, wanted, memoryview(bytearray(batch.answer_bytes_max(wanted))), patient=patient)
            return [bytes(part) if isinstance(part, memoryview) else part for part in found]

        assert await ask(0, contents[:2], patient=True) == bodies[:2]
        assert await ask(1, contents, patient=True) == [Mark.SPREAD, Mark.SPREAD, bodies[2]]
        assert await ask(0, contents, patient=True) == [*bodies[:2], Mark.SPREAD]
        assert await ask(1, contents, patient=False) == bodies


@pytest.mark.parametrize("kind", [Hold, Seek])
async def test_who_seeks_small_contents_is_known_until_it_has_or_seeks_none(tmp_path: Path, kind: type[Hold | Seek]) -> None:
    async with data_network(tmp_path) as network:
        node, peer = await network.node("node"), await network.node("peer")
        await network.share("files")
        _, link = await network.link(node, peer)
        contents = tuple(Small(sha256(bytes([number])), 1) for number in range(2))
        rivals = node.fetch._plan._backlog.pack.rivals
        link.send(Seek(contents))
        await until(lambda: rivals == {peer.id}, what="it seeks")
        link.send(kind(contents, kind is Hold))
        await until(lambda: not rivals, what="it seeks no more")


async def test_what_could_not_be_sent_to_a_door_is_kept_from_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with data_network(tmp_path) as network:
        source, guest = await network.node("source"), await network.node("guest", role=Role.MIRROR)
        await network.share("files")
        link, _ = await network.link(guest, source, reachable=(False, True))
        manifest = await source.add(b"a small content")
        contents = (Small(manifest.content, manifest.size),)
        told = _overhear(monkeypatch, source)
        await network.publish(source, "files", one=manifest)
        await guest.wait_for(manifest)
        assert supply.UndeliveredSmall(guest.id, contents) not in told
        link.send(SendMany(1 << 40, contents))  # which the guest's door does not expect
        await until(lambda: supply.UndeliveredSmall(guest.id, contents) in told, what="the refusal")
