"""One node with a real catalog and a real store: what ingest and reconcile work on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from replicad.catalog.catalog import Catalog
from replicad.crypto.keys import SigningKey
from replicad.model.events import Event
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Grant, Policy, Role
from replicad.services.curation import Curation
from replicad.services.ingest import Ingest, Item, Published
from replicad.store.blobs import BlobStore
from replicad.store.disk import Disk
from replicad.store.space import StoreConfig
from support.storing import NO_RESERVE, manifest_of, opened_store

NETWORK = SigningKey(bytes(range(32)))
NODE = SigningKey(bytes(range(1, 33)))
SHARES = (Policy("munki", public=True), Policy("sealed", public=True, immutable=True), Policy("plain", public=True, stages=("only",)))


@dataclass
class Node:
    """``events`` are what the catalog told since the node was opened. ``now_ms`` is its wall clock."""

    catalog: Catalog
    store: BlobStore
    ingest: Ingest
    curation: Curation
    clock: Clock
    events: list[Event] = field(default_factory=list)

    async def upload(self, *contents: bytes) -> list[Manifest]:
        return await self.ingest.receive_small(contents)

    async def publish(self, share: str, files: dict[str, bytes], *, stage: str | None = None) -> list[Published]:
        await self.upload(*files.values())
        return await self.ingest.publish(share, items(files), stage=stage)

    async def listed(self, share: str) -> dict[str, bytes]:
        """Path to content digest of every live file of all stages, as (path@stage)."""
        return {f"{entry.path}@{entry.stage}": bytes(entry.content) for entry in await self.catalog.entries(share, all_stages=True, limit=10_000)}


@dataclass
class Clock:
    now_ms: int = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def items(files: dict[str, bytes]) -> list[Item]:
    return [Item(path, manifest_of(content).content, len(content)) for path, content in files.items()]


@asynccontextmanager
async def running_node(
    root: Path, *, grant: Grant | None = None, bodies: Sequence[Body] = SHARES, config: StoreConfig = NO_RESERVE, disk: Disk | None = None
) -> AsyncIterator[Node]:
    """A node that was founded at the first call for this directory, with this grant (admin unless told otherwise) and these shares."""
    clock = Clock()
    found = not (root / "catalog.sqlite").exists()
    opened = Catalog.open(root / "catalog.sqlite", node=NODE, clock_ms=clock, random16=lambda: 7, network=NETWORK.id)
    async with opened_store(root, config=config, disk=disk) as store, opened as catalog:
        if found:
            await catalog.author_as(NETWORK, [grant or Grant(NODE.id, "ann", Role.ADMIN), *bodies])
        clock.now_ms += 1000
        ingest = Ingest(catalog, store, clock_ms=clock)
        node = Node(catalog, store, ingest, Curation(catalog, turn=ingest.turn, clock_ms=clock), clock)
        catalog.on_event = node.events.append
        yield node
