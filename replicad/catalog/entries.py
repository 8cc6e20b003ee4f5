"""Names: what lives under which path at which stage. Queries only; ``registers`` decides who wins."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

from replicad.catalog.answers import Standing
from replicad.catalog.rows import for_all
from replicad.catalog.state import State
from replicad.errors import InputError
from replicad.model import paths
from replicad.model.entries import Listed
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import STAGES_MAX, SUPERSEDES_MAX

PAGE_MAX = 10_000
PAIRS_MAX = 1000
SIBLINGS_MAX = 100

_KEY, _STAGE = 4, 6
_COLUMNS = """
record.id, run.origin, record.hlc, register.share, register.key, entry.path, register.stage, entry.content, entry.size_bytes, entry.manifest, entry.modified_s, entry.publisher,
held.content IS NOT NULL AND taken_down.content IS NULL, taken_down.content IS NOT NULL
"""
_JOINS = "JOIN record ON record.record = entry.record JOIN run ON run.run = record.run LEFT JOIN held ON held.content = entry.content LEFT JOIN taken_down ON taken_down.content = entry.content"
_WINNERS = f"SELECT {_COLUMNS}, register.siblings FROM register JOIN entry ON entry.record = register.winner {_JOINS}"  # noqa: S608 - constants only
_LIVE = "FROM register JOIN entry ON entry.register = register.register AND entry.live = 1"
_REGISTER = "register.share = ? AND register.key = ? AND register.stage = ?"
_PAGE = f"{_WINNERS} WHERE register.winner IS NOT NULL AND register.share = ?1"

VISIBLE = f"{_WINNERS} WHERE register.winner IS NOT NULL AND register.share = ? AND register.key = ?"
WINNER = f"{_WINNERS} WHERE {_REGISTER}"
PAGE_ALL = f"{_PAGE} AND register.key > ?2 ORDER BY register.share, register.key, register.stage"
PAGE_EXACT = f"{_PAGE} AND register.key = ?2 AND ?2 > ?3 ORDER BY register.share, register.key, register.stage"
PAGE_BELOW = f"{_PAGE} AND register.key > max(?2 || '/', ?3) AND register.key < ?2 || '0' ORDER BY register.share, register.key, register.stage"
LIVE_ENTRIES = (
    f"SELECT {_COLUMNS}, 0 {_LIVE} {_JOINS} WHERE {_REGISTER} AND entry.content IS NOT NULL ORDER BY record.hlc DESC, record.id DESC LIMIT {SIBLINGS_MAX}"
)
LIVE_IDS = (
    f"SELECT record.id {_LIVE} JOIN record ON record.record = entry.record WHERE {_REGISTER} ORDER BY record.hlc DESC, record.id DESC LIMIT {SUPERSEDES_MAX}"
)
LIVE_AT = "SELECT entry.path FROM register JOIN entry ON entry.record = register.winner WHERE register.winner IS NOT NULL AND register.share = ? AND register.key = ? LIMIT 1"
LIVE_BELOW = """
SELECT entry.path FROM register JOIN entry ON entry.record = register.winner
WHERE register.winner IS NOT NULL AND register.share = ?1 AND register.key > ?2 || '/' AND register.key < ?2 || '0' LIMIT 1
"""
NAMED_AT = "SELECT 1 FROM entry WHERE content = ? AND counts = 1 AND share = ? AND stage = ? AND wins = 1 LIMIT 1"
NAMED_BELOW = """
SELECT 1 FROM entry JOIN register ON register.register = entry.register WHERE entry.content = ?1 AND entry.counts = 1 AND entry.share = ?2
  AND (?3 = '' OR register.key = ?3 OR (register.key > ?3 || '/' AND register.key < ?3 || '0')) LIMIT 1
