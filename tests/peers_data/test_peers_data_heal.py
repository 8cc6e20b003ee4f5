"""What scrub finds damaged comes back from a peer: of a large content only the chunks that are wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path

from replicad.services.scrub import Scrub
from replicad.store.care import ScrubConfig
from support.data_node import clock_ms, data_network
from support.storing import MIB, flip, random_bytes
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
            assert [await ber.fetch.servable(manifest.content, manifest.id) is not None for manifest in manifests] == [False, False, True]
            before = ams.fetch.provider.sent_bytes
            await network.link(ams, ber)
            await ber.wait_for(*manifests)
            await until(lambda: not ber.store.aside, what="the damaged copies to go")
            running.cancel()
        assert ams.fetch.provider.sent_bytes - before <= MIB + len(contents[1]) + SLACK
        assert [ber.store.path_of(manifest.content).read_bytes() for manifest in manifests] == contents
        assert await ber.catalog.damaged() == []
        assert (await scrub.whole(0.99)).damaged == ()
