"""Collect: content that nothing needs any more goes, when it was so for the whole grace.

What is needed is the catalog's to say (``catalog.keeping``): live entries and siblings in carried stages, and the newest older versions. What is not is noted first, and goes only when the grace is over
and it is still not needed, asked again in the transaction that forgets it, while nobody here is about to sign an entry for it. Also blobs that no row of the catalog knows and damaged copies that were
set aside. A node that is no member, or whose clock cannot be trusted, collects nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from replicad.catalog import Catalog
from replicad.errors import ConflictError, ReplicadError
from replicad.model.ids import SIZE_BYTES, Digest
from replicad.store.blobs import BlobStore
from replicad.store.care import CollectConfig
from replicad.store.layout import SHARDS
from replicad.telemetry.log import get

log = get(__name__)

PAUSE_S = 3600.0
"""Between two collections: the grace is measured in days."""
GROUP_MAX = 256
"""Contents asked about, and forgotten, in one step: some milliseconds of the catalog's writer."""


@dataclass(frozen=True, slots=True)
class Unneeded:
    """Content that nothing needs. ``since_ms``: when that was noticed first, milliseconds since 1970."""

    content: Digest
    size: int
    since_ms: int


@dataclass(frozen=True, slots=True)
class Collected:
    """``due`` went, or would go; ``waiting`` is in its grace."""

    due: tuple[Unneeded, ...]
    waiting: tuple[Unneeded, ...]


class Collect:
    """``quiet()``: nobody signs entries of this node meanwhile. ``clock_ms`` is the wall clock, milliseconds since 1970."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        *,
        config: CollectConfig,
        quiet: Callable[[], AbstractAsyncContextManager[None]],
        clock_ms: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._config = config
        self.grace_ms = int(config.grace_s * 1000)
        self._quiet = quiet
        self._clock_ms = clock_ms
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Collect now and then until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            try:
                await self.collect()
            except ReplicadError as error:
                log.seldom("collect", "nothing is collected; it will be tried again", reason=error.message)

    async def preview(self) -> Collected:
        """What ``collect`` would do now, and what is in its grace."""
        async with self._turn:
            return await self._look()

    async def collect(self) -> Collected:
        """Remove what is due. ConflictError if this node is no member or its clock cannot be trusted: then nothing is."""
        async with self._turn:
            self._check()
            found = await self._look()
            gone: list[Unneeded] = []
            for start in range(0, len(found.due), GROUP_MAX):
                gone += await self._remove(found.due[start : start + GROUP_MAX])
        if gone:
            log.info("content that nothing needs was removed", files=len(gone), bytes=sum(one.size for one in gone))
        return Collected(tuple(gone), found.waiting)

    def _check(self) -> None:
        if self._catalog.node not in self._catalog.replica.trust.members(self._clock_ms()):
            raise ConflictError("this node is no member of its network, so nothing is collected", hint="replicad peer add TOKEN", code="not-a-member")
        self._catalog.check_clock()

    async def _look(self) -> Collected:
        """Everything on the disk that nothing needs."""
        due: list[Unneeded] = []
        waiting: list[Unneeded] = []
        until_ms = self._until_ms()
        for shard in range(SHARDS):
            sizes = await self._sizes(shard)
            for content, since_ms in (await self._unneeded(list(sizes))).items():
                (due if since_ms <= until_ms else waiting).append(Unneeded(content, sizes[content], since_ms))
        return Collected(tuple(due), tuple(waiting))

    async def _sizes(self, shard: int) -> dict[Digest, int]:
        """Bytes of every content of one shard that is held, or whose file is there."""
        first = bytes([shard])
        aside = {content: size for content, size in self._store.aside.items() if content[0] == shard}
        held = {content: size async for content, size in self._catalog.held_contents(after=first, until=first + b"\xff" * SIZE_BYTES)}
        return aside | await self._store.shard(shard) | held

    async def _unneeded(self, contents: list[Digest]) -> dict[Digest, int]:
        found: dict[Digest, int] = {}
        for start in range(0, len(contents), GROUP_MAX):
            found |= await self._catalog.note_unneeded(contents[start : start + GROUP_MAX], versions=self._config.versions, now_ms=self._clock_ms())
        return found

    async def _remove(self, group: tuple[Unneeded, ...]) -> list[Unneeded]:
        async with self._quiet():
            forgotten = await self._catalog.forget([one.content for one in group], versions=self._config.versions, until_ms=self._until_ms())
        for content, counted in forgotten.items():
            if not self._catalog.is_held(content):  # nobody has brought it meanwhile
                await self._store.remove(content, counted)
        return [one for one in group if one.content in forgotten]

    def _until_ms(self) -> int:
        return self._clock_ms() - self.grace_ms
