"""Content as the catalog sees it: what is held, what is wanted, what is half fetched, and the manifests of all of it."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType

from replicad.catalog import keeping, rows, supply
from replicad.catalog.answers import Missing, PartialRow, Usage
from replicad.catalog.state import State
from replicad.model.entries import Wanted
from replicad.model.ids import STAMP_MAX, Digest, Stamp
from replicad.model.manifest import Manifest

_Row = tuple[bytes, bytes, int, int, bytes]
NOTHING: Mapping[bytes, int] = MappingProxyType({})
HELD_PAGE = 1000
WANTED_MAX = 100_000
NEXT_ORIGIN = "SELECT min(origin) FROM wanted WHERE origin > ?"
WANTED = "SELECT content, manifest, size_bytes, hlc, origin FROM wanted WHERE origin = ? AND hlc > ? AND hlc <= ? ORDER BY hlc"
NEWEST = "SELECT content, manifest, size_bytes, hlc, origin FROM wanted WHERE origin = ? AND hlc >= ? ORDER BY hlc DESC"
MISSING = "SELECT content, hlc FROM wanted WHERE share = ? ORDER BY hlc DESC"
URGENT = "SELECT DISTINCT entry.content FROM entry INDEXED BY entry_urgent JOIN wanted ON wanted.record = entry.record WHERE entry.content > x'' AND entry.urgent = 1 LIMIT ?"
IS_URGENT = "SELECT 1 FROM entry INDEXED BY entry_urgent WHERE content = ? AND urgent = 1 AND live = 1"
IS_WANTED = "SELECT 1 FROM entry JOIN wanted ON wanted.record = entry.record WHERE entry.content = ? AND entry.counts = 1 LIMIT 1"
NAMED = "SELECT share, path FROM entry WHERE content = ? AND counts = 1 AND wins >= ? LIMIT 1"
HELD_OF = "SELECT content FROM held WHERE content IN (?)"
NAMED_MANIFESTS = "SELECT manifest FROM entry WHERE content = ? AND counts = 1"
HELD_UNDER = "UPDATE held SET manifest = ? WHERE content = ?"
HELD_ADD = "INSERT INTO held (content, size_bytes, manifest) VALUES (?, ?, ?)"
NO_OTHER_MANIFEST = "DELETE FROM manifest WHERE content IN (?) AND manifest <> (SELECT held.manifest FROM held WHERE held.content = manifest.content)"
HELD_AFTER = "SELECT content, size_bytes FROM held WHERE content > ? AND content <= ? ORDER BY content LIMIT ?"


class Contents(State):
    """Part of ``Catalog``."""

    def is_held(self, content: Digest) -> bool:
        """Whether the content is held, verified and durable. A look into memory, a few microseconds."""
        return content in self._held

    def held_sizes(self, contents: Sequence[Digest]) -> dict[Digest, int]:
        """The sizes in bytes of those of the contents that are held. A look into memory."""
        return self._held.sizes(contents)

    def serves(self, content: Digest) -> bool:
        """Whether the content is held and may be given away: no takedown stands on it. A look into memory, too."""
        return content not in self.replica.trust.taken_down() and content in self._held

    async def hold(self, manifests: Sequence[Manifest], *, durable: bool = False) -> None:
        """These contents are on the disk, verified: drops what was kept of their fetching and publishes ContentHeld after the commit. Harmless when repeated.

        ``durable``: survives a power failure, not only a crash of the program; for an upload that is acknowledged before an entry names it.
        """
        await self._write(partial(hold, manifests=manifests), durable=durable, after=self._now_held)

    async def hold_under(self, manifest: Manifest) -> None:
        """The content, if it is held, is held under this manifest now, which was computed from its bytes, and not under the one so far. Publishes ContentHeld after the commit."""
        await self._write(partial(_hold_under, manifest=manifest), after=self._now_held)

    async def held_contents(self, *, after: bytes = b"", until: bytes = b"\xff" * 33) -> AsyncIterator[tuple[Digest, int]]:
        """(content, size in bytes) of everything held whose digest is greater than ``after`` and not greater than ``until``, in order of digest, read in pages: what is held or lost meanwhile may or may not appear."""
        while page := await self._database.scan(partial(_held_after, after=after, until=until)):
            for content, size in page:
                yield content, size
            after = page[-1][0]

    async def held_manifest(self, content: Digest) -> Manifest | None:
        """The manifest under which the content is held, None if it is not."""
        return await self._database.read(partial(_held_manifest, content=content))

    async def named_manifests(self, content: Digest) -> set[Digest]:
        """The ids that entries that count, live or not, name for the content."""
        return await self._database.scan(partial(_named_manifests, content=content))

    async def held_facts(self, contents: Sequence[Digest]) -> dict[Digest, tuple[int, Digest]]:
        """(size in bytes, manifest id) of those of these contents that are held."""
        return await self._database.scan(partial(_held_facts, contents=contents))

    async def manifest(self, content: Digest, manifest_id: Digest) -> Manifest | None:
        """A manifest that is stored, or follows from digest and size because the content is one chunk."""
        return await self._database.read(partial(_manifest, content=content, manifest_id=manifest_id))

    async def add_manifests(self, manifests: Sequence[Manifest]) -> None:
        """Keep the manifests of contents that are being fetched."""
        await self._write(partial(_keep_manifests, manifests=manifests))

    async def wanted(self, limit: int = 10_000, *, after: Mapping[bytes, int] = NOTHING) -> list[Wanted]:
        """Contents named by winners in the stages this node carries and not held: each (content, manifest, size) once, at most ``limit`` (bounded by 100,000). The nodes that wrote the entries take
        turns, of each the oldest first; of those that ``after`` names what is later than that hlc, and then from the oldest again.
        """
        await self._refresh_carried()
        return await self._database.scan(partial(_wanted, limit=min(limit, WANTED_MAX), walk=partial(_oldest, after=after)))

    async def newly_wanted(self, limit: int, *, since: int) -> list[Wanted]:
        """The same of entries with that hlc or a later one, the newest first."""
        return await self._database.scan(partial(_wanted, limit=min(limit, WANTED_MAX), walk=partial(_newest, since=since)))

    async def urgent(self, limit: int = 10_000) -> frozenset[Digest]:
        """Of the wanted contents those that some entry calls urgent, at most ``limit``."""
        return await self._database.read(partial(_urgent, limit=limit))

    async def are_urgent(self, contents: Iterable[Digest]) -> bool:
        """Whether live entries call all of these contents urgent."""
        return await self._database.read(partial(_are_urgent, contents=contents))

    async def is_wanted(self, content: Digest) -> bool:
        """Whether ``wanted`` names the content."""
        return await self._database.read(partial(_is_wanted, content=content))

    async def missing(self, share: str, limit: int = 64) -> Missing:
        """What of one share is wanted: totals, the oldest, and the ``limit`` newest contents."""
        await self._refresh_carried()
        return await self._database.read(partial(_missing, share=share, limit=limit))

    async def name_of(self, content: Digest) -> tuple[str, str] | None:
        """One (share, path) under which the content is known, a living one if there is any: to show to people."""
        return await self._database.read(partial(_name_of, content=content))

    async def usage(self) -> Usage:
        """Counts and bytes, from running totals."""
        return await self._database.read(_usage)

    async def partials(self) -> list[PartialRow]:
        """Everything half fetched."""
        return await self._database.read(_partials)

    async def save_partials(self, partials: Iterable[tuple[Digest, Digest, bytes]]) -> None:
        """(content, manifest id, bitmap) rows: each replaces what was saved. Call after the bytes are durable."""
        await self._write(partial(_save_partials, rows=list(partials)))

    async def drop_partial(self, content: Digest, manifest_id: Digest) -> None:
        """Forget a partial and the manifest that was kept for it."""
        await self._write(partial(_drop_partial, content=content, manifest_id=manifest_id))


def hold(connection: sqlite3.Connection, *, manifests: Sequence[Manifest]) -> Sequence[Manifest]:
    """In a transaction: these contents are held. Returns those that were not before."""
    contents = [manifest.content for manifest in manifests]
    held = {content for (content,) in rows.for_all(connection, HELD_OF, contents)}
    new: dict[Digest, Manifest] = {}
    for manifest in manifests:
        if manifest.content not in held and manifest.content not in new:
            new[manifest.content] = _as_named(connection, manifest)
    rows.add_all(connection, HELD_ADD, [(manifest.content, manifest.size, manifest.id) for manifest in new.values()])
    supply.found(connection, new)
    keeping.is_held(connection, contents)
    rows.remove(connection, "partial", list(new))
    _keep_only(connection, list(new.values()))
    return list(new.values())


def _hold_under(connection: sqlite3.Connection, *, manifest: Manifest) -> Sequence[Manifest]:
    """What is held under another manifest now."""
    named = _as_named(connection, manifest)
    if not connection.execute(HELD_UNDER, (named.id, named.content)).rowcount:
        return ()
    _keep_only(connection, [named])
    return (named,)


def _as_named(connection: sqlite3.Connection, manifest: Manifest) -> Manifest:
    """The manifest without its states if entries name that one and not this, so that whoever publishes the content again names what others have. Never with states that it has not: they would be somebody's word."""
    names = _named_manifests(connection, content=manifest.content) if manifest.states else set()
    return manifest.bare if manifest.id not in names and manifest.bare.id in names else manifest


