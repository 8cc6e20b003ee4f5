"""The serving side: who may have what, in which turn, from which file. Handlers of the peer door and the links' messages come here.

Only verified chunks leave: of a held blob all, of a partial those whose hash was checked. Every request is judged against the records as they are now.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from replicad.errors import BusyError, NotAllowedError, NotFoundError
from replicad.model.chunks import CHUNK_SIZE_MIN, Extent
from replicad.net.pace import TOTAL
from replicad.protocol.fetch import sets, supply
from replicad.protocol.fetch.batch import Mark
from replicad.protocol.fetch.events import Target
from replicad.protocol.fetch.turns import Turn, Turns
from replicad.protocol.wire import Small
from replicad.services.fetch.measuring import Measuring
from replicad.services.fetch.small_reader import SmallReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from replicad.catalog import Catalog
    from replicad.model.ids import Digest, NodeId
    from replicad.model.manifest import Manifest
    from replicad.net.pace import Pace, Paces
    from replicad.protocol.fetch.config import FetchConfig
    from replicad.protocol.fetch.events import Say
    from replicad.services.fetch.partials import Partials
    from replicad.services.fetch.rights import Rights
    from replicad.services.fetch.smalls import Smalls
    from replicad.store.blobs import BlobStore

QUEUE_S = 5.0
"""A request waits for its turn at most so long, then it hears "busy": less than the time after which its peer gives up a silent one."""
MANIFESTS_MAX = 256
"""Contents being served whose manifests are kept at hand: 32 MiB if all were of the largest kind, which is rare; normally some kilobytes each."""


class Provider:
    """``say`` sends what the supply wants told."""

    def __init__(
        self,
        config: FetchConfig,
        *,
        catalog: Catalog,
        store: BlobStore,
        partials: Partials,
        smalls: Smalls,
        rights: Rights,
        paces: Paces,
        say: Callable[[list[Say]], None],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._partials = partials
        self._smalls = smalls
        self._reader = SmallReader(store, smalls, doubt=catalog.doubt)
        self._rights = rights
        self._paces = paces
        self._say = say
        self.doubt = catalog.doubt
        """Tell of a content that could not be read as it should be."""
        self.supply = supply.Supply(random.Random().randrange)  # noqa: S311 - no secret
        self._turns = Turns(config)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._patience: asyncio.TimerHandle | None = None
        self._manifests: OrderedDict[Digest, tuple[Manifest, ...]] = OrderedDict()
        self.measuring = Measuring(catalog, store)
        self.sent_bytes = 0

    # -- what is here

    async def servable(self, target: Target) -> tuple[int, int]:
        """(number of chunks, set of those that can be served) of a content; (0, 0) if nothing is known of it."""
        try:
            manifest, verified = await self._known(target)
        except NotFoundError:
            return 0, 0
        return manifest.count, verified

    async def _held(self, content: Digest) -> tuple[Manifest, ...]:
        """What it can be served under: the manifest that it is held under, and the same without states; nothing if it is not held."""
        found = self._manifests.get(content)
        if found is None:
            held = await self._catalog.held_manifest(content)
            if held is None:
                return ()
            found = self._manifests[content] = (held, held.bare) if held.states else (held,)
            if len(self._manifests) > MANIFESTS_MAX:
                self._manifests.popitem(last=False)
        return found

    def held_small(self, contents: Sequence[Small]) -> tuple[Small, ...]:
        """Those that can be served under exactly that size."""
        named = [small.content for small in contents]
        sizes = self._smalls.sizes(named) | self._catalog.held_sizes(named)
        return tuple([small for small in contents if sizes.get(small.content) == small.size]) if sizes else ()

    # -- what others want to know

    async def watch(self, node: NodeId, target: Target, *, active: bool) -> None:
        """A peer fetches a content, or does not any more."""
        if not active:
            self.tell(supply.Unwatch(node, target))
            return
        count, servable = await self.servable(target) if await self._rights.may_have(node, target.content) else (0, 0)
        self.tell(supply.Watch(node, target, count, servable, near=self._rights.site(self._catalog.node) == self._rights.site(node)))

    async def seek(self, node: NodeId, contents: tuple[Small, ...], *, active: bool) -> None:
        """A peer looks for small contents, or does not any more."""
        held: tuple[Small, ...] = ()
        if active:
            held = self.held_small(await self._granted(node, contents))
        self.tell(supply.Sought(node, contents, held, active))

    def progressed(self, target: Target) -> None:
        """Chunks of a partial were verified (or lost)."""
        partial = self._partials.get(target)
        if partial is not None and self.supply.is_watched(target):
            self.tell(supply.Servable(target, partial.manifest.count, self._partials.verified(target)))

    async def now_held(self, contents: Iterable[tuple[Digest, int]]) -> None:
        """These contents (digest, size) are held now, however they came, and under what the catalog says."""
        small = []
        for content, size in contents:
            if size <= CHUNK_SIZE_MIN:
                small.append(Small(content, size))
            self._manifests.pop(content, None)
            for target in self.supply.watched_targets(content):
                self.tell(supply.Servable(target, *await self.servable(target)))
        if small:
            self.tell(supply.SmallHeld(tuple(small)))

    def lost(self, content: Digest) -> None:
        """This content is not held any more."""
        self.measuring.lost(content)
        found = self._manifests.pop(content, ())
        for target in self.supply.watched_targets(content):
            self.tell(supply.Servable(target, found[0].count if found else 0, 0))
        if found and found[0].size <= CHUNK_SIZE_MIN:
            self.tell(supply.SmallHeld((Small(content, found[0].size),), held=False))

    def tell(self, event: supply.SupplyEvent) -> None:
        """Give the supply an event, send what it says."""
        self._say(self.supply.handle(event, _now()))

    # -- what others fetch

    @asynccontextmanager
    async def turn(self, node: NodeId) -> AsyncIterator[None]:
        """The right to send one answer; waits for it at most ``QUEUE_S``. BusyError."""
        number = next(self._numbers)
        self._turns.peers = self.supply.watching
        self._turns.limit = self._paces.up.throttle.rate([TOTAL])
        turn = self._turns.ask(number, node, _now())
        if turn is Turn.BUSY:
            raise BusyError("one request of yours is waiting already")
        try:
            if turn is Turn.WAIT:
                await self._wait(number)
            yield
        finally:
            self._turns.done(number)
            self._admit()

    async def _wait(self, number: int) -> None:
        waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._rearm()
        try:
            async with asyncio.timeout(QUEUE_S):
                await waiter
        except TimeoutError:
            raise BusyError("too many others are being served") from None
        finally:
            del self._waiting[number]

    def _admit(self) -> None:
        for number in self._turns.due(_now()):
            waiter = self._waiting.get(number)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._rearm()

    def _rearm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        deadline = self._turns.next_deadline()
        if deadline is not None:
            self._patience = asyncio.get_running_loop().call_at(deadline, self._admit)

    @asynccontextmanager
    async def pacing(self, node: NodeId, contents: Iterable[Digest]) -> AsyncIterator[Pace | None]:
        """What limits an answer with these contents; nothing if all of them are urgent. NotAllowedError if nothing may go to that node now."""
        urgent = bool(self._paces.up.throttle) and await self._catalog.are_urgent(contents)
        with self._paces.giving(node, urgent=urgent) as pace:
            yield pace

    async def open_chunks(self, node: NodeId, target: Target, *, start: int, stop: int) -> tuple[int, int]:
        """(file descriptor that the caller closes, size of the content) for bytes ``start`` to ``stop``, all of them verified. NotAllowedError; NotFoundError if some are not here; BusyError if the node has them sooner from another that just got them."""
        await self._check(node, target.content)
        manifest, verified = await self._known(target)
        if not 0 <= start < stop <= manifest.size:
            raise NotFoundError("the content has no such bytes")
        extent = Extent(start // manifest.chunk_size, -(-stop // manifest.chunk_size) - start // manifest.chunk_size)
        if sets.run(extent.first, extent.count) & ~verified:
            raise NotFoundError("not all of those bytes are here")
        if self.supply.spreads(node, target, extent, _now()):
            raise BusyError("another node just got these chunks")
        fd = await self.open(target)
        self.tell(supply.Asked(node, target, extent))
        self.sent_bytes += stop - start
        return fd, manifest.size

    async def _known(self, target: Target) -> tuple[Manifest, int]:
        """The manifest, if it is one of a content which is here, and the set of its chunks that can be served. NotFoundError; if the content is held, perhaps only until it was measured."""
        partial = self._partials.get(target)
        if partial is not None:
            return partial.manifest, self._partials.verified(target)
        held = await self._held(target.content) if self._catalog.is_held(target.content) else ()
        for manifest in held:
            if manifest.id == target.manifest:
                return manifest, sets.full(manifest.count)
        if held and held[0].count > 1:
            self.measuring.ask(target)
        raise NotFoundError("nothing of that content is here")

    async def open(self, target: Target) -> int:
        """A descriptor of the partial or the held blob, which the caller closes. NotFoundError."""
        partial = self._partials.get(target)
        if partial is not None:
            return os.dup(partial.fd)
        try:
            return self._store.open_blob(target.content)
        except NotFoundError:
            await self._catalog.lose(target.content)
            raise

    async def manifest(self, node: NodeId, target: Target) -> Manifest:
        """The manifest of a content that is here, whole or in part. NotAllowedError, NotFoundError."""
        await self._check(node, target.content)
        return (await self._known(target))[0]

    async def open_batch(
        self, node: NodeId, contents: tuple[Small, ...], *, patient: bool = False, at_once: bool = False
    ) -> tuple[int, AsyncIterator[bytearray]]:
        """(length, pieces) of a batch answer; ``patient``: without what another was just given; ``at_once``: what is in memory is read without a thread. NotAllowedError if nothing of it is granted. The pieces raise StorageError when a blob vanishes meanwhile."""
        granted = await self._granted(node, contents)
        if not granted:
            raise NotAllowedError("none of these contents is granted")
        held = self.held_small(granted)
        site = self._rights.site(node)
        spread = self.supply.spreads_small(node, held, _now(), site=site) if patient else frozenset[Small]()
        self.tell(supply.AskedSmall(node, tuple([small for small in held if small not in spread]), site))
        marks = {small: Mark.SPREAD if small in spread else Mark.HELD for small in held}
        marks, pieces = await self._reader.open(contents, marks, at_once=at_once)
        for small in set(held) - marks.keys():
            await self._catalog.lose(small.content)
        size = len(contents) + sum(small.size for small in contents if marks.get(small) is Mark.HELD)
        self.sent_bytes += size
        return size, pieces

    def undelivered(self, node: NodeId, contents: tuple[Small, ...]) -> None:
        """An answer with these broke off."""
        self.tell(supply.UndeliveredSmall(node, contents, self._rights.site(node)))

    async def _granted(self, node: NodeId, contents: Sequence[Small]) -> Sequence[Small]:
        granted = await self._rights.granted(node, [small.content for small in contents])
        return [small for small in contents if small.content in granted]

    async def _check(self, node: NodeId, content: Digest) -> None:
        if not await self._rights.may_have(node, content):
            raise NotAllowedError("that content is not granted")


def _now() -> float:
    return asyncio.get_running_loop().time()
