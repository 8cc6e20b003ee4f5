"""Scrub: every blob has its turn in time, at a bounded rate; what is damaged is found, served no more, kept aside, and known as damaged until it is held again."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ingest_world import Node, items, running_node

from replicad.catalog import Damage
from replicad.errors import StorageError
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest
from replicad.services.hub import Hub
from replicad.services.reconcile import reconcile
from replicad.services.scrub import Scrub, passed, passed_at
from replicad.store.care import ScrubConfig
from replicad.store.disk import Disk
from support.storing import MIB, BadSector, FailingDisk, flip, manifest_of, pieces, random_bytes, without_states
from support.waiting import until

DAY_MS = 86_400_000
DAY_S = 86_400.0


@dataclass
class World:
    """A node and its scrub, whose sleeps take no time. ``slept_s`` are their lengths."""

    node: Node
    scrub: Scrub
    slept_s: list[float] = field(default_factory=list)


@asynccontextmanager
async def world(root: Path, *, disk: Disk | None = None, **config: Any) -> AsyncIterator[World]:
    async with running_node(root, disk=disk) as node:
        hub, slept_s = Hub(), list[float]()

        async def pause(seconds: float) -> None:
            slept_s.append(seconds)
            await asyncio.sleep(0)

        node.catalog.on_event = hub.publish
        scrub = Scrub(node.catalog, node.store, hub=hub, config=ScrubConfig(**config), clock_ms=node.clock, sleep=pause)
        yield World(node, scrub, slept_s)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 10**13), st.lists(st.integers(1, 10**9), max_size=12), st.integers(1000, 10**10))
def test_the_hand_passes_every_digest_once_a_round(digest: bytes, start_ms: int, steps_ms: list[int], interval_ms: int) -> None:
    """However the way around is cut into steps."""
    digest = digest[:31] + bytes([digest[31] | 1])
    count, at_ms = 0, start_ms
    for step_ms in [*steps_ms, interval_ms]:
        next_ms = min(at_ms + step_ms, start_ms + interval_ms)
        count += sum(after < digest <= until for after, until in passed(at_ms, next_ms, interval_ms))
        at_ms = next_ms
    assert count == 1
    turn_ms = passed_at(Digest(digest), start_ms, interval_ms)
    assert start_ms <= turn_ms <= start_ms + interval_ms
    assert any(after < digest <= until for after, until in passed(turn_ms, turn_ms + 1, interval_ms))


async def test_every_file_is_read_again_in_30_days_give_or_take_5(tmp_path: Path, dice: random.Random) -> None:
    async with world(tmp_path) as this:
        manifests = await this.node.upload(*(random_bytes(50, seed=number) for number in range(40)))
        reads: dict[Digest, list[int]] = defaultdict(list)
        await this.scrub.follow()
        real = this.node.store.examine

        async def examine(manifest: Any, **more: Any) -> str:
            reads[manifest.content].append(this.node.clock.now_ms)
            return await real(manifest, **more)

        this.node.store.examine = examine  # type: ignore[method-assign]
        start_ms = this.node.clock.now_ms
        while this.node.clock.now_ms < start_ms + 125 * DAY_MS:
            this.node.clock.now_ms += dice.choice([3_600_000, DAY_MS, int(4.9 * DAY_MS)])
            await this.scrub.follow()
        for manifest in manifests:
            times = [start_ms, *reads[manifest.content]]
            assert times[1] - times[0] <= 35 * DAY_MS
            assert all(25 * DAY_MS <= later - sooner <= 35 * DAY_MS for sooner, later in itertools.pairwise(times[1:]))
            assert len(times) >= 4
        assert sum(len(at) for at in reads.values()) < 40 * 6


async def test_it_goes_on_where_it_was_never_owes_more_than_a_round_and_keeps_to_its_rate(tmp_path: Path) -> None:
    content = random_bytes(9 * MIB)
    async with world(tmp_path) as this:
        await this.node.ingest.receive(pieces(content), size=len(content))
        await this.scrub.follow()
        assert this.slept_s == []
        this.node.clock.now_ms += 15 * DAY_MS
        await this.scrub.follow()
        sooner = sum(this.slept_s)
    async with world(tmp_path, rate=1_000_000) as this:
        this.node.clock.now_ms += 15 * DAY_MS
        assert this.scrub.late_s == 0
        await this.scrub.follow()
        read_s = sum(this.slept_s)
        assert {sooner, read_s} == {0.0, len(content) / (16_000_000 if sooner else 1_000_000)}, "read once, in one half of the round or in the other"
        this.node.clock.now_ms += 95 * DAY_MS
        assert this.scrub.late_s > 90 * DAY_S
        this.slept_s.clear()
        await this.scrub.follow()
        assert sum(this.slept_s) == len(content) / 1_000_000
        assert this.scrub.late_s == 0
        this.node.clock.now_ms -= 10 * DAY_MS
        await this.scrub.follow()


async def test_it_goes_on_when_the_catalogs_file_is_gone(tmp_path: Path) -> None:
    """It tells nobody anything, so it promises nothing."""
    async with world(tmp_path) as this:
        await this.node.ingest.receive(pieces(b"content"), size=7)
        await this.scrub.follow()
        (tmp_path / "catalog.sqlite").unlink()
        this.node.clock.now_ms += 95 * DAY_MS
        await this.scrub.follow()
        assert this.scrub.late_s == 0


async def test_fifty_rotten_files_are_found_served_no_more_and_kept_aside(tmp_path: Path, dice: random.Random) -> None:
    files = {f"f{number}": random_bytes(dice.choice([40, 700, 70_000, MIB, 2 * MIB + 5]), seed=number) for number in range(60)}
    async with world(tmp_path) as this:
        node = this.node
        for content in files.values():
            await node.ingest.receive(pieces(content, MIB), size=len(content))
        await node.ingest.publish("munki", items(files))
        rotten = dice.sample(sorted(files), 50)
        left: dict[Digest, bytes] = {}
        for path in rotten:
            manifest = manifest_of(files[path])
            flip(node.store.path_of(manifest.content), at=dice.randrange(manifest.size))
            left[manifest.content] = node.store.path_of(manifest.content).read_bytes()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(this.scrub.run())
            first, second = await asyncio.gather(this.scrub.whole(), this.scrub.whole())
            assert first is second
            running.cancel()
        assert (first.files, first.size_bytes) == (60, sum(map(len, files.values())))
        assert {damage.content for damage in first.damaged} == left.keys()
        assert {wanted.content for wanted in await node.catalog.wanted()} == left.keys()
        for path, content in files.items():
            listed = await node.catalog.visible("munki", path)
            assert listed is not None
            assert listed.available == (path not in rotten)
            assert node.store.has(manifest_of(content).content) == (path not in rotten)
        assert {content: (tmp_path / "aside" / str(content)).read_bytes() for content in left} == left
    async with world(tmp_path) as this:
        assert (await reconcile(this.node.catalog, this.node.store)).lost == ()
        assert {damage.content for damage in await this.node.catalog.damaged()} == left.keys() == this.node.store.aside.keys()


async def test_what_is_held_again_is_damaged_no_more(tmp_path: Path) -> None:
    content = random_bytes(2 * MIB + 5)
    manifest = manifest_of(content)
    async with world(tmp_path) as this:
        node = this.node
        await node.ingest.receive(pieces(content), size=len(content))
        await node.ingest.publish("munki", items({"a": content}))
        flip(node.store.path_of(manifest.content), at=MIB)
        found = await this.scrub.whole(0.01)
        assert found.damaged == (Damage(manifest.content, manifest.size, node.clock.now_ms, "1 of 3 chunks wrong"),)
        assert await this.scrub.check(manifest.content) is None
        async with asyncio.TaskGroup() as group:
            running = group.create_task(this.scrub.run())
            await node.ingest.receive(pieces(content), size=len(content))
            await until(lambda: not node.store.aside, what="the damaged copy to go")
            running.cancel()
        assert await node.catalog.damaged() == []
        assert (await this.scrub.whole(0.5)).damaged == ()


CONTENT = random_bytes(2 * MIB + 5)
TRUE = manifest_of(CONTENT)
OTHER = manifest_of(random_bytes(2 * MIB + 5, seed=2))
UNPROVEN = {"states": (replace(TRUE, states=OTHER.states), False), "digests": (replace(TRUE, chunks=OTHER.chunks), True)}


async def hold_unproven(node: Node, manifest: Manifest) -> None:
    """As a node that fetches the content under a manifest that entries name."""
    await node.catalog.add_manifests([manifest])
    async with await node.store.open_partial(manifest) as partial:
        await partial.write(0, CONTENT)
        await partial.finish()
    await node.catalog.hold([manifest])


@pytest.mark.parametrize(("lie", "by_states"), UNPROVEN.values(), ids=UNPROVEN)
async def test_what_was_never_proven_condemns_no_content_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lie: Manifest, by_states: bool
) -> None:
    """Its receiver could look at the states, or only at the digests, and what it could look at was true. Who looks at the others later measures the whole."""
    with monkeypatch.context() as before:
        if not by_states:
            without_states(before)
        async with world(tmp_path) as this:
            await hold_unproven(this.node, lie)
            assert (await this.scrub.whole(0.5)).damaged == ()
            assert await this.node.catalog.held_manifest(TRUE.content) == lie
    if by_states:
        without_states(monkeypatch)
    async with world(tmp_path, rate=1_000_000) as this:
        node, true = this.node, TRUE.bare if by_states else TRUE
        await this.scrub.follow()
        node.clock.now_ms += 31 * DAY_MS
        await this.scrub.follow()
        assert await node.catalog.held_manifest(TRUE.content) == true
        assert (dict(node.store.aside), await node.catalog.damaged(), node.catalog.is_held(TRUE.content)) == ({}, [], True)
        assert node.store.path_of(TRUE.content).read_bytes() == CONTENT
        assert this.slept_s == 3 * [len(CONTENT) / 1_000_000], "its chunks were read once more, and the whole, at the same rate"
        assert caplog.text.count("chunks of a held content looked wrong and the whole is right") == 1
    async with world(tmp_path) as this:
        assert (await this.scrub.whole(0.5)).damaged == ()
        assert caplog.text.count("chunks of a held content looked wrong and the whole is right") == 1


async def test_under_a_false_manifest_rot_is_found_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path) as this:
        with monkeypatch.context() as before:
            without_states(before)
            await hold_unproven(this.node, UNPROVEN["states"][0])
        flip(this.node.store.path_of(TRUE.content), at=MIB)
        assert [damage.content for damage in (await this.scrub.whole(0.5)).damaged] == [TRUE.content]
        assert (this.node.catalog.is_held(TRUE.content), set(this.node.store.aside)) == (False, {TRUE.content})


async def test_a_file_that_cannot_be_opened_is_said_and_ends_no_scrub(tmp_path: Path) -> None:
    """Somebody took the permission, or there are too many open files: that says nothing about the content."""
    async with world(tmp_path) as this:
        [manifest] = await this.node.upload(b"out of reach")
        path, moved = this.node.store.path_of(manifest.content), tmp_path / "moved"
        path.rename(moved)
        path.symlink_to(path)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(this.scrub.run())
            with pytest.raises(StorageError, match=f"opening {manifest.content}: "):
                await this.scrub.whole()
            with pytest.raises(StorageError, match=f"looking at {manifest.content}: "):
                this.node.store.size_of(manifest.content)
            assert this.node.catalog.is_held(manifest.content)
            moved.rename(path)
            assert (await this.scrub.whole()).damaged == ()
            running.cancel()


@pytest.mark.parametrize("size", [700, len(CONTENT)])
async def test_an_error_that_passes_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int) -> None:
    """A cable, a controller that was reset, a network disk: it is read once more before anything is said."""
    disk = FailingDisk("read", armed=0)
    async with world(tmp_path, disk=disk) as this:
        manifest = await this.node.ingest.receive(pieces(CONTENT[:size]), size=size)
        disk.armed = 1
        assert (await this.scrub.whole(0.5)).damaged == ()
        assert (disk.armed, this.node.catalog.is_held(manifest.content), caplog.messages) == (0, True, [])


@pytest.mark.parametrize("size", [700, len(CONTENT)])
async def test_a_lasting_error_is_one_wrong_chunk(tmp_path: Path, size: int) -> None:
    disk = BadSector()
    async with world(tmp_path, disk=disk) as this:
        manifest = await this.node.ingest.receive(pieces(CONTENT[:size]), size=size)
        disk.spoil(this.node.store.path_of(manifest.content), at=size - 1)
        found = await this.scrub.whole(0.5)
        assert [damage.detail for damage in found.damaged] == [f"1 of {'3 chunks' if manifest.count > 1 else '1 chunk'} wrong"]
        assert disk.failed >= 2
        assert (this.node.catalog.is_held(manifest.content), set(this.node.store.aside)) == (False, {manifest.content})


async def test_what_somebody_doubts_is_judged_by_reading_it(tmp_path: Path) -> None:
    """However often it is doubted. What cannot be opened just now ends nothing."""
    async with world(tmp_path, enabled=False) as this:
        right, rotten, gone, unopened = await this.node.upload(b"right", b"rotten", b"here and gone", b"out of reach")
        store, catalog = this.node.store, this.node.catalog
        flip(store.path_of(rotten.content), at=0)
        store.path_of(gone.content).unlink()
        store.path_of(unopened.content).unlink()
        store.path_of(unopened.content).symlink_to(store.path_of(unopened.content))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(this.scrub.run())
            await asyncio.sleep(0)
            for one in (unopened, right, rotten, gone, gone, manifest_of(b"never here")):
                catalog.doubt(one.content)
            await until(lambda: not catalog.is_held(rotten.content) and not catalog.is_held(gone.content), what="the verdict")
            running.cancel()
        assert {damage.content: damage.detail for damage in await catalog.damaged()} == {
            rotten.content: "1 of 1 chunk wrong",
            gone.content: "it is not on the disk any more",
        }
        assert (catalog.is_held(right.content), catalog.is_held(unopened.content), set(store.aside)) == (True, True, {rotten.content})
        assert store.used_bytes == right.size + rotten.size + unopened.size
