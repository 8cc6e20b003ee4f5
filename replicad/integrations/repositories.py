"""What clients are shown of Munki repositories: of each catalog and manifest the newest version of which everything is here.

Asked per request, decided from what the catalog says then, and remembered: an index that was shown once is not looked at again, one that waits is looked at again when the first of what it waits for is
here. Nothing is kept on the disk.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicad.errors import InputError, NotFoundError, StorageError
from replicad.integrations import munki
from replicad.integrations.munki import INDEX_BYTES_MAX, Reference
from replicad.model import paths
from replicad.model.entries import Listed
from replicad.model.members import MUNKI

if TYPE_CHECKING:
    from replicad.model.entries import Revision
    from replicad.model.ids import Digest
    from replicad.protocol.replica import Replica

REMEMBERED_MAX = 10_000
"""Indexes, a few hundred bytes each: a manifest for every Mac."""
READ_MAX = 8
"""Indexes whose references are kept, up to a few MiB each."""
MISSING_MAX = 100
VERSIONS_MAX = 20
"""Older versions of an index that are looked at."""
PAGE = 1000
LOOK_AGAIN_MS = 1_000
"""For so long an index of which no version can be shown is not looked at again."""


class Catalog(Protocol):
    """What is asked of the catalog."""

    replica: Replica

    async def visible(self, share: str, key: str) -> Listed | None:
        """The newest."""

    async def history(self, share: str, key: str, *, limit: int) -> list[Revision]:
        """Every record of a name, newest first."""

    async def entries(self, share: str, *, prefix: str, after: tuple[str, str] | None, limit: int) -> list[Listed]:
        """A page of names."""

    def serves(self, content: Digest) -> bool:
        """Whether content is here and may be given away."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The newest version of an index, why it is not shown (the first MISSING_MAX of what is not here, for people), what is shown in its place (None: nothing), and when that was found out."""

    newest: Listed
    missing: tuple[Reference, ...]
    shown: Listed | None
    looked_ms: int