def _named_manifests(connection: sqlite3.Connection, *, content: Digest) -> set[Digest]:
    return {Digest(name) for (name,) in connection.execute(NAMED_MANIFESTS, (content,))}


def _keep_only(connection: sqlite3.Connection, manifests: Sequence[Manifest]) -> None:
    """Of these contents, which are held under these manifests, no others."""
    rows.for_all(connection, NO_OTHER_MANIFEST, [manifest.content for manifest in manifests])
    _keep_manifests(connection, manifests=manifests)


def _keep_manifests(connection: sqlite3.Connection, *, manifests: Sequence[Manifest]) -> None:
    rows = ((manifest.id, manifest.content, manifest.encoded) for manifest in manifests if manifest.count > 1)
    connection.executemany("INSERT INTO manifest (manifest, content, encoded) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)


def _held_after(connection: sqlite3.Connection, *, after: bytes, until: bytes) -> list[tuple[Digest, int]]:
    return [(Digest(content), size) for content, size in connection.execute(HELD_AFTER, (after, until, HELD_PAGE))]


def _held_manifest(connection: sqlite3.Connection, *, content: Digest) -> Manifest | None:
    row = connection.execute("SELECT manifest FROM held WHERE content = ?", (content,)).fetchone()
    return None if row is None else _manifest(connection, content=content, manifest_id=Digest(row[0]))


def _held_facts(connection: sqlite3.Connection, *, contents: Sequence[Digest]) -> dict[Digest, tuple[int, Digest]]:
    found = {}
    for content in contents:
        row = connection.execute("SELECT size_bytes, manifest FROM held WHERE content = ?", (content,)).fetchone()
        if row is not None:
            found[content] = (int(row[0]), Digest(row[1]))
    return found


def _manifest(connection: sqlite3.Connection, *, content: Digest, manifest_id: Digest) -> Manifest | None:
    row = connection.execute("SELECT encoded FROM manifest WHERE content = ? AND manifest = ?", (content, manifest_id)).fetchone()
    if row is not None:
        return Manifest.decode(row[0])
    for source in (
        "SELECT size_bytes FROM held WHERE content = ?1 AND manifest = ?2",
        "SELECT size_bytes FROM entry WHERE content = ?1 AND counts = 1 AND manifest = ?2",
    ):
        row = connection.execute(f"{source} LIMIT 1", (content, manifest_id)).fetchone()
        if row is not None:
            return Manifest.implied(content, row[0]) if Manifest.implied_id(content, row[0]) == manifest_id else None
    return None


def _wanted(connection: sqlite3.Connection, *, limit: int, walk: Callable[[sqlite3.Connection, bytes], Iterator[_Row]]) -> list[Wanted]:
    found: dict[tuple[bytes, bytes, int], tuple[int, bytes]] = {}
    for content, manifest, size_bytes, hlc, origin in _in_turns([walk(connection, origin) for origin in _origins(connection)]):
        if len(found) >= limit:
            break
        key, named = (content, manifest, size_bytes), (hlc, origin)
        found[key] = min(found.get(key, named), named)
    return [Wanted(Digest(content), size, Digest(manifest), Stamp(hlc), origin) for (content, manifest, size), (hlc, origin) in found.items()]


def _origins(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Who wrote the entries whose contents are wanted."""
    origin = b""
    while (origin := connection.execute(NEXT_ORIGIN, (origin,)).fetchone()[0]) is not None:
        yield origin


def _oldest(connection: sqlite3.Connection, origin: bytes, *, after: Mapping[bytes, int]) -> Iterator[_Row]:
    start = after.get(origin, -1)
    yield from connection.execute(WANTED, (origin, start, STAMP_MAX))
    yield from connection.execute(WANTED, (origin, -1, start))


def _newest(connection: sqlite3.Connection, origin: bytes, *, since: int) -> Iterator[_Row]:
    return connection.execute(NEWEST, (origin, since))


def _in_turns(walks: Iterable[Iterator[_Row]]) -> Iterator[_Row]:
    """One of each, again and again, until all have ended."""
    waiting = deque(walks)
    while waiting:
        for row in islice(waiting[0], 1):
            yield row
            waiting.append(waiting[0])
        waiting.popleft()


def _urgent(connection: sqlite3.Connection, *, limit: int) -> frozenset[Digest]:
    return frozenset(Digest(content) for (content,) in connection.execute(URGENT, (limit,)))


def _are_urgent(connection: sqlite3.Connection, *, contents: Iterable[Digest]) -> bool:
    return all(connection.execute(IS_URGENT, (content,)).fetchone() is not None for content in contents)


def _is_wanted(connection: sqlite3.Connection, *, content: Digest) -> bool:
    return connection.execute(IS_WANTED, (content,)).fetchone() is not None


def _missing(connection: sqlite3.Connection, *, share: str, limit: int) -> Missing:
    count, size_bytes = connection.execute(
        "SELECT coalesce(sum(amount), 0), coalesce(sum(bytes), 0) FROM tally WHERE kind = 'wanted/' || ?", (share,)
    ).fetchone()
    (oldest,) = connection.execute("SELECT min(hlc) FROM wanted WHERE share = ?", (share,)).fetchone()
    newest: dict[bytes, None] = {}
    for content, _ in connection.execute(MISSING, (share,)):
        if len(newest) >= limit:
            break
        newest.setdefault(content)
    return Missing(count, int(size_bytes), None if oldest is None else Stamp(oldest), tuple(Digest(content) for content in newest))


def _name_of(connection: sqlite3.Connection, *, content: Digest) -> tuple[str, str] | None:
    for wins in (1, 0):
        row = connection.execute(NAMED, (content, wins)).fetchone()
        if row is not None:
            return str(row[0]), str(row[1])
    return None


def _usage(connection: sqlite3.Connection) -> Usage:
    totals = {kind: (amount, int(size)) for kind, amount, size in connection.execute("SELECT kind, amount, bytes FROM tally")}
    stages = {kind.removeprefix("stage/"): amount for kind, (amount, _) in totals.items() if kind.startswith("stage/") and amount}
    nothing = (0, 0)
    return Usage(*totals.get("record", nothing), *totals.get("held", nothing), *totals.get("wanted", nothing), stages)


def _partials(connection: sqlite3.Connection) -> list[PartialRow]:
    rows = connection.execute("SELECT content, manifest, bitmap FROM partial")
    return [PartialRow(Digest(content), Digest(manifest), bitmap) for content, manifest, bitmap in rows]


def _save_partials(connection: sqlite3.Connection, *, rows: Sequence[tuple[Digest, Digest, bytes]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO partial (content, manifest, bitmap) VALUES (?, ?, ?)", rows)


def _drop_partial(connection: sqlite3.Connection, *, content: Digest, manifest_id: Digest) -> None:
    connection.execute("DELETE FROM partial WHERE content = ? AND manifest = ?", (content, manifest_id))
    connection.execute(
        "DELETE FROM manifest WHERE content = ?1 AND manifest = ?2 AND NOT EXISTS (SELECT 1 FROM held WHERE held.content = ?1 AND held.manifest = ?2)",
        (content, manifest_id),
    )
