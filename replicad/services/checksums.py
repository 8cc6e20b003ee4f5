"""Checksums that shares ask for besides SHA-256, of contents that this node holds and did not receive as an upload to such a share: fetched from others, or here before the share asked.

Each node computes its own, from bytes that have the right SHA-256 in the same reading, so nobody has to be believed. One content at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from replicad.catalog import Catalog
from replicad.errors import ReplicadError
from replicad.model.checksums import ALGORITHMS
from replicad.model.events import ContentHeld, Event, RecordsCommitted, TrustChanged
from replicad.model.ids import Digest
from replicad.model.records import Entry
from replicad.services.hub import Hub, Subscription
from replicad.store.blobs import BlobStore
from replicad.telemetry.log import get

log = get(__name__)

LOOK_AGAIN_S = 3600.0
"""After so long without news every share that asks is gone through again: what failed before is tried again then."""
PAGE = 1000
DUE_MAX = 10_000
"""Contents that wait to be looked at; beyond, everything is. What is heard is taken at once, because records that wait in a queue while a large content is read would take memory without end."""

Asked = Mapping[str, Sequence[str]]
"""Share to algorithms, of the shares that ask for any."""


class Checksums:
    """``examine(content)`` takes care of content that cannot be read as it should be."""

    def __init__(self, catalog: Catalog, store: BlobStore, *, hub: Hub, examine: Callable[[Digest], Awaitable[object]]) -> None:
        self._catalog = catalog
        self._store = store
        self._hub = hub
        self._examine = examine
        self._due: set[Digest] = set()
        self._everything_due = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Compute what is missing, whenever something may be, until cancelled."""
        self._everything_due = True
        with self._hub.subscribe(ContentHeld, RecordsCommitted, TrustChanged) as heard:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(heard))
                while True:
                    due, everything = self._due, self._everything_due
                    self._due, self._everything_due = set(), False
                    try:
                        await (self.complete() if everything else self._these(self._asked(), due))
                    except ReplicadError as error:
                        log.seldom("checksums", "checksums are not kept; it will be tried again", reason=error.message)
                    await self._wake.wait()
                    self._wake.clear()

    async def _listen(self, heard: Subscription) -> None:
        missed = 0
        while True:
            events = await heard.wait(LOOK_AGAIN_S)
            self._due.update(_contents(events) if self._asked() else ())
            if not events or heard.missed != missed or len(self._due) > DUE_MAX or any(isinstance(event, TrustChanged) for event in events):
                self._due, self._everything_due = set(), True
            missed = heard.missed
            self._wake.set()

    async def complete(self) -> None:
        """Compute what is missing of everything that is held."""
        for share in (asked := self._asked()):
            after: tuple[str, str] | None = None
            while page := await self._catalog.entries(share, after=after, limit=PAGE, all_stages=True):
                await self._these(asked, {listed.content for listed in page})
                after = share, page[-1].key

    def _asked(self) -> Asked:
        """As far as this version knows the algorithms."""
        shares = self._catalog.replica.trust.shares().values()
        known = {share.name: [algorithm for algorithm in share.checksums if algorithm in ALGORITHMS] for share in shares}
        return {name: algorithms for name, algorithms in known.items() if algorithms}

    async def _these(self, asked: Asked, contents: Iterable[Digest]) -> None:
        missing = await self._catalog.missing_checksums(list(contents), asked) if asked else {}
        for content, algorithms in missing.items():
            try:
                found = await self._store.checksums(content, algorithms)
            except ReplicadError:
                await self._examine(content)
            else:
                await self._catalog.add_checksums({content: found})


def _contents(events: Iterable[Event]) -> Iterable[Digest]:
    """What they are about."""
    for event in events:
        if isinstance(event, ContentHeld):
            yield from (content for content, _ in event.contents)
        elif isinstance(event, RecordsCommitted):
            yield from (record.body.content for record in event.records if isinstance(record.body, Entry))
