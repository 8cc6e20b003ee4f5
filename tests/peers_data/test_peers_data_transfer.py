"""Content between real nodes: real files, catalogs, sessions and sockets, with and without TLS, both ways round."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.catalog import PartialRow
from replicad.errors import NotFoundError, StorageError
from replicad.model.chunks import Extent
from replicad.model.manifest import Manifest
from replicad.model.records import Cut, Role
from replicad.net.client import PeerClient
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.events import Target
from replicad.services.fetch import performing
from replicad.store.space import StoreConfig
from support.data_node import DataNode, data_network
from support.storing import FailingDisk, manifest_of, random_bytes, without_states
from support.waiting import eventually, until

pytestmark = pytest.mark.sockets
MIB = 1 << 20


def _read(node: DataNode, manifest: Manifest) -> bytes:
    return node.store.path_of(manifest.content).read_bytes()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_published_content_arrives_verified(tmp_path: Path, tls: bool) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        await network.link(source, sink)
        content = random_bytes(20 * MIB + 12345)
        manifest = await source.add(content)
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert _read(sink, manifest) == content
        assert not sink.blamed
        assert source.fetch.provider.sent_bytes == len(content)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("reachable", [(False, True), (True, False)], ids=["holder-closed", "asker-closed"])
async def test_one_open_door_is_enough_in_either_direction(tmp_path: Path, tls: bool, reachable: tuple[bool, bool]) -> None:
    """The sink's link cannot reach the source's door, or the reverse: chunks, manifest and small files arrive, by PUT or by GET."""
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source", tls=tls), await network.node("sink", tls=tls)
        await network.share("files")
        await network.link(sink, source, reachable=reachable)
        content, small = random_bytes(9 * MIB + 5), [random_bytes(1000 + number, seed=number) for number in range(40)]
        manifests = [await source.add(body) for body in (content, *small, b"")]
        await network.publish(source, "files", **{f"f{number}": manifest for number, manifest in enumerate(manifests)})
        await sink.wait_for(*manifests)
        assert _read(sink, manifests[0]) == content
        assert [_read(sink, manifest) for manifest in manifests[1:-1]] == small
        assert not sink.blamed


async def test_a_door_that_turns_out_closed_is_gone_around(tmp_path: Path) -> None:
    """The link says that the door answers, but it does not: after one failure the content comes by PUT."""
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        to_source.peer_url = "http://127.0.0.1:1"
        manifest = await source.add(random_bytes(5 * MIB))
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert not sink.blamed


async def test_nothing_comes_when_neither_door_answers_and_the_holder_is_not_blamed(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        to_source, to_sink = await network.link(sink, source, reachable=(False, False))
        to_sink.peer_url = "http://127.0.0.1:1"
        manifest = await source.add(random_bytes(3 * MIB))
        await network.publish(source, "files", big=manifest)
        await until(lambda: sink.fetch.statistics().requests >= 3, what="attempts")
        assert not sink.blamed
        to_source.reachable = True
        await sink.wait_for(manifest)


async def test_a_wrong_certificate_gets_nothing(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink, other = [await network.node(name, tls=True) for name in ("source", "sink", "other")]
        await network.share("files")
        to_source, _ = await network.link(sink, source, reachable=(True, False))
        to_source.certificate = other.certificate
        manifest = await source.add(random_bytes(3 * MIB))
        await network.publish(source, "files", big=manifest)
        await until(lambda: sink.fetch.statistics().requests >= 2, what="attempts")
        assert not sink.holds(manifest)
        to_source.certificate = source.certificate
        await sink.wait_for(manifest)


async def test_two_thousand_small_files_reach_two_nodes(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, *sinks = [await network.node(name) for name in ("source", "one", "two")]
        await network.share("files")
        for sink in sinks:
            await network.link(source, sink)
        await network.link(*sinks)
        bodies = [number.to_bytes(4, "big") * 16384 for number in range(2000)]
        manifests = [manifest for start in range(0, 2000, 250) for manifest in await source.store.put_bodies(bodies[start : start + 250])]
        await source.catalog.hold(manifests)
        await network.publish(source, "files", **{f"f{number}": manifest for number, manifest in enumerate(manifests)})
        for sink in sinks:
            await sink.wait_for(*manifests)
            assert all(sink.store.path_of(manifest.content).stat().st_size == manifest.size for manifest in manifests)
            assert sink.fetch.statistics().requests <= 2000 / 8
            assert not sink.blamed


async def test_a_node_serves_what_it_has_while_it_is_still_fetching(tmp_path: Path) -> None:
    """The last node is linked only to the middle one, whose source stops after some chunks: they arrive, and the rest when there is a source again."""
    async with data_network(tmp_path) as network:
        source, middle, last = [
            await network.node(name, config=FetchConfig(extent_bytes_max=MIB, requests_per_peer=1)) for name in ("source", "middle", "last")
        ]
        await network.share("files")
        await network.link(middle, last)
        manifest = await source.add(random_bytes(32 * MIB))
        await network.publish(source, "files", big=manifest)
        await network.link(source, middle)
        await until(lambda: middle.fetch.percent(manifest.content) > 10, what="a part at the middle node")
        await network.unlink(source, middle)
        assert not middle.holds(manifest)
        await until(lambda: last.fetch.percent(manifest.content) == middle.fetch.percent(manifest.content), what="the same part at the last node")
        with pytest.raises(NotFoundError, match="not all of those bytes"):
            await middle.fetch.provider.open_chunks(last.id, Target(manifest.content, manifest.id), start=0, stop=manifest.size)
        await network.link(source, middle)
        await last.wait_for(manifest)
        assert source.fetch.provider.sent_bytes <= manifest.size + 2 * MIB
        assert not last.blamed


async def test_eight_nodes_get_it_from_each_other(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, *sinks = [await network.node(f"n{number}", config=FetchConfig(uploads_max=2)) for number in range(6)]
        await network.share("files")
        for place, one in enumerate(network.nodes):
            for other in network.nodes[:place]:
                await network.link(one, other)
        content = random_bytes(32 * MIB)
        manifest = await source.add(content)
        await network.publish(source, "files", big=manifest)
        for sink in sinks:
            await sink.wait_for(manifest)
            assert _read(sink, manifest) == content
            assert not sink.blamed
        assert source.fetch.provider.sent_bytes < 0.75 * len(sinks) * manifest.size, "the peers served each other"
        assert sum(sink.fetch.provider.sent_bytes for sink in sinks) > manifest.size


async def test_content_is_served_only_where_a_granted_share_names_it(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        guest = await network.node("guest", role=Role.MIRROR, shares=("other",))
        for share in ("files", "other"):
            await network.share(share)
        to_source, _ = await network.link(guest, source)
        secret, secret_small = await source.add(random_bytes(3 * MIB)), await source.add(b"secret")
        unnamed = await source.add(random_bytes(2 * MIB, seed=5))
        await network.publish(source, "files", big=secret, small=secret_small)
        into = memoryview(bytearray(MIB))
        async with PeerClient() as client:
            for manifest in (secret, unnamed, manifest_of(b"x" * 2 * MIB)):
                received, error = await client.chunks(to_source, manifest, Extent(0, 1), into)
                assert (received, error and error.code) == (0, "not-allowed"), "the same answer whether it exists or not"
            await network.publish(source, "other", big=secret)
            received, error = await client.chunks(to_source, secret, Extent(0, 1), into)
            assert (received, error) == (MIB, None)
            await network.author(network.nodes[0], "", Cut(guest.id, {}, "remove"))
            _, error = await client.chunks(to_source, secret, Extent(0, 1), into)
            assert error is not None
            assert error.code == "not-allowed"


async def test_a_request_proves_itself_and_cannot_be_replayed(tmp_path: Path) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        to_source, _ = await network.link(sink, source)
        manifest = await source.add(random_bytes(2 * MIB))
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        target, range_ = f"/peer/v1/blobs/{manifest.content}?manifest={manifest.id}", "bytes=0-9"
        good = to_source.authorize("GET", target, range_)
        other_range = to_source.authorize("GET", target, "bytes=0-19")
        tries = [("", 401), (good, 206), (good, 401), (other_range, 401), (good.replace("counter=", "counter=9"), 401)]
        for header, expected in tries:
            assert (await _get(source, target, range_, header))[0] == expected


async def _get(node: DataNode, target: str, range_: str, authorization: str) -> tuple[int, bytes]:
    host, _, port = node.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nRange: {range_}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ")[1]), answer.partition(b"\r\n\r\n")[2]


LONG, OTHER = random_bytes(24 * MIB + 5), random_bytes(24 * MIB + 5, seed=2)
TRUE = manifest_of(LONG)
FALSE = {
    "chunks of another content": (OTHER, replace(manifest_of(OTHER, with_states=False), content=TRUE.content)),
    "chunks and states of another content": (OTHER, replace(manifest_of(OTHER), content=TRUE.content)),
    "the content, and states of another": (LONG, replace(TRUE, states=manifest_of(OTHER).states)),
    "the content, and one wrong state": (LONG, replace(TRUE, states=TRUE.states[:-32] + bytes(32))),
}


@pytest.mark.parametrize(("given", "false"), FALSE.values(), ids=FALSE)
async def test_a_false_manifest_of_a_foreign_hash_does_not_keep_the_content_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: bytes, false: Manifest
) -> None:
    """An author names somebody's hash with chunks of its own, or states that are none of it. The chunks are what it says, the whole is not: nobody is blamed, nothing of it stays, whatever else was asked for
    is given up, and the true entry is fetched.
    """
    performing.log._seldom.clear()
    async with data_network(tmp_path) as network:
        source, author, sink = [await network.node(name, config=FetchConfig(extent_bytes_max=MIB)) for name in ("source", "author", "sink")]
        await network.share("files")
        author.store.path_of(TRUE.content).parent.mkdir(exist_ok=True)
        author.store.path_of(TRUE.content).write_bytes(given)
        await author.catalog.hold([false])
        await network.link(author, sink)
        await network.publish(author, "files", trap=false)
        await until(lambda: "a manifest lies" in caplog.text, what="the lie to be found out")
        await source.add(LONG)
        await network.link(source, sink)
        await network.publish(source, "files", real=TRUE)
        await sink.wait_for(TRUE)
        assert _read(sink, TRUE) == LONG
        assert (await sink.store.partial_files(), await sink.catalog.partials()) == ([], [])
        assert caplog.text.count("a manifest lies") == 1
        assert "fetching pauses" not in caplog.text
        assert not sink.blamed


@pytest.mark.parametrize("which", ["source", "sink"])
async def test_nodes_that_cannot_use_states_give_and_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink")
        await network.share("files")
        with monkeypatch.context() as there:
            if which == "source":
                without_states(there)
            manifest = await source.add(LONG)
        assert manifest == manifest_of(LONG, with_states=which == "sink")
        if which == "sink":
            without_states(monkeypatch)
        await network.link(source, sink)
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert _read(sink, manifest) == LONG
        assert not sink.blamed


@pytest.mark.parametrize(("fails", "said"), [("allocate", "a content cannot be fetched now"), ("write", "fetching pauses")])
async def test_a_full_disk_pauses_and_goes_on_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fails: str, said: str
) -> None:
    performing.log._seldom.clear()
    monkeypatch.setattr("replicad.services.fetch.performing.FULL_S", 0.1)
    monkeypatch.setattr("replicad.services.fetch.performing.ROOM_S", 0.1)
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        disk = FailingDisk(fails, error=errno.ENOSPC, armed=3)
        sink = await network.node("sink", disk=disk)
        await network.share("files")
        await network.link(source, sink)
        manifest = await source.add(random_bytes(5 * MIB))
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert disk.armed == 0
        assert said in caplog.text
        assert not sink.blamed


async def test_a_failed_sync_never_makes_a_file_visible_before_its_bytes_are_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replicad.services.fetch.performing.FULL_S", 0.1)
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        disk = FailingDisk("sync", armed=2)
        sink = await network.node("sink", disk=disk)
        await network.share("files")
        await network.link(source, sink)
        content = random_bytes(40 * MIB)
        manifest = await source.add(content)
        await network.publish(source, "files", big=manifest)
        await sink.wait_for(manifest)
        assert disk.armed == 0
        assert _read(sink, manifest) == content
        assert not sink.blamed


async def test_no_bit_is_kept_of_what_could_not_be_made_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitmap after fdatasync, never before: while every sync fails, nothing of what arrived is remembered, held or visible."""
    monkeypatch.setattr("replicad.services.fetch.partials.GROUP_BYTES", MIB)
    monkeypatch.setattr("replicad.services.fetch.performing.FULL_S", 0.05)
    async with data_network(tmp_path) as network:
        source = await network.node("source")
        disk = FailingDisk("sync")
        sink = await network.node("sink", disk=disk)
        await network.share("files")
        await network.link(source, sink)
        manifest = await source.add(random_bytes(5 * MIB))
        before = disk.armed
        await network.publish(source, "files", big=manifest)
        kept: list[PartialRow] = []

        async def failed_often() -> bool:
            kept.extend(await sink.catalog.partials())
            return before - disk.armed >= 3 or bool(kept)

        await eventually(failed_often, what="syncs to fail")
        assert [row for row in kept if any(row.bitmap)] == []
        assert not sink.holds(manifest)
        assert not sink.store.has(manifest.content)
        disk.armed = 0
        await sink.wait_for(manifest)


