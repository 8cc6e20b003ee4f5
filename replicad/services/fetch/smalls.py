"""Small contents between their arrival and their durability.

A batch that was verified and written counts for us and for others at once (``find``); it becomes held, and so visible, when it is durable. That happens in groups, which share their syncs and their
transaction: begun at ``GROUP_BYTES`` or ``GROUP_FILES``, after ``GROUP_S``, or as soon as nothing more is on its way. Batches wait when ``UNSAFE_BYTES_MAX`` or ``UNSAFE_FILES_MAX`` are written and not
yet durable: that is what a crash costs at most.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from replicad.errors import ReplicadError
from replicad.protocol.wire import Small
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replicad.catalog import Catalog
    from replicad.model.ids import Digest
    from replicad.model.manifest import Manifest
    from replicad.store.blobs import BlobStore
    from replicad.store.uploads import Fresh

log = get(__name__)

MIB = 1 << 20
GROUP_BYTES = 32 * MIB
GROUP_FILES = 512
UNSAFE_BYTES_MAX = 64 * MIB
UNSAFE_FILES_MAX = 1024
"""An open file each."""
GROUP_S = 1.0
"""So long a content that is here waits for others before it becomes durable, if there is always one more on its way. The longer, the fewer syncs: a group syncs each directory once
(docs/adr/0010-small-files-in-groups.md)."""


class Changed(Protocol):
    """Small contents came (``held``) or went."""

    def __call__(self, contents: Sequence[Small], *, held: bool) -> None:
        """Take note."""


class Smalls:
    """``changed`` is told what can be served, or cannot any more because the disk lost it."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        *,
        changed: Changed,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._changed = changed
        self._fresh: dict[Digest, tuple[Manifest, Fresh]] = {}
        self._group: list[tuple[Manifest, Fresh]] = []
        self._group_bytes = 0
        self._unsafe_bytes = 0
        self._unsafe_files = 0
        self._coming = 0
        self._room = asyncio.Event()
        self._begun = asyncio.Event()
        self._due = asyncio.Event()

    def find(self, content: Digest) -> Fresh | None:
        """What was written and is not durable yet."""
        found = self._fresh.get(content)
        return None if found is None else found[1]

    def sizes(self, contents: Iterable[Digest]) -> dict[Digest, int]:
        """The sizes in bytes of those of the contents that it has."""
        fresh = self._fresh
        return {content: fresh[content][1].size for content in contents if content in fresh}

    def contents(self) -> frozenset[Digest]:
        """All of it."""
        return frozenset(self._fresh)

    @contextmanager
    def coming(self) -> Iterator[None]:
        """A batch is on its way: what is here may wait for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            if not self._coming:
                self._due.set()

    async def keep(self, items: Sequence[tuple[Manifest, memoryview]]) -> list[int]:
        """Verify and write contents of one chunk; returns the places of those that are something else. Waits for room. NoSpaceError, StorageError: nothing was kept."""
        size = sum(len(content) for _, content in items)
        while self._unsafe_files and (self._unsafe_bytes + size > UNSAFE_BYTES_MAX or self._unsafe_files + len(items) > UNSAFE_FILES_MAX):
            self._room.clear()
            self._due.set()
            await self._room.wait()
        self._unsafe_bytes += size
        self._unsafe_files += len(items)
        written: list[Fresh | None] = []
        try:
            written = await self._store.write_small(items)
        finally:
            kept = [one for one in written if one is not None]
            self._release(size - sum(one.size for one in kept), len(items) - len(kept))
        self._add([(manifest, one) for (manifest, _), one in zip(items, written, strict=True) if one is not None])
        return [at for at, one in enumerate(written) if one is None]

    def _add(self, found: list[tuple[Manifest, Fresh]]) -> None:
        self._group += found
        self._group_bytes += sum(one.size for _, one in found)
        self._fresh.update((manifest.content, (manifest, one)) for manifest, one in found)
        self._begun.set()
        if self._group_bytes >= GROUP_BYTES or len(self._group) >= GROUP_FILES or not self._coming:
            self._due.set()
        self._changed([Small(manifest.content, manifest.size) for manifest, _ in found], held=True)

    def _release(self, size_bytes: int, files: int) -> None:
        self._unsafe_bytes -= size_bytes
        self._unsafe_files -= files
        self._room.set()

    async def commit_forever(self) -> None:
        """Make groups durable until cancelled."""
        while True:
            await self._begun.wait()
            try:
                async with asyncio.timeout(GROUP_S):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            self._begun.clear()
            await self.commit()

    async def commit(self) -> None:
        """Make everything written so far durable, and held. What the disk lost is gone: it will be fetched again."""
        group, self._group, self._group_bytes = self._group, [], 0
        if not group:
            return
        lost = False
        try:
            await self._store.name_small([one for _, one in group])
            await self._catalog.hold([manifest for manifest, _ in group])
        except ReplicadError as error:
            log.error("the disk lost a group of small contents; they will be fetched again", contents=len(group), reason=error.message)
            lost = True
        finally:
            self._forget(group)
        if lost:
            self._changed([Small(manifest.content, manifest.size) for manifest, _ in group], held=False)

    def _forget(self, group: list[tuple[Manifest, Fresh]]) -> None:
        for manifest, one in group:
            if self.find(manifest.content) is one:
                del self._fresh[manifest.content]
        self._release(sum(one.size for _, one in group), len(group))