"""
# Jumps from share to share in the index: as many steps as answers, not as entries.
NAMING = """
WITH RECURSIVE naming (content, share) AS (
    SELECT column1, (SELECT min(share) FROM entry WHERE content = column1 AND counts = 1) FROM (VALUES (?))
    UNION ALL
    SELECT content, (SELECT min(entry.share) FROM entry WHERE entry.content = naming.content AND entry.counts = 1 AND entry.share > naming.share)
    FROM naming WHERE share IS NOT NULL
)
SELECT content, share FROM naming WHERE share IS NOT NULL
"""


class Entries(State):
    """Part of ``Catalog``."""

    async def visible(self, share: str, key: str) -> Listed | None:
        """What this node shows under a collision key: the live file of the lowest stage that it carries. Asked again, answered from memory until a commit may have changed it."""
        stages = self._carried_now().get(share)
        if not stages:
            return None
        if (share, key) in self._shown:
            listed = self._shown.recall(share, key)
        else:
            era = self._shown.era
            listed = await self._database.read(partial(_visible, share=share, key=key, stages=stages))
            self._shown.remember(share, key, listed, era=era)
        if listed is None or listed.available or listed.taken_down or listed.content not in self._held:
            return listed
        return replace(listed, available=True)

    async def entries(
        self, share: str | None = None, *, prefix: str = "", after: tuple[str, str] | None = None, limit: int = 1000, all_stages: bool = False
    ) -> list[Listed]:
        """A page of names in order of (share, key). One per name, as ``visible``; with ``all_stages`` those of every stage, lowest first, carried here or not.

        ``share`` None: all shares that exist here. ``prefix``: a collision key, matched segment-wise. ``after``: (share, key) of the last one of the previous page. A page never splits a
        name: it has at most max(limit, 16) rows, and ``limit`` is at most 10,000. Fewer rows than that do not mean the end; an empty page does.
        """
        if not 1 <= limit <= PAGE_MAX:
            raise InputError(f"limit: 1 to {PAGE_MAX} expected, got {limit}")
        known = self.replica.trust.shares()
        orders: Mapping[str, tuple[str, ...]] = {name: one.stages for name, one in known.items()} if all_stages else self._carried_now()
        names = sorted(orders) if share is None else [share] if share in orders else []
        page: list[Listed] = []
        for name in names:
            if after is not None and name < after[0]:
                continue
            start = after[1] if after is not None and after[0] == name else ""
            unit = partial(_page, share=name, prefix=prefix, after=start, room=limit - len(page), stages=orders[name], all_stages=all_stages)
            page += await self._database.scan(unit)
            if len(page) >= limit:
                break
        return page

    async def register(self, share: str, key: str, stage: str) -> list[Listed]:
        """The live entries of one register: the winner first, then the siblings, newest first, at most 100 in all. Empty if no file lives there."""
        return await self._database.read(partial(_register, name=(share, key, stage)))

    async def registers(self, share: str, pairs: Sequence[tuple[str, str]]) -> list[Listed | None]:
        """The winner of each (key, stage), in the same order; at most 1000 pairs."""
        if len(pairs) > PAIRS_MAX:
            raise InputError(f"pairs: at most {PAIRS_MAX}, got {len(pairs)}")
        return await self._database.scan(lambda connection: [_winner(connection, (share, key, stage)) for key, stage in pairs])

    async def standings(self, share: str, pairs: Sequence[tuple[str, str]]) -> list[Standing]:
        """For each (key, stage), in the same order, what a new entry there would meet. About 50 microseconds each."""
        return await self._database.scan(lambda connection: [_standing(connection, (share, key, stage)) for key, stage in pairs])

    async def live_records(self, share: str, key: str, stage: str) -> list[RecordId]:
        """What a new entry or tombstone of that register must supersede: its live records (entries and tombstones), newest first, at most SUPERSEDES_MAX."""
        return await self._database.read(partial(_live_ids, name=(share, key, stage)))

    async def is_named(self, content: Digest, shares: Iterable[str]) -> bool:
        """Whether a live file of one of these shares, at a stage that this node carries, has that content. Takes as long whoever else names it: one look-up for each share and stage."""
        carried = self._carried_now()
        places = [(share, stage) for share in shares for stage in carried.get(share, ())]
        return await self._database.read(partial(_is_named, content=content, places=places))

    async def named_below(self, contents: Iterable[Digest], shares: Sequence[str], prefix: str) -> set[Digest]:
        """Those of the contents that an entry that counts names, live or not, in one of these shares, at or below the collision key ``prefix`` (empty: anywhere)."""
        return await self._database.scan(partial(_named_below, contents=contents, shares=shares, prefix=prefix))

    async def named_by_many(self, contents: Iterable[Digest]) -> dict[Digest, set[str]]:
        """For each content the shares in which an entry that counts names it, live or not: what rights to content rest on."""
        found: dict[Digest, set[str]] = {content: set() for content in contents}
        for content, share in await self._database.scan(lambda connection: for_all(connection, NAMING, list(found))):
            found[content].add(share)
        return found

    async def collides(self, share: str, key: str) -> str | None:
        """The path of a live file, at any stage, that is a directory of the key or lies below it: ``a`` and ``a/b`` cannot both be files."""
        return await self._database.read(partial(_collides, share=share, key=key))


def _listed(row: Sequence[Any]) -> Listed:
    record, origin, hlc, share, key, path, stage, content, size, manifest, modified, publisher, available, taken_down, siblings = row
    return Listed(
        record=RecordId(record),
        origin=NodeId(origin),
        hlc=Stamp(hlc),
        share=share,
        key=key,
        path=path,
        stage=stage,
        content=Digest(content),
        size=size,
        manifest=Digest(manifest),
        modified=modified,
        publisher=publisher,
        available=bool(available),
        taken_down=bool(taken_down),
        siblings=siblings,
    )


def _chosen(rows: Iterable[Sequence[Any]], stages: Sequence[str], *, all_stages: bool) -> list[Sequence[Any]]:
    """Of one name's winners: the one of the lowest of these stages, or all, lowest first and stages that the share does not know last."""
    place = {stage: number for number, stage in enumerate(stages)}
    if all_stages:
        return sorted(rows, key=lambda row: (place.get(row[_STAGE], STAGES_MAX), row[_STAGE]))
    carried = [row for row in rows if row[_STAGE] in place]
    return [min(carried, key=lambda row: place[row[_STAGE]])] if carried else []