class Repositories:
    """``open_blob`` gives a descriptor; ``now_ms`` is monotonic."""

    def __init__(self, catalog: Catalog, open_blob: Callable[[Digest], int], *, now_ms: Callable[[], int]) -> None:
        self._catalog = catalog
        self._open_blob = open_blob
        self._now_ms = now_ms
        self._shown: OrderedDict[tuple[str, str], Listed] = OrderedDict()
        self._waiting: OrderedDict[tuple[str, str], Waiting] = OrderedDict()
        self._read: OrderedDict[tuple[str, str, Digest], tuple[Reference, ...]] = OrderedDict()
        self._turn = asyncio.Lock()

    async def visible(self, share: str, key: str) -> Listed | None:
        """What clients are shown under a collision key."""
        newest = await self._catalog.visible(share, key)
        if newest is None:
            return await self._still_named(share, key)
        if not self._is_index(share, key):
            return newest
        shown = self._shown.get((share, key))
        if shown is not None and shown.record == newest.record:
            return newest
        if shown is not None and self._turn.locked():
            return shown
        async with self._turn:
            return await self._decide(newest, shown)

    async def waiting(self, share: str) -> tuple[int, list[Waiting]]:
        """How many indexes the share has, and those whose newest version is not shown, by name. Looks at each."""
        count, found = 0, []
        root = paths.key(self._root(share) or "")
        for folder in (munki.CATALOGS, munki.MANIFESTS):
            after: tuple[str, str] | None = None
            while page := await self._catalog.entries(share, prefix=f"{root}{folder}".rstrip("/"), after=after, limit=PAGE):
                after = share, page[-1].key
                for listed in page:
                    if self._is_index(share, listed.key):
                        count += 1
                        await self.visible(share, listed.key)
                        held = self._waiting.get((share, listed.key))
                        if held is not None and held.newest.record == listed.record:
                            found.append(held)
        return count, found

    def _is_index(self, share: str, key: str) -> bool:
        return munki.is_index(self._inside(share, key))

    def _inside(self, share: str, key: str) -> str:
        """The collision key in the share's repository; empty for what is not in it."""
        root = self._root(share)
        if root is None or not key.startswith(root := paths.key(root)):
            return ""
        return key.removeprefix(root)

    def _root(self, share: str) -> str | None:
        """The repository's directory, empty or with a slash at the end; None if the share is none."""
        found = self._catalog.replica.trust.shares().get(share)
        if found is None or found.layout != MUNKI:
            return None
        return f"{found.root}/" if found.root else ""

    async def _still_named(self, share: str, key: str) -> Listed | None:
        """A file that was removed, as long as the catalog that no longer names it waits and clients are shown one that does."""
        waiting = [held for (where, index), held in self._waiting.items() if where == share and self._inside(share, index).startswith(munki.CATALOGS)]
        for shown in (held.shown for held in waiting if held.shown is not None and self._catalog.serves(held.shown.content)):
            for reference in await self._references(shown):
                if reference.key == key:
                    versions = [_version(revision, share, key) for revision in await self._catalog.history(share, key, limit=VERSIONS_MAX)]
                    return next((one for one in versions if one is not None and reference.digest in {None, one.content}), None)
        return None

    async def _decide(self, newest: Listed, shown: Listed | None) -> Listed | None:
        name = newest.share, newest.key
        known = self._waiting.get(name)
        if known is not None and known.newest.record == newest.record and await self._still_waits(known):
            return known.shown
        missing = await self._missing(newest)
        if not missing:
            self._remember(newest)
            return newest
        shown = shown if shown is not None and self._catalog.serves(shown.content) else await self._older(newest)
        if shown is not None:
            self._remember(shown)
        self._waiting[name] = Waiting(newest, tuple(missing[:MISSING_MAX]), shown, self._now_ms())
        self._waiting.move_to_end(name)
        if len(self._waiting) > REMEMBERED_MAX:
            self._waiting.popitem(last=False)
        return shown

    async def _still_waits(self, known: Waiting) -> bool:
        """Whether looking again would find the same: something it waits for is still not here. With nothing to show meanwhile, an older version may have become complete."""
        if known.shown is None and self._now_ms() - known.looked_ms >= LOOK_AGAIN_MS:
            return False
        for reference in known.missing:
            if not await self._is_here(known.newest, reference):
                return True
        return False

    async def _older(self, newest: Listed) -> Listed | None:
        """The newest of the older versions of which everything is here."""
        for revision in await self._catalog.history(newest.share, newest.key, limit=VERSIONS_MAX):
            version = _version(revision, newest.share, newest.key)
            if version is not None and version.stage == newest.stage and version.hlc < newest.hlc and not await self._missing(version):
                return version
        return None

    async def _missing(self, index: Listed) -> Sequence[Reference]:
        """What an index names and is not here; the index itself if that is not here, or cannot be read."""
        if not index.available:
            return (Reference(index.path, index.key, index.content),)
        try:
            found = await self._references(index)
        except (NotFoundError, StorageError, OSError):
            return (Reference(index.path, index.key, index.content),)
        return [reference for reference in found if not await self._is_here(index, reference)]

    async def _references(self, index: Listed) -> tuple[Reference, ...]:
        """NotFoundError, StorageError, OSError. An index that cannot be read names itself as what can never be here."""
        root = self._root(index.share) or ""
        name = root, index.key, index.content
        if name not in self._read:
            try:
                self._read[name] = await asyncio.to_thread(_read, self._open_blob(index.content), index.key.removeprefix(paths.key(root)), root)
            except InputError as error:
                self._read[name] = (Reference(f"{index.path}: {error.message}", None),)
            if len(self._read) > READ_MAX:
                self._read.popitem(last=False)
        return self._read[name]

    async def _is_here(self, index: Listed, reference: Reference) -> bool:
        """A package or icon: its content, the right one, is here, or it was removed. A catalog that a manifest names: there is none, or its newest version is shown."""
        if reference.key is None:
            return False
        newest = await self._catalog.visible(index.share, reference.key)
        if self._inside(index.share, reference.key).startswith(munki.CATALOGS) and reference.key != index.key:
            return newest is None or await self._is_shown(newest)
        if newest is None:
            return await self._was_removed_since(index, reference.key)
        return newest.available and reference.digest in {None, newest.content}

    async def _was_removed_since(self, index: Listed, key: str) -> bool:
        """Whether somebody removed the file after the index was published: that is no reason to wait, it will not come back."""
        for revision in await self._catalog.history(index.share, key, limit=1):
            return revision.kind == "remove" and revision.state != "void" and revision.record.header.hlc > index.hlc
        return False

    async def _is_shown(self, newest: Listed) -> bool:
        shown = self._shown.get((newest.share, newest.key))
        if shown is None or shown.record != newest.record:
            shown = await self._decide(newest, shown)
        return shown is not None and shown.record == newest.record

    def _remember(self, shown: Listed) -> None:
        name = shown.share, shown.key
        self._shown[name] = shown
        self._shown.move_to_end(name)
        self._waiting.pop(name, None)
        if len(self._shown) > REMEMBERED_MAX:
            self._shown.popitem(last=False)


def _version(revision: Revision, share: str, key: str) -> Listed | None:
    """What a record said, as it would be listed; None if it can be shown no more."""
    if revision.kind == "remove" or revision.state == "void" or not revision.held or revision.taken_down:
        return None
    entry, record = revision.entry, revision.record
    return Listed(
        record=record.id,
        origin=record.header.origin,
        hlc=record.header.hlc,
        share=share,
        key=key,
        path=entry.path,
        stage=entry.stage,
        content=entry.content,
        size=entry.size,
        manifest=entry.manifest,
        modified=entry.modified,
        publisher=entry.publisher,
        available=True,
    )


def _read(fd: int, key: str, root: str) -> tuple[Reference, ...]:
    with os.fdopen(fd, "rb") as file:
        encoded = file.read(INDEX_BYTES_MAX + 1)
    if len(encoded) > INDEX_BYTES_MAX:
        raise InputError(f"more than {INDEX_BYTES_MAX} bytes")
    return munki.references(key, encoded, root=root)
