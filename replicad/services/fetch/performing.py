"""Does what the plan says: one task per request, per content to open and per content to finish. Each ends with the event that the plan expects, whatever happens.

A request holds its buffer until its bytes are verified and written; a cancellation waits for the thread that works on it (the store sees to that), so no buffer is used twice at a time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import IntegrityError, NoSpaceError, NotFoundError, ReplicadError, StorageError, UnreachableError
from replicad.model.manifest import Manifest
from replicad.protocol.fetch import batch
from replicad.protocol.fetch.events import (
    Cancel,
    Close,
    Ended,
    Event,
    Fault,
    Finish,
    Finished,
    GetBatch,
    GetExtent,
    GetManifest,
    Halt,
    Open,
    Opened,
    Target,
    Unopened,
    small_of,
)
from replicad.services.fetch.getting import fault_of
from replicad.services.fetch.reuse import reuse
from replicad.store.uploads import small_manifest
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from replicad.catalog import Catalog
    from replicad.model.ids import Digest, NodeId
    from replicad.net.link import Link
    from replicad.services.fetch.buffers import Buffers
    from replicad.services.fetch.getting import Getting
    from replicad.services.fetch.partials import Partials
    from replicad.services.fetch.smalls import Smalls
    from replicad.store.blobs import BlobStore

log = get(__name__)

FULL_S = 30.0
"""After the disk was full or failed, nothing is asked for so long: long enough not to hammer it, short enough to go on by itself soon after room appears (a guess)."""
ROOM_S = 3.0
"""What there was no room for is tried again so soon, which costs nobody anything: no byte of it was asked for."""

Task = Open | Close | Finish | GetManifest | GetExtent | GetBatch


class Performing:
    """``report`` takes the events; ``progressed(target)`` is called when chunks of a partial were verified."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: BlobStore,
        getting: Getting,
        partials: Partials,
        smalls: Smalls,
        buffers: Buffers,
        report: Callable[[Event], None],
        progressed: Callable[[Target], None],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._getting = getting
        self._partials = partials
        self._smalls = smalls
        self._buffers = buffers
        self._report = report
        self._progressed = progressed
        self._requests: dict[int, asyncio.Task[None]] = {}
        self._order: dict[Target, tuple[asyncio.Lock, int]] = {}

    def start(self, group: asyncio.TaskGroup, effect: Task | Cancel) -> None:
        """Begin to do it, as a child of the service."""
        match effect:
            case Cancel():
                task = self._requests.pop(effect.number, None)
                if task is not None:
                    task.cancel()
            case GetManifest() | GetExtent() | GetBatch():
                task = self._requests[effect.number] = group.create_task(self._request(effect))
                task.add_done_callback(lambda _: self._requests.pop(effect.number, None))
            case Open():
                group.create_task(self._in_order(effect.target, self._open(effect.target)))
            case Finish():
                group.create_task(self._in_order(effect.target, self._finish(effect.target)))
            case Close():
                group.create_task(self._in_order(effect.target, self._close(effect)))

    async def _in_order(self, target: Target, work: Coroutine[object, object, None]) -> None:
        """What is done to one partial is done one after the other."""
        lock, users = self._order.get(target) or (asyncio.Lock(), 0)
        self._order[target] = lock, users + 1
        try:
            async with lock:
                await work
        finally:
            work.close()
            users = self._order[target][1] - 1
            if users:
                self._order[target] = lock, users
            else:
                del self._order[target]

    # -- partials

    async def _open(self, target: Target, known: Manifest | None = None) -> None:
        """Say what is here of a content: nothing, its manifest, some chunks, or all of it."""
        try:
            adopted = None if known else await self._adopted(target.content)
            if adopted is not None:
                await self._catalog.hold([adopted])
                self._report(Unopened(target))
                return
            manifest = known or await self._catalog.manifest(*target)
            if manifest is None:
                self._report(Opened(target, manifest=False))
                return
            partial = await self._partials.open(manifest)
            if not partial.count and not await self._reuse(target, manifest):
                return
        except NoSpaceError as error:
            log.seldom(target, "a content cannot be fetched now: fetching it goes on when there is room", content=target.content.short, reason=error.message)
            self._report(Unopened(target, ROOM_S))
            return
        except ReplicadError as error:
            log.seldom(target, "a content cannot be fetched now", content=target.content.short, reason=error.message)
            self._report(Unopened(target))
            return
        self._report(Opened(target, manifest=True, verified=self._partials.verified(target)))
        self._progressed(target)

    async def _adopted(self, content: Digest) -> Manifest | None:
        """The whole of it, if the disk has it already. One bad sector does not keep it from being fetched, and what can be read around it is not fetched."""
        try:
            return await self._store.adopt(content)
        except StorageError as error:
            log.seldom(content, "a file on this disk cannot be read as a whole: what is missing is fetched", content=content.short, reason=error.message)
            self._store.set_aside(content)
            return None

    async def _reuse(self, target: Target, manifest: Manifest) -> bool:
        """Begin with what the disk has; False if that shows that the manifest lies."""
        try:
            await reuse(self._catalog, self._store, self._partials, target, manifest)
        except IntegrityError as error:
            await self._partials.close(target, discard=True)
            self._lies(target, error)
            return False
        return True

    def _lies(self, target: Target, error: IntegrityError) -> None:
        """Whoever signed it lies, and no peer does: nobody is blamed. The plan gives up what is asked of it and closes the partial, if that is not done."""
        log.error(
            "a manifest lies: its chunks are right, the content is not", content=target.content.short, manifest=target.manifest.short, reason=error.message
        )
        self._report(Finished(target, sound=False))

    async def _finish(self, target: Target) -> None:
        try:
            await self._partials.finish(target)
        except IntegrityError as error:
            await self._partials.close(target, discard=True)
            self._lies(target, error)
        except NotFoundError:
            self._report(Unopened(target))
        except ReplicadError as error:
            log.seldom(target, "a content could not be finished and will be tried again", content=target.content.short, reason=error.message)
            self._report(Halt(FULL_S))
            self._report(Opened(target, manifest=True, verified=self._partials.verified(target)))
        else:
            self._report(Finished(target))

    async def _close(self, effect: Close) -> None:
        try:
            await self._partials.close(effect.target, discard=effect.discard)
        except ReplicadError as error:
            log.warning("a partial could not be closed cleanly", content=effect.target.content.short, reason=error.message)

    # -- requests

    async def _request(self, effect: GetManifest | GetExtent | GetBatch) -> None:
        try:
            link = self._getting.link(effect.node)
            match effect:
                case GetManifest():
                    await self._get_manifest(effect, link)
                case GetExtent():
                    await self._get_extent(effect, link)
                case GetBatch():
                    await self._get_batch(effect, link)
        except ReplicadError as error:
            fault = fault_of(error)
            self._explain(effect.node, fault, error)
            self._report(Ended(effect.number, fault=fault))

    async def _get_manifest(self, effect: GetManifest, link: Link) -> None:
        target = Target(effect.wanted.content, effect.wanted.manifest)
        try:
            manifest = await self._getting.manifest(link, effect.wanted)
        except IntegrityError as error:
            self._explain(effect.node, Fault.BAD_MANIFEST, error)
            self._report(Ended(effect.number, bad=(0,), fault=Fault.BAD_MANIFEST))
            return
        await self._catalog.add_manifests([manifest])
        self._report(Ended(effect.number))
        await self._in_order(target, self._open(target, manifest))

    async def _get_extent(self, effect: GetExtent, link: Link) -> None:
        partial = self._partials.get(effect.target)
        if partial is None:
            raise UnreachableError("the content is not open")
        manifest = partial.manifest
        start, stop = manifest.byte_range(effect.extent)
        with self._buffers.taken(stop - start) as buffer:
            received, error = await self._getting.chunks(link, manifest, effect.extent, buffer)
            whole = received if received == len(buffer) else received - received % manifest.chunk_size
            try:
                good, bad = await self._partials.write(effect.target, effect.extent.first, buffer[:whole]) if whole else ([], [])
            except IntegrityError as lie:
                self._lies(effect.target, lie)
                return
        fault = fault_of(error) if error is not None else None
        if fault is not None and error is not None:
            self._explain(effect.node, fault, error)
        first = effect.extent.first
        self._report(Ended(effect.number, good=tuple(index - first for index in good), bad=tuple(index - first for index in bad), fault=fault))
        self._progressed(effect.target)

    async def _get_batch(self, effect: GetBatch, link: Link) -> None:
        contents = [small_of(wanted) for wanted in effect.wanted]
        with self._smalls.coming():
            with self._buffers.taken(batch.answer_bytes_max(contents)) as buffer:
                parts = await self._getting.batch(link, contents, buffer, patient=effect.patient)
                present = [(at, part) for at, part in enumerate(parts) if isinstance(part, memoryview)]
                wrong = await self._smalls.keep([(small_manifest(contents[at].content, len(part)), part) for at, part in present]) if present else []
            self._report(
                Ended(
                    effect.number,
                    good=tuple(at for place, (at, _) in enumerate(present) if place not in wrong),
                    bad=tuple(present[place][0] for place in wrong),
                    absent=tuple(at for at, part in enumerate(parts) if part is batch.Mark.ABSENT),
                    spread=tuple(at for at, part in enumerate(parts) if part is batch.Mark.SPREAD),
                )
            )

    def _explain(self, node: NodeId, fault: Fault, error: ReplicadError) -> None:
        if fault is Fault.LOCAL:
            log.seldom("local", "fetching pauses", reason=error.message)
            self._report(Halt(FULL_S))
        elif fault is not Fault.BUSY:
            log.seldom((node, fault), "a request to a peer failed", peer=node.short, fault=fault.value, reason=error.message)
