"""Collect: what nothing needs goes after its grace, not before; what a live file, a sibling or a kept older version needs never goes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ingest_world import NETWORK, NODE, Node, running_node

from replicad.errors import ConflictError
from replicad.model.manifest import Manifest
from replicad.model.records import Cut, Entry
from replicad.services.collect import Collect, Collected
from replicad.store.care import CollectConfig
from support.storing import files_in, manifest_of
from support.waiting import until

DAY_MS = 86_400_000
GRACE_DAYS = 30


@dataclass
class World:
    """A node and its collector, which the test calls."""

    node: Node
    collect: Collect

    async def after(self, days: float) -> Collected:
        """What goes then, the beginning of every grace having been noticed now."""
        await self.collect.preview()
        self.node.clock.now_ms += int(days * DAY_MS)
        return await self.collect.collect()

    def kept(self, *contents: bytes) -> list[bool]:
        """Which of these contents are held and on the disk; both or neither."""
        manifests = [manifest_of(content) for content in contents]
        held = [self.node.catalog.is_held(manifest.content) for manifest in manifests]
        assert held == [self.node.store.has(manifest.content) for manifest in manifests]
        return held


@asynccontextmanager
async def world(root: Path, *, versions: int = 3) -> AsyncIterator[World]:
    async with running_node(root) as node:
        config = CollectConfig(grace_s=GRACE_DAYS * 86_400.0, versions=versions)
        yield World(node, Collect(node.catalog, node.store, config=config, quiet=node.ingest.quiet, clock_ms=node.clock))


def sizes(collected: Collected) -> tuple[list[int], list[int]]:
    return [one.size for one in collected.due], [one.size for one in collected.waiting]


def entry(path: str, manifest: Manifest) -> Entry:
    return Entry(path, "prod", manifest.content, manifest.size, manifest.id, 1_700_000_000)


async def test_a_removed_file_stays_for_its_grace_and_goes_after_it(tmp_path: Path) -> None:
    async with world(tmp_path) as this:
        node = this.node
        await node.publish("munki", {"a": b"first", "b": b"second!"})
        assert sizes(await this.after(100)) == ([], [])
        await node.curation.remove("munki", ["a"])
        assert sizes(await this.after(29)) == ([], [5])
        await node.curation.undelete("munki", "a")
        assert sizes(await this.after(2)) == ([], [])
        await node.curation.remove("munki", ["a"])
        assert sizes(await this.after(29)) == ([], [5])
        node.clock.now_ms += 2 * DAY_MS
        assert sizes(await this.collect.preview()) == ([5], [])
        assert this.kept(b"first") == [True]
        used = node.store.used_bytes
        assert sizes(await this.collect.collect()) == ([5], [])
        assert (this.kept(b"first", b"second!"), node.store.used_bytes) == ([False, True], used - 5)
        assert sizes(await this.collect.collect()) == ([], [])
        [change] = await node.curation.undelete("munki", "a")
        assert [wanted.content for wanted in await node.catalog.wanted()] == [change.content]


async def test_of_older_versions_the_newest_three_stay(tmp_path: Path) -> None:
    contents = [f"version {number}".encode() for number in range(6)]
    async with world(tmp_path) as this:
        for content in contents:
            await this.node.publish("munki", {"a": content})
            this.node.clock.now_ms += 1000
        await this.after(31)
        assert this.kept(*contents) == [False, False, True, True, True, True]
        await this.node.curation.rollback("munki", "a")
        await this.after(31)
        assert this.kept(*contents) == [False, False, True, True, True, True]
        await this.node.curation.remove("munki", ["a"])
        await this.after(31)
        assert this.kept(*contents) == [False] * 6, "of a removed file nothing is kept but for the grace"


async def test_a_sibling_that_lost_a_conflict_is_needed(tmp_path: Path) -> None:
    async with world(tmp_path, versions=0) as this:
        manifests = await this.node.upload(b"one", b"other")
        for manifest in manifests:
            await this.node.catalog.author("munki", [entry("a", manifest)])
        [listed] = await this.node.catalog.entries("munki")
        assert listed.siblings == 1
        await this.after(100)
        assert this.kept(b"one", b"other") == [True, True]
        await this.node.publish("munki", {"a": b"both"})
        await this.after(31)
        assert this.kept(b"one", b"other", b"both") == [False, False, True]


async def test_an_upload_without_a_name_has_its_grace_which_begins_anew_when_it_comes_again(tmp_path: Path) -> None:
    async with world(tmp_path) as this:
        await this.node.upload(b"nameless")
        await this.after(29)
        await this.node.upload(b"nameless")
        await this.after(29)
        assert this.kept(b"nameless") == [True]
        await this.after(2)
        assert this.kept(b"nameless") == [False]


async def test_blobs_that_nobody_knows_and_damaged_copies_go_too(tmp_path: Path) -> None:
    async with world(tmp_path) as this:
        node = this.node
        [unknown, damaged] = await node.store.put_bodies([b"unknown", b"damaged"])
        await node.catalog.hold([damaged])
        await node.catalog.damage(damaged.content, "it is wrong")
        node.store.set_aside(damaged.content)
        assert sizes(await this.after(29)) == ([], [7, 7])
        assert {one.content for one in (await this.after(2)).due} == {unknown.content, damaged.content}
        assert [path for path in files_in(tmp_path) if not path.startswith("catalog")] == []
        assert await node.catalog.damaged() == []


@pytest.mark.parametrize("length", [None, 3, 30])
async def test_what_hands_removed_or_changed_before_is_not_counted_after(tmp_path: Path, length: int | None) -> None:
    """Otherwise a quota is full of files that are not there."""
    async with world(tmp_path) as this:
        node = this.node
        await node.publish("munki", {"a": b"first", "b": b"second!"})
        await node.curation.remove("munki", ["a"])
        blob = node.store.path_of(manifest_of(b"first").content)
        if length is None:
            blob.unlink()
        else:
            os.truncate(blob, length)
        assert sizes(await this.after(31)) == ([5], [])
        assert node.store.used_bytes == len(b"second!")


async def test_nothing_goes_while_an_entry_is_being_signed_nor_what_it_names(tmp_path: Path) -> None:
    async with world(tmp_path) as this:
        node = this.node
        await node.publish("munki", {"a": b"again"})
        await node.curation.remove("munki", ["a"])
        await this.after(29)
        node.clock.now_ms += 2 * DAY_MS
        turn, manifest = node.ingest.turn("munki"), manifest_of(b"again")
        async with asyncio.TaskGroup() as group, turn:
            collecting = group.create_task(this.collect.collect())
            await until(lambda: bool(turn._waiters), what="the collector to wait for its turn")
            await node.catalog.author("munki", [entry("b", manifest)])
        assert sizes(collecting.result()) == ([], [])
        listed = await node.catalog.visible("munki", "b")
        assert listed is not None
        assert listed.available
        assert this.kept(b"again") == [True]


async def test_a_node_that_is_no_member_or_does_not_know_the_time_collects_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as this:
        await this.node.upload(b"nameless")
        await this.collect.preview()
        this.node.clock.now_ms += 31 * DAY_MS

        def refuse() -> None:
            raise ConflictError("the clock is wrong")

        this.node.catalog.check_clock = refuse
        with pytest.raises(ConflictError, match="clock is wrong"):
            await this.collect.collect()
        this.node.catalog.check_clock = lambda: None
        await this.node.catalog.author_as(NETWORK, [Cut(NODE.id, {}, "remove")])
        with pytest.raises(ConflictError, match="no member"):
            await this.collect.collect()
        assert this.kept(b"nameless") == [True]
