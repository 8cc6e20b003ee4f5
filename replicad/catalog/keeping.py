"""What becomes of content that is here: found damaged, needed no more, forgotten.

Needed is what a live entry in a stage that this node carries names - a winner, or a sibling that lost a conflict - and, under names that have a live file, the newest few older versions. What nothing
needs is noted with the time when that was noticed first; forgetting asks again in its own transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial

from replicad.catalog import supply
from replicad.catalog.answers import Damage
from replicad.catalog.rows import remove
from replicad.catalog.state import State
from replicad.model.events import ContentDoubted, ContentLost
from replicad.model.ids import Digest
from replicad.model.manifest import Manifest

DAMAGED_SHOWN_MAX = 1000
RELATIVES_SEEN_MAX = 32
RELATIVES_MAX = 4
"""Versions looked at for chunks: older ones have less in common. Guesses; 4 MiB of chunk lists at most."""
NEEDED = """
SELECT 1 FROM entry JOIN carried ON carried.share = entry.share AND carried.stage = entry.stage
WHERE entry.content = ?1 AND entry.counts = 1 AND entry.live = 1 LIMIT 1
"""
VERSIONS = """
SELECT entry.register, record.hlc, record.id FROM entry JOIN carried ON carried.share = entry.share AND carried.stage = entry.stage
    JOIN register ON register.register = entry.register JOIN record ON record.record = entry.record
WHERE entry.content = ?1 AND entry.counts = 1 AND entry.live = 0 AND register.winner IS NOT NULL
"""
NEWER = """
SELECT DISTINCT entry.content FROM entry JOIN record ON record.record = entry.record
WHERE entry.register = ?1 AND entry.live = 0 AND entry.counts = 1 AND entry.content <> ?2 AND (record.hlc, record.id) > (?3, ?4)
  AND NOT EXISTS (SELECT 1 FROM entry AS living WHERE living.register = ?1 AND living.live = 1 AND living.content = entry.content) LIMIT ?5
"""
RELATIVES = """
SELECT other.record, manifest.encoded FROM entry AS named JOIN entry AS other ON other.register = named.register
    JOIN held ON held.content = other.content JOIN manifest ON manifest.content = held.content AND manifest.manifest = held.manifest