def _visible(connection: sqlite3.Connection, *, share: str, key: str, stages: Sequence[str]) -> Listed | None:
    chosen = _chosen(connection.execute(VISIBLE, (share, key)), stages, all_stages=False)
    return _listed(chosen[0]) if chosen else None


def _page(connection: sqlite3.Connection, *, share: str, prefix: str, after: str, room: int, stages: Sequence[str], all_stages: bool) -> list[Listed]:
    page: list[Listed] = []
    for _, rows in groupby(_walk(connection, share=share, prefix=prefix, after=after), key=lambda row: row[_KEY]):
        chosen = _chosen(rows, stages, all_stages=all_stages)
        if page and len(page) + len(chosen) > room:
            break
        page += map(_listed, chosen)
        if len(page) >= room:
            break
    return page


def _walk(connection: sqlite3.Connection, *, share: str, prefix: str, after: str) -> Iterator[Sequence[Any]]:
    """The winners of one share in order of key, as far as they are asked for."""
    if not prefix:
        yield from connection.execute(PAGE_ALL, (share, after))
        return
    yield from connection.execute(PAGE_EXACT, (share, prefix, after))
    yield from connection.execute(PAGE_BELOW, (share, prefix, after))


def _register(connection: sqlite3.Connection, *, name: tuple[str, str, str]) -> list[Listed]:
    winner = _winner(connection, name)
    if winner is None:
        return []
    others = (_listed(row) for row in connection.execute(LIVE_ENTRIES, name))
    return [winner, *(other for other in others if other.record != winner.record)]


def _winner(connection: sqlite3.Connection, name: tuple[str, str, str]) -> Listed | None:
    row = connection.execute(WINNER, name).fetchone()
    return None if row is None else _listed(row)


def _standing(connection: sqlite3.Connection, name: tuple[str, str, str]) -> Standing:
    share, key, _ = name
    return Standing(_winner(connection, name), tuple(_live_ids(connection, name=name)), _collides(connection, share=share, key=key))


def _live_ids(connection: sqlite3.Connection, *, name: tuple[str, str, str]) -> list[RecordId]:
    return [RecordId(record) for (record,) in connection.execute(LIVE_IDS, name)]


def _is_named(connection: sqlite3.Connection, *, content: Digest, places: Sequence[tuple[str, str]]) -> bool:
    return any(connection.execute(NAMED_AT, (content, *place)).fetchone() for place in places)


def _named_below(connection: sqlite3.Connection, *, contents: Iterable[Digest], shares: Sequence[str], prefix: str) -> set[Digest]:
    return {content for content in contents if any(connection.execute(NAMED_BELOW, (content, share, prefix)).fetchone() for share in shares)}


def _collides(connection: sqlite3.Connection, *, share: str, key: str) -> str | None:
    for parent in paths.parents(key):
        row = connection.execute(LIVE_AT, (share, parent)).fetchone()
        if row is not None:
            return str(row[0])
    row = connection.execute(LIVE_BELOW, (share, key)).fetchone()
    return None if row is None else str(row[0])
