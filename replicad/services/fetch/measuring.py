"""A held content is asked for under a manifest that entries name and this node does not have: reading the content tells the true ones.

Entries of several shares may name several manifests of one content: with states, without, or false ones. Whoever may see one of the shares only must find the content here, whichever this node fetched it under.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from replicad.errors import ReplicadError
from replicad.telemetry.log import get

if TYPE_CHECKING:
    from replicad.catalog import Catalog
    from replicad.model.ids import Digest
    from replicad.protocol.fetch.events import Target
    from replicad.store.blobs import BlobStore

log = get(__name__)

ASKED_MAX = 1024
"""Questions that wait, each a look into the catalog, and perhaps a file to read; further ones are dropped."""
MEASURED_MAX = 16_384
"""Contents that are not read again for that as long as they are held: 3 MiB. False manifests cost one reading."""


class Measuring:
    """Reads one content at a time while ``run`` runs. What it finds the catalog tells as ContentHeld."""

    def __init__(self, catalog: Catalog, store: BlobStore) -> None:
        self._catalog = catalog
        self._store = store
        self._asked: dict[Target, None] = {}
        self._news = asyncio.Event()
        self._measured: OrderedDict[Digest, None] = OrderedDict()

    def ask(self, target: Target) -> None:
        """Somebody who may have this held content wants it under that manifest, which is not known here."""
        if target.content not in self._measured and len(self._asked) < ASKED_MAX:
            self._asked[target] = None
            self._news.set()

    def lost(self, content: Digest) -> None:
        """It is not held any more: under what it will be held again is to be seen."""
        self._measured.pop(content, None)

    async def run(self) -> None:
        """Measure what is asked for until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._asked:
                target = next(iter(self._asked))
                try:
                    await self._measure(target)
                except ReplicadError as error:
                    log.seldom("measuring", "a content cannot be read for its manifest", content=target.content.short, reason=error.message)
                del self._asked[target]

    async def _measure(self, target: Target) -> None:
        content = target.content
        if content in self._measured or target.manifest not in await self._catalog.named_manifests(content):
            return
        held = await self._catalog.held_manifest(content)
        if held is None or target.manifest in {held.id, held.bare.id}:
            return
        self._measured[content] = None
        if len(self._measured) > MEASURED_MAX:
            self._measured.popitem(last=False)
        measured = await self._store.measure(content)
        if measured.id not in {held.id, held.bare.id}:
            await self._catalog.hold_under(measured)
