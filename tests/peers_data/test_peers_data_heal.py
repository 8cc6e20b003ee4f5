"""What the disk has already is not fetched: of a damaged content only the chunks that are wrong, of a new version only those that are new."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from replicad.model.manifest import Manifest
from replicad.protocol.fetch.events import Target
from replicad.services.scrub import Scrub
from replicad.store.care import ScrubConfig
from support.data_node import clock_ms, data_network
from support.storing import MIB, BadSector, flip, manifest_of, random_bytes
from support.waiting import until

SLACK = 64 << 10


async def test_what_rotted_is_healed_and_only_that_is_fetched(tmp_path: Path) -> None:
    contents = [random_bytes(6 * MIB + 5), random_bytes(70_000, seed=2), random_bytes(3 * MIB, seed=3)]
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber")
        await network.share("munki")
        manifests = [await ams.add(content) for content in contents]
        await network.publish(ams, "munki", **{f"f{number}": manifest for number, manifest in enumerate(manifests)})
        await network.link(ams, ber)
        await ber.wait_for(*manifests)
        await network.unlink(ams, ber)
        scrub = Scrub(ber.catalog, ber.store, hub=ber.hub, config=ScrubConfig(enabled=False), clock_ms=clock_ms)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(scrub.run())
            flip(ber.store.path_of(manifests[0].content), at=3 * MIB + 1)
            flip(ber.store.path_of(manifests[1].content), at=0)
            found = await scrub.whole()
            assert {damage.content for damage in found.damaged} == {manifest.content for manifest in manifests[:2]} == ber.store.aside.keys()
            assert [ber.holds(manifest) for manifest in manifests] == [False, False, True]
            assert [(await ber.fetch.provider.servable(Target(manifest.content, manifest.id)))[1] != 0 for manifest in manifests] == [False, False, True]
            target, partials = Target(manifests[0].content, manifests[0].id), ber.fetch._partials
            for _ in range(2):
                assert (await partials.open(manifests[0])).count == 6, "also when it was closed for a while, because nobody had it"
                await partials.close(target, discard=False)
            before = ams.fetch.provider.sent_bytes
            await network.link(ams, ber)
            await ber.wait_for(*manifests)
            await until(lambda: not ber.store.aside, what="the damaged copies to go")
            running.cancel()
        assert ams.fetch.provider.sent_bytes - before <= MIB + len(contents[1]) + SLACK
        assert [ber.store.path_of(manifest.content).read_bytes() for manifest in manifests] == contents
        assert await ber.catalog.damaged() == []
        assert (await scrub.whole(0.99)).damaged == ()


@pytest.mark.parametrize("at", [3 * MIB + 1, 5 * MIB + 8], ids=["within", "the last block"])
@pytest.mark.parametrize("stuck", [False, True])
async def test_of_a_wanted_file_with_a_bad_sector_only_what_cannot_be_read_is_fetched(tmp_path: Path, at: int, *, stuck: bool) -> None:
    """A crash came between its name and its row, or the catalog is an older one. Until it is read nobody knows what it is: it is neither served nor does it keep the right bytes out."""
    content, disk = random_bytes(5 * MIB + 9), BadSector(stuck=stuck)
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber", disk=disk)
        await network.share("munki")
        manifest = await ams.add(content)
        path = ber.store.path_of(manifest.content)
        path.write_bytes(content)
        disk.spoil(path, at=at)
        await network.publish(ams, "munki", image=manifest)
        await network.link(ams, ber)
        await ber.wait_for(manifest)
        assert disk.failed
        assert path.read_bytes() == content
        assert ams.fetch.provider.sent_bytes == manifest.chunk_length(at // MIB)
        assert await ber.store.measure(manifest.content) == manifest


@pytest.mark.parametrize("reachable", [True, False], ids=["from the door", "over the link"])
@pytest.mark.parametrize("size", [3 * MIB, None], ids=["chunks", "batch"])
async def test_what_a_peer_cannot_be_given_is_judged_and_offered_no_more(tmp_path: Path, size: int | None, *, reachable: bool) -> None:
    """Not only when its turn comes. A directory cannot be read either."""
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber")
        await network.share("munki")
        (tmp_path / "directory" / "full").mkdir(parents=True)
        manifest = await ams.add(random_bytes(size or (tmp_path / "directory").stat().st_size))
        other = await ams.add(b"other")
        path = ams.store.path_of(manifest.content)
        if size:
            os.truncate(path, MIB + 1)
        else:
            path.unlink()
            (tmp_path / "directory").rename(path)
        await network.publish(ams, "munki", file=manifest, other=other)
        scrub = Scrub(ams.catalog, ams.store, hub=ams.hub, config=ScrubConfig(enabled=False), clock_ms=clock_ms)
        running = asyncio.create_task(scrub.run())
        await asyncio.sleep(0)
        await network.link(ber, ams, reachable=(reachable, True))
        await until(lambda: manifest.content in ams.store.aside, what="the verdict")
        await ber.wait_for(other)
        running.cancel()
        assert [damage.content for damage in await ams.catalog.damaged()] == [manifest.content]


async def test_what_is_held_under_another_manifest_is_served_under_that_one(tmp_path: Path) -> None:
    """Who waits for it under the one before hears that there is nothing more to come."""
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber")
        await network.share("munki")
        true = await ams.add(NEW)
        lie = replace(true, states=bytes(len(true.states)))
        await network.publish(ams, "munki", image=true)
        await ams.catalog.hold_under(lie)
        before, after = Target(true.content, lie.id), Target(true.content, true.id)
        provider = ams.fetch.provider
        await until(lambda: not provider._manifests, what="the news of it")
        for target in (before, after):
            await provider.watch(ber.id, target, active=True)
        watched = [provider.supply._watched[target] for target in (before, after)]
        assert [one.complete for one in watched] == [True, False]
        await ams.catalog.hold_under(true)
        await until(lambda: watched[1].complete, what="the content under the other manifest")
        assert (watched[0].servable, await provider.servable(before)) == (0, (0, 0))
        assert await provider.manifest(ber.id, after) == true


async def test_of_a_new_version_only_what_is_new_is_fetched(tmp_path: Path) -> None:
    """Wherever its chunks stood, and although one of the copies rotted meanwhile."""
    old = random_bytes(8 * MIB + 9)
    new = old[4 * MIB : 5 * MIB] + old[MIB : 6 * MIB] + random_bytes(MIB, seed=2) + old[6 * MIB :]
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber")
        await network.share("munki")
        await network.link(ams, ber)
        first, second = await ams.add(old), await ams.add(new)
        await network.publish(ams, "munki", image=first)
        await ber.wait_for(first)
        flip(ber.store.path_of(first.content), at=7 * MIB)
        before = ams.fetch.provider.sent_bytes
        await network.publish(ams, "munki", image=second)
        await ber.wait_for(second)
        assert ber.store.path_of(second.content).read_bytes() == new
        assert ams.fetch.provider.sent_bytes - before == 2 * MIB, "the new chunk, and the one whose copy is wrong"
        assert not ber.blamed


OLD = random_bytes(4 * MIB + 9)
NEW = random_bytes(MIB, seed=2) + OLD[MIB:]
TRUE = manifest_of(NEW)
LIES = {
    "states of another content": replace(TRUE, states=manifest_of(OLD).states),
    "the last digest is that of a longer chunk": replace(TRUE.bare, chunks=TRUE.chunks[:-32] + manifest_of(OLD).chunk_digest(0)),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_manifest_that_lies_about_what_is_here_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: Manifest) -> None:
    """What this disk has of an older version contradicts it, or does not fit. The service goes on, and the true entry is fetched."""
    async with data_network(tmp_path) as network:
        ams, ber = await network.node("ams"), await network.node("ber")
        await network.share("munki")
        await network.link(ams, ber)
        first = await ams.add(OLD)
        await network.publish(ams, "munki", image=first)
        await ber.wait_for(first)
        ams.store.path_of(TRUE.content).parent.mkdir(exist_ok=True)
        ams.store.path_of(TRUE.content).write_bytes(NEW)
        await ams.catalog.hold([lie])
        before = ams.fetch.provider.sent_bytes
        await network.publish(ams, "munki", image=lie)
        if lie.states:
            await until(lambda: "a manifest lies" in caplog.text, what="the lie to be found out")
            assert ams.fetch.provider.sent_bytes == before, "by what is here"
        else:
            await until(lambda: ber.fetch.percent(TRUE.content) >= 60, what="what fits of it")
        await ams.catalog.lose(TRUE.content)
        await ams.catalog.hold([TRUE])
        await network.publish(ams, "munki", image=TRUE)
        await ber.wait_for(TRUE)
        assert ber.store.path_of(TRUE.content).read_bytes() == NEW
        assert caplog.text.count("a manifest lies") == bool(lie.states)
