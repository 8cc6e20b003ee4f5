"""The partials being filled, and their commit groups.

Chunks count for us and for others as soon as they are verified and written. They survive a crash only after ``sync`` and the row in the catalog: that happens in groups, begun at
``GROUP_BYTES`` or after ``GROUP_S``. Writers wait when ``UNSAFE_BYTES_MAX`` are written and not yet safe, so a crash never costs more than that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import NotFoundError, ReplicadError, StorageError
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.events import Target
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.catalog import Catalog
    from replicad.model.manifest import Manifest
    from replicad.store.blobs import BlobStore
    from replicad.store.partials import Partial

log = get(__name__)

MIB = 1 << 20
GROUP_BYTES = 16 * MIB
UNSAFE_BYTES_MAX = 32 * MIB
"""Together with what is in flight (32 MiB by default) at most 64 MiB that a crash costs. An fdatasync per 16 MiB still runs at 1.4 GiB/s (measured)."""
GROUP_S = 5.0
RETRY_S = 1.0


class Partials:
    """All open partials. ``shrunk(target)`` is called when the disk lost chunks that had counted."""

    def __init__(self, catalog: Catalog, store: BlobStore, *, shrunk: Callable[[Target], None]) -> None:
        self._catalog = catalog
        self._store = store
        self._shrunk = shrunk
        self._open: dict[Target, Partial] = {}
        self._dirty: dict[Target, int] = {}
        self._unsafe_bytes = 0
        self._room = asyncio.Event()
        self._due = asyncio.Event()

    def get(self, target: Target) -> Partial | None:
        """The open partial, if there is one."""
        return self._open.get(target)

    def verified(self, target: Target) -> int:
        """The set of chunks that are here."""
        partial = self._open.get(target)
        return sets.from_bitmap(partial.have, partial.manifest.count) if partial is not None else 0

    async def clear_out(self) -> None:
        """Remove what was begun in an earlier life of the program and is not wanted any more. What cannot be removed waits for the next one."""
        try:
            for row in await self._catalog.partials():
                if not await self._catalog.is_wanted(row.content):
                    await self.close(Target(row.content, row.manifest), discard=True)
        except ReplicadError as error:
            log.warning("what is not wanted any more cannot be removed; the next start tries again", reason=error.message)

    async def open(self, manifest: Manifest) -> Partial:
        """The partial of that manifest with everything that was saved of it. NoSpaceError, StorageError."""
        target = Target(manifest.content, manifest.id)
        partial = self._open.get(target)
        if partial is None:
            saved = {Target(row.content, row.manifest): row.bitmap for row in await self._catalog.partials()}
            partial = self._open[target] = await self._store.open_partial(manifest, saved.get(target, b""))
            if partial.count and target not in saved:  # good chunks of a damaged copy, which were safe long ago
                await self._catalog.save_partials([(*target, bytes(partial.have))])
        return partial

    async def write(self, target: Target, first_chunk: int, content: memoryview) -> tuple[list[int], list[int]]:
        """Verify and write neighbouring chunks; returns the (good, bad) ones. Waits for room in the commit group. StorageError, NoSpaceError; IntegrityError: its manifest lies, close and discard it."""
        partial = self._open.get(target)
        if partial is None:
            raise StorageError(f"content {target.content} is not being fetched any more")
        size = len(content)
        while self._unsafe_bytes and self._unsafe_bytes + size > UNSAFE_BYTES_MAX:
            self._room.clear()
            await self._room.wait()
        self._unsafe_bytes += size
        kept = 0
        try:
            good, bad = await partial.write(first_chunk, content)
            kept = sum(partial.manifest.chunk_length(index) for index in good)
        finally:
            self._release(size - kept)
        if target not in self._open:
            self._release(kept)
        else:
            self._dirty[target] = self._dirty.get(target, 0) + kept
            if sum(self._dirty.values()) >= GROUP_BYTES:
                self._due.set()
        return good, bad

    def _release(self, size_bytes: int) -> None:
        self._unsafe_bytes -= size_bytes
        self._room.set()

    async def commit_forever(self) -> None:
        """Make groups safe until cancelled."""
        while True:
            try:
                async with asyncio.timeout(GROUP_S):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            try:
                await self.commit()
            except ReplicadError as error:
                log.seldom("commit", "progress could not be saved; it will be tried again", reason=error.message)
                await asyncio.sleep(RETRY_S)

    async def commit(self) -> None:
        """Make everything written so far safe. When that fails or is cancelled it is still unsafe, and counted as such."""
        group, self._dirty = self._dirty, {}
        try:
            await self._make_safe(group)
        except BaseException:
            for target, size_bytes in group.items():
                self._dirty[target] = self._dirty.get(target, 0) + size_bytes
            raise
        for size_bytes in group.values():
            self._release(size_bytes)

    async def _make_safe(self, group: dict[Target, int]) -> None:
        rows: dict[Target, bytes] = {}
        for target in list(group):
            partial = self._open.get(target)
            if partial is None:
                continue
            try:
                rows[target] = await partial.sync()
            except ReplicadError as error:
                log.error("the disk lost a commit group; its chunks will be fetched again", content=target.content.short, reason=error.message)
                self._release(group.pop(target))
                self._shrunk(target)
        unfinished = [(*target, bitmap) for target, bitmap in rows.items() if (partial := self._open.get(target)) is not None and not partial.finished]
        if unfinished:
            await self._catalog.save_partials(unfinished)

    async def finish(self, target: Target) -> None:
        """Make a complete partial a blob that is held. IntegrityError: its manifest lies, nothing is left of it. NotFoundError: it is not open. StorageError, NoSpaceError: look again at
        what is there.
        """
        partial = self._open.get(target)
        if partial is None:
            raise NotFoundError(f"content {target.content} is not being fetched any more")
        if not partial.complete:  # it was when this was decided
            raise StorageError(f"a failed sync discarded chunks of {target.content}")
        await partial.finish()
        await self._catalog.hold([partial.manifest])
        await self.close(target, discard=False)

    async def close(self, target: Target, *, discard: bool) -> None:
        """Fetch no more of it; keep what is safe, or nothing. Harmless if it is not open."""
        known = self._open.get(target)
        if known is not None and target in self._dirty and not discard and not known.finished:
            await self._commit_or_warn()
        partial = self._open.pop(target, None)
        self._release(self._dirty.pop(target, 0))
        if discard:
            await self._catalog.drop_partial(*target)
        if partial is not None:
            await (partial.discard() if discard else partial.close())
        elif discard:
            await self._store.discard_partial(*target)

    async def close_all(self) -> None:
        """Save and close everything: the service stops."""
        await self._commit_or_warn()
        for target in list(self._open):
            await self.close(target, discard=False)

    async def _commit_or_warn(self) -> None:
        try:
            await self.commit()
        except ReplicadError as error:
            log.warning("progress could not be saved", reason=error.message)
