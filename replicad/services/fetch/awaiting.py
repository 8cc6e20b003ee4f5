"""Clients who wait for a content that is still being fetched: it stays wanted for them, whatever becomes of its name, what they need next goes before everything else, and they hear when it is here.

The door that serves them asks for ``waiting(wanted)``, then alternates between ``verified(offset)`` and sending what that names from ``descriptor()``. Nothing else of a content may be read: what is not
verified is served to nobody.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from replicad.errors import BusyError, NotFoundError
from replicad.model.chunks import chunk_size_for
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.events import Awaits, Event, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replicad.catalog import Catalog
    from replicad.model.entries import Wanted
    from replicad.model.ids import Digest
    from replicad.services.fetch.partials import Partials
    from replicad.services.fetch.provider import Provider
    from replicad.services.fetch.rights import Rights
    from replicad.store.blobs import BlobStore

POSITIONS_MAX = 64
"""Places in one content that are fetched first at once; the clients beyond follow."""


class Waiting:
    """One client and one content. Made by ``Awaiting.waiting``."""

    def __init__(self, wanted: Wanted, owner: Awaiting) -> None:
        self.wanted = wanted
        self.target = Target(wanted.content, wanted.manifest)
        self.chunk = 0
        self.granted = True
        self.news = asyncio.Event()
        self._owner = owner

    async def verified(self, offset: int, *, timeout_s: float) -> int:
        """Waits until the byte at ``offset`` (0 to size - 1) is here, verified; returns up to which byte (exclusive) everything from ``offset`` on is. Meanwhile that part is fetched first, in order.
        The last byte counts only when the whole content is verified against its hash: a manifest may lie.

        BusyError after ``timeout_s``: nobody brings it now. NotFoundError, at once: this node may not have it any more. StorageError: the disk is out of reach.
        """
        self._owner.move(self, offset)
        try:
            async with asyncio.timeout(timeout_s):
                while self.granted:
                    if (end := self._owner.end_of(self.wanted, offset)) > offset:
                        return end
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise BusyError(f"no peer brought byte {offset} of {self.wanted.content} in {timeout_s:.0f} s", code="not-here-yet") from None
        raise NotFoundError(f"this node may not have {self.wanted.content} any more")

    async def descriptor(self) -> int:
        """A file descriptor to read from, which the caller closes; it stays good when the content is finished meanwhile. Only what ``verified`` named may be read. NotFoundError."""
        return await self._owner.open(self.target)


class Awaiting:
    """All waiting clients. ``report`` takes events for the plan; ``given_up`` is called when nobody waits any more for something that is not here."""

    def __init__(
        self,
        catalog: Catalog,
        store: BlobStore,
        partials: Partials,
        provider: Provider,
        rights: Rights,
        *,
        report: Callable[[Event], None],
        given_up: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._partials = partials
        self._rights = rights
        self.open = provider.open
        self._report = report
        self._given_up = given_up
        self._waiting: dict[Target, dict[Waiting, None]] = {}

    @contextmanager
    def waiting(self, wanted: Wanted) -> Iterator[Waiting]:
        """A client waits for this content (as the catalog names it: size, manifest, hlc of its entry) until the block ends."""
        one = Waiting(wanted, self)
        self._waiting.setdefault(one.target, {})[one] = None
        try:
            yield one
        finally:
            if one.granted:
                self._leave(one)

    def wanted(self) -> list[Wanted]:
        """What they wait for and is not here: this is wanted, too, named or not."""
        return [next(iter(ones)).wanted for target, ones in self._waiting.items() if not self._catalog.is_held(target.content)]

    async def judge(self) -> None:
        """Rights may have changed: nobody waits any more for what this node may not have now."""
        contents = {target.content for target in self._waiting}
        withdrawn = contents - await self._rights.granted(self._catalog.node, contents)
        for one in [one for target, ones in self._waiting.items() if target.content in withdrawn for one in ones]:
            self._leave(one)
            one.granted = False
            one.news.set()

    def _leave(self, one: Waiting) -> None:
        ones = self._waiting[one.target]
        del ones[one]
        if not ones:
            del self._waiting[one.target]
        self._tell(one.wanted)
        if not ones and not self._catalog.is_held(one.wanted.content):
            self._given_up()

    def move(self, one: Waiting, offset: int) -> None:
        """It needs this byte next."""
        one.chunk = offset // chunk_size_for(one.wanted.size)
        if self.end_of(one.wanted, offset) <= offset:
            self._tell(one.wanted)

    def end_of(self, wanted: Wanted, offset: int) -> int:
        """Up to which byte everything from ``offset`` on is here; ``offset`` itself if that byte is not. What is held and not on the disk as it should be is not here: somebody will notice, and fetch it. StorageError."""
        target = Target(wanted.content, wanted.manifest)
        if self._catalog.serves(wanted.content) and self._store.size_of(wanted.content) == wanted.size:
            return wanted.size
        chunk_size = chunk_size_for(wanted.size)
        first = offset // chunk_size
        here = self._partials.verified(target) >> first
        chunks = sets.run_length(here, here.bit_length())
        return max(offset, min(wanted.size - 1, (first + chunks) * chunk_size)) if chunks else offset

    def changed(self, content: Digest) -> None:
        """More of a content may be here now."""
        for target, ones in self._waiting.items():
            if target.content == content:
                for one in ones:
                    one.news.set()

    def repeat(self) -> None:
        """The plan begins afresh: tell it again."""
        for ones in self._waiting.values():
            self._tell(next(iter(ones)).wanted)

    def _tell(self, wanted: Wanted) -> None:
        chunks = sorted({one.chunk for one in self._waiting.get(Target(wanted.content, wanted.manifest), ())})
        self._report(Awaits(wanted, tuple(chunks[:POSITIONS_MAX])))
