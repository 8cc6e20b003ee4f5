"""How bytes come from a peer: over HTTP from its door, or, if that cannot be reached, by a ``Send`` over the link and a ``PUT`` to ours. The same path, reversed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicad.errors import BusyError, NotAllowedError, NotFoundError, PeerError, ReplicadError, StorageError, UnreachableError
from replicad.model.manifest import MANIFEST_BYTES_MAX
from replicad.net.client import BATCH_PATH, BLOBS_PATH, MANIFESTS_PATH, check_manifest
from replicad.protocol.fetch import batch
from replicad.protocol.fetch.events import Fault
from replicad.protocol.wire import Send, SendMany

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicad.model.chunks import Extent
    from replicad.model.entries import Wanted
    from replicad.model.ids import Digest, NodeId
    from replicad.model.manifest import Manifest
    from replicad.net.client import PeerClient
    from replicad.net.link import Link
    from replicad.net.links import LinkTable
    from replicad.net.pace import Paces
    from replicad.protocol.wire import Small
    from replicad.services.fetch.inbox import Expectation, Inbox

DETOUR_S = 60.0
"""A door that could not be reached is not tried again for so long, if its owner may be able to reach ours."""

_FAULTS: dict[str, Fault] = {"cut-body": Fault.CUT, "short-body": Fault.SHORT, "long-body": Fault.LONG}


class Getting:
    """One way to ask, whichever path the bytes take. Nothing here is verified yet, except manifests."""

    def __init__(self, links: LinkTable, client: PeerClient, inbox: Inbox, paces: Paces, *, urgent: Callable[[Digest], bool]) -> None:
        self._links = links
        self._client = client
        self._inbox = inbox
        self._paces = paces
        self._urgent = urgent
        self._detours: dict[NodeId, float] = {}

    def link(self, node: NodeId) -> Link:
        """The link to this peer; UnreachableError if there is none any more."""
        found = self._links.get(node)
        if found is None:
            raise UnreachableError("no link")
        return found

    async def prepare(self, link: Link) -> None:
        """Something is going to be asked of this peer: what takes time and can be done before, is."""
        if self._direct(link):
            try:
                await self._client.prepare(link)
            except UnreachableError as error:
                self._note(link, error)

    async def chunks(self, link: Link, manifest: Manifest, extent: Extent, into: memoryview) -> tuple[int, ReplicadError | None]:
        """Fill ``into`` with an extent, as fast as our limits allow. Returns how many bytes arrived and why not all of them."""
        with self._paces.receiving(link.node, urgent=self._urgent(manifest.content)) as pace:
            if self._direct(link):
                received, error = await self._client.chunks(link, manifest, extent, into, pace=pace)
                self._note(link, error)
                return received, error
            start, stop = manifest.byte_range(extent)
            name = f"{BLOBS_PATH}{manifest.content}", f"bytes {start}-{stop - 1}/{manifest.size}"
            with self._inbox.expecting(link.node, name=name, into=into, exact=True, pace=pace) as expected:
                link.send(Send(expected.transfer, manifest.content, manifest.id, extent.first, extent.count))
                return await self._come(expected)

    async def manifest(self, link: Link, wanted: Wanted) -> Manifest:
        """The manifest that an entry names, checked against it. IntegrityError if it is another one."""
        if self._direct(link):
            try:
                return await self._client.manifest(link, wanted)
            except UnreachableError as error:
                self._note(link, error)
                raise
        into = memoryview(bytearray(MANIFEST_BYTES_MAX))
        with self._inbox.expecting(link.node, name=(f"{MANIFESTS_PATH}{wanted.manifest}", ""), into=into, exact=False) as expected:
            link.send(Send(expected.transfer, wanted.content, wanted.manifest, 0, 0))
            received, missing = await self._come(expected)
        if missing is not None:
            raise missing
        return check_manifest(bytes(into[:received]), wanted)

    async def batch(self, link: Link, contents: Sequence[Small], into: memoryview, *, patient: bool) -> list[memoryview | batch.Mark]:
        """Small contents as parts of ``into``; for the others what the peer says of them."""
        with self._paces.receiving(link.node, urgent=all(self._urgent(small.content) for small in contents)) as pace:
            if self._direct(link):
                try:
                    return await self._client.batch(link, contents, into, patient=patient, pace=pace)
                except UnreachableError as error:
                    self._note(link, error)
                    raise
            with self._inbox.expecting(link.node, name=(BATCH_PATH, ""), into=into, exact=False, pace=pace) as expected:
                link.send(SendMany(expected.transfer, tuple(contents), patient))
                received, missing = await self._come(expected)
        if missing is not None:
            raise missing
        return batch.answered(contents, into[:received], patient=patient)

    async def _come(self, expected: Expectation) -> tuple[int, ReplicadError | None]:
        """As patient as in the other direction."""
        config = self._client.config
        return await expected.wait(stall_s=config.stall_s, limit_s=config.limit_s(len(expected.into)))

    def forget(self, node: NodeId) -> None:
        """The link to this peer ended."""
        self._detours.pop(node, None)
        self._client.forget(node)

    def _direct(self, link: Link) -> bool:
        return link.peer_url is not None and link.reachable and asyncio.get_running_loop().time() >= self._detours.get(link.node, 0.0)

    def _note(self, link: Link, error: ReplicadError | None) -> None:
        if isinstance(error, UnreachableError) and error.error_code == "connect":
            self._detours[link.node] = asyncio.get_running_loop().time() + DETOUR_S


def fault_of(error: ReplicadError) -> Fault:
    """What an error means for the plan."""
    if isinstance(error, PeerError):
        return _FAULTS.get(error.error_code, Fault.MALFORMED)
    kinds: tuple[tuple[type[ReplicadError] | tuple[type[ReplicadError], ...], Fault], ...] = (
        (BusyError, Fault.BUSY),
        (NotAllowedError, Fault.REFUSED),
        (NotFoundError, Fault.ABSENT),
        (UnreachableError, Fault.BROKEN),
        (StorageError, Fault.LOCAL),
    )
    return next((fault for kind, fault in kinds if isinstance(error, kind)), Fault.LOCAL)
