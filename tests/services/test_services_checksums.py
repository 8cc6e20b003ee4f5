"""Checksums of what did not come as an upload to a share that asks for them: fetched, named elsewhere before, or here before the share asked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from ingest_world import Node, items, running_node

from replicad.model.events import ContentHeld
from replicad.model.ids import Digest
from replicad.model.records import Policy
from replicad.services import checksums, hub
from replicad.services.checksums import Checksums
from replicad.services.hub import Hub
from support.storing import MIB, flip, manifest_of, pieces, random_bytes
from support.waiting import eventually, until

ASKED = ("md5", "of-a-later-version", "sha3_512", "sha512")


def expected(content: bytes) -> dict[str, bytes]:
    return {algorithm: hashlib.new(algorithm, content).digest() for algorithm in ("md5", "sha3_512", "sha512")}


@dataclass
class World:
    """A node and its service. ``examined``: what could not be read as it should be."""

    node: Node
    hub: Hub
    examined: list[Digest] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def examine(content: Digest) -> None:
            self.examined.append(content)

        service = asyncio.create_task(Checksums(self.node.catalog, self.node.store, hub=self.hub, examine=examine).run())
        try:
            yield
        finally:
            service.cancel()
            await asyncio.wait([service])
        assert service.cancelled()

    async def ask_for(self, *algorithms: str, share: str = "munki") -> None:
        await self.node.catalog.author("", [Policy(share, public=True, checksums=algorithms)])

    async def known(self, content: bytes) -> dict[str, bytes]:
        digest = manifest_of(content).content
        return dict((await self.node.catalog.checksums([digest])).get(digest, {}))

    async def wait_for(self, content: bytes) -> None:
        async def look() -> bool:
            return await self.known(content) == expected(content)

        await eventually(look, what="the checksums of a content")


@asynccontextmanager
async def world(root: Path) -> AsyncIterator[World]:
    async with running_node(root) as node:
        found = World(node, Hub())
        node.catalog.on_event = found.hub.publish
        yield found


async def test_what_a_share_has_when_it_begins_to_ask(tmp_path: Path) -> None:
    files, big = {f"{number}.pkg": f"content {number}".encode() for number in range(5)}, random_bytes(17 * MIB + 1)
    async with world(tmp_path) as found, found.running():
        await found.node.publish("munki", files)
        await found.node.ingest.receive(pieces(big), size=None)
        await found.node.ingest.publish("munki", items({"big.pkg": big}))
        await found.node.publish("munki", {"new.pkg": b"at the first stage"}, stage="dev")
        await found.node.publish("plain", {"other.pkg": b"in another share"})
        await found.ask_for(*ASKED)
        for content in [*files.values(), big, b"at the first stage"]:
            await found.wait_for(content)
        assert await found.known(b"in another share") == {}
    async with world(tmp_path) as found, found.running():
        await found.ask_for(*ASKED, share="plain")
        await found.wait_for(b"in another share")


async def test_a_start_makes_up_for_what_was_not_finished(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        await found.node.publish("munki", {"a.pkg": b"one"})
        await found.ask_for(*ASKED)
    async with world(tmp_path) as found, found.running():
        await found.wait_for(b"one")


async def test_what_arrives_and_what_gets_a_name(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        await found.ask_for(*ASKED)
        async with found.running():
            await found.node.publish("plain", {"a.pkg": b"named before"})
            await found.node.ingest.publish("munki", items({"a.pkg": b"named before"}))
            await found.wait_for(b"named before")
            await found.node.publish("munki", {"b.pkg": b"fetched"})
            await found.wait_for(b"fetched")
            await found.node.catalog.lose(manifest_of(b"fetched").content)
            assert await found.known(b"fetched") == {}
            await found.node.catalog.hold([manifest_of(b"fetched")])
            await found.wait_for(b"fetched")


@pytest.mark.parametrize(("module", "bound"), [(hub, "SUBSCRIBER_EVENTS_MAX"), (checksums, "DUE_MAX")], ids=["events", "contents"])
async def test_beyond_a_bound_everything_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, bound: str) -> None:
    monkeypatch.setattr(module, bound, 2)
    async with world(tmp_path) as found:
        await found.ask_for(*ASKED)
        async with found.running():
            await found.node.publish("munki", {"a.pkg": b"first"})
            await found.wait_for(b"first")
            found.node.catalog.on_event = lambda _: None
            await found.node.publish("munki", {"b.pkg": b"second"})
            for number in range(3):
                found.hub.publish(ContentHeld(((manifest_of(bytes([number])).content, 1),)))
            await found.wait_for(b"second")


async def test_what_is_damaged_is_looked_after_and_not_hashed(tmp_path: Path) -> None:
    async with world(tmp_path) as found:
        await found.node.publish("munki", {"a.pkg": b"damaged", "b.pkg": b"gone", "c.pkg": b"sound"})
        damaged, gone = manifest_of(b"damaged").content, manifest_of(b"gone").content
        flip(found.node.store.path_of(damaged), at=2)
        await found.node.store.remove(gone)
        await found.ask_for(*ASKED)
        async with found.running():
            await found.wait_for(b"sound")
            await until(lambda: set(found.examined) == {damaged, gone}, what="both to be examined")
            assert await found.known(b"damaged") == await found.known(b"gone") == {}


async def test_what_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "LOOK_AGAIN_S", 0.01)
    async with world(tmp_path) as found:
        await found.node.publish("munki", {"a.pkg": b"damaged"})
        content = manifest_of(b"damaged").content
        flip(found.node.store.path_of(content), at=2)
        await found.ask_for(*ASKED)
        async with found.running():
            await until(lambda: found.examined, what="an attempt")
            flip(found.node.store.path_of(content), at=2)
            await found.wait_for(b"damaged")


async def test_nobody_reads_where_nobody_asks(tmp_path: Path) -> None:
    async with world(tmp_path) as found, found.running():
        await found.node.publish("munki", {"a.pkg": b"one"})
        await found.ask_for("of-a-later-version")
        manifest = await found.node.store.receive(pieces(b"two"), size=3)
        await found.node.catalog.hold([manifest])
        await found.ask_for(*ASKED, share="plain")
        await found.node.publish("plain", {"a.pkg": b"last"})
        await found.wait_for(b"last")
        assert await found.known(b"one") == await found.known(b"two") == {}