WHERE named.content = ?1 AND named.counts = 1 AND other.content <> ?1 AND other.counts = 1 LIMIT ?2
"""
PLACE = """
SELECT count(*), total(entry.size_bytes), count(held.content), total(held.size_bytes)
FROM register JOIN entry ON entry.record = register.winner LEFT JOIN held ON held.content = entry.content
WHERE register.winner IS NOT NULL AND register.share = ? AND register.stage = ?
"""
SINCE = "SELECT since_ms FROM unneeded WHERE content = ?"
NOTE = "INSERT INTO unneeded (content, since_ms) VALUES (?, ?) ON CONFLICT DO NOTHING"
SIZE = "SELECT size_bytes FROM held WHERE content = ?"
LOSE = "DELETE FROM held WHERE content = ?"
DAMAGE = "INSERT INTO damaged (content, size_bytes, found_ms, detail) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


class Keeping(State):
    """Part of ``Catalog``."""

    async def lose(self, content: Digest) -> None:
        """The content is not on the disk any more: publishes ContentLost if it was held; wanted again if a winner names it."""
        await self._write(partial(_lose, content=content), after=partial(self._now_lost, content))

    async def damage(self, content: Digest, detail: str) -> Damage | None:
        """The same, remembered until it is held again or forgotten. None, and nothing changes, if it is not held."""
        unit = partial(_damage, content=content, detail=detail, now_ms=self._clock_ms())
        return await self._write(unit, after=lambda damage: self._now_lost(content, damage is not None))

    def doubt(self, content: Digest) -> None:
        """Somebody could not read the content as it should be: publishes ContentDoubted if it is held. Whether it is damaged is for whoever hears that to see."""
        if content in self._held:
            self.on_event(ContentDoubted(content))

    async def damaged(self) -> list[Damage]:
        """What is damaged and not held again since, oldest first, at most 1000."""
        return await self._database.read(_damaged)

    async def note_unneeded(self, contents: Sequence[Digest], *, versions: int, now_ms: int) -> dict[Digest, int]:
        """Those of the contents that nothing needs, and since when (milliseconds since 1970) that is known; ``versions`` older ones of a name are needed."""
        await self._refresh_carried()
        known, unneeded = await self._database.scan(partial(_unneeded, contents=contents, versions=versions))
        since = {content: known.get(content, now_ms) for content in unneeded}
        if since.keys() != known.keys():
            await self._write(partial(_note, new=[(content, now_ms) for content in since.keys() - known.keys()], gone=list(known.keys() - since.keys())))
        return since

    async def forget(self, contents: Sequence[Digest], *, versions: int, until_ms: int) -> dict[Digest, int | None]:
        """Those that nothing needs, and that was so at ``until_ms`` already, are held no more; returns them, with the size in bytes that was held, None for what was not."""
        return await self._write(partial(_forget, contents=contents, versions=versions, until_ms=until_ms), after=self._now_forgotten)

    async def relatives(self, content: Digest) -> list[Manifest]:
        """The newest few held contents of more than one chunk that stand or stood under a name of this one: they may have chunks of it."""
        return await self._database.read(partial(_relatives, content=content))

    async def places(self) -> list[tuple[str, str, int, int, int, int]]:
        """(share, stage, living files, their bytes, those of them that are held, their bytes) of every carried stage, read stage by stage: a second for a million files."""
        await self._refresh_carried()
        carried = [(share, stage) for share, stages in self._carried_now().items() for stage in stages]
        return [(share, stage, *await self._database.scan(partial(_place, share=share, stage=stage))) for share, stage in carried]

    def _now_lost(self, content: Digest, was_held: bool) -> None:
        self._held.discard(content)
        self._shown.forget_all()
        if was_held:
            self.on_event(ContentLost(content))

    def _now_forgotten(self, contents: Iterable[Digest]) -> None:
        for content in contents:
            self._now_lost(content, was_held=True)


def is_held(connection: sqlite3.Connection, contents: Sequence[Digest]) -> None:
    """In a transaction: these contents are held now, so they are not damaged, and whether they are needed is to be asked afresh."""
    remove(connection, "damaged", contents)
    remove(connection, "unneeded", contents)


def _lose(connection: sqlite3.Connection, *, content: Digest) -> bool:
    was_held = bool(connection.execute(LOSE, (content,)).rowcount)
    if was_held:
        supply.lost(connection, content)
    return was_held


def _damage(connection: sqlite3.Connection, *, content: Digest, detail: str, now_ms: int) -> Damage | None:
    row = connection.execute(SIZE, (content,)).fetchone()
    if row is None:
        return None
    _lose(connection, content=content)
    connection.execute(DAMAGE, (content, row[0], now_ms, detail))
    return Damage(content, row[0], now_ms, detail)


def _damaged(connection: sqlite3.Connection) -> list[Damage]:
    rows = connection.execute(f"SELECT content, size_bytes, found_ms, detail FROM damaged ORDER BY found_ms, content LIMIT {DAMAGED_SHOWN_MAX}")  # noqa: S608 - constants only
    return [Damage(Digest(content), size, found_ms, detail) for content, size, found_ms, detail in rows]


def _relatives(connection: sqlite3.Connection, *, content: Digest) -> list[Manifest]:
    rows = sorted(connection.execute(RELATIVES, (content, RELATIVES_SEEN_MAX)).fetchall(), reverse=True)
    return [Manifest.decode(encoded) for encoded in list(dict.fromkeys(encoded for _, encoded in rows))[:RELATIVES_MAX]]


def _place(connection: sqlite3.Connection, *, share: str, stage: str) -> tuple[int, int, int, int]:
    files, size, held, held_size = connection.execute(PLACE, (share, stage)).fetchone()
    return files, int(size), held, int(held_size)


def _is_needed(connection: sqlite3.Connection, content: Digest, versions: int) -> bool:
    if connection.execute(NEEDED, (content,)).fetchone() is not None:
        return True
    return versions > 0 and any(
        len(connection.execute(NEWER, (register, content, hlc, record, versions)).fetchall()) < versions
        for register, hlc, record in connection.execute(VERSIONS, (content,)).fetchall()
    )


def _unneeded(connection: sqlite3.Connection, *, contents: Sequence[Digest], versions: int) -> tuple[dict[Digest, int], list[Digest]]:
    """What is noted of these contents, and what is so."""
    known = {content: row[0] for content in contents if (row := connection.execute(SINCE, (content,)).fetchone()) is not None}
    return known, [content for content in contents if not _is_needed(connection, content, versions)]


def _note(connection: sqlite3.Connection, *, new: Sequence[tuple[Digest, int]], gone: Sequence[Digest]) -> None:
    connection.executemany(NOTE, new)
    remove(connection, "unneeded", gone)


def _forget(connection: sqlite3.Connection, *, contents: Sequence[Digest], versions: int, until_ms: int) -> dict[Digest, int | None]:
    found = {}
    for content in contents:
        row = connection.execute(SINCE, (content,)).fetchone()
        if row is not None and row[0] <= until_ms and not _is_needed(connection, content, versions):
            held = connection.execute(SIZE, (content,)).fetchone()
            found[content] = held[0] if held else None
            _lose(connection, content=content)
            for table in ("manifest", "damaged", "unneeded"):
                remove(connection, table, [content])
    return found