async def test_what_does_not_fit_does_not_keep_out_what_does(tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    async with data_network(tmp_path) as network:
        source, sink = await network.node("source"), await network.node("sink", store=StoreConfig(reserve_fraction=0.0, quota_bytes=4 * MIB))
        await network.share("files")
        await network.link(source, sink)
        large, small = await source.add(random_bytes(5 * MIB, seed=seed)), await source.add(random_bytes(1000))
        await network.publish(source, "files", large=large)
        await until(lambda: "a content cannot be fetched now" in caplog.text, what="a refusal")
        await network.publish(source, "files", small=small)
        await sink.wait_for(small)
        assert not sink.holds(large)
        assert not sink.blamed


async def test_what_a_failed_sync_took_back_is_not_finished(tmp_path: Path) -> None:
    """All chunks were there when the plan said that it is whole; the sync failed before that was carried out."""
    async with data_network(tmp_path) as network:
        sink = await network.node("sink", disk=FailingDisk("sync", armed=1))
        content = random_bytes(2 * MIB)
        manifest = manifest_of(content)
        partials, target = sink.fetch._partials, Target(manifest.content, manifest.id)
        await partials.open(manifest)
        assert await partials.write(target, 0, memoryview(content)) == ([0, 1], [])
        await partials.commit()
        with pytest.raises(StorageError):
            await partials.finish(target)
        await partials.close(target, discard=True)
