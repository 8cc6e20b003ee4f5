"""What was ever said about a name. Queries only, and rare ones: a person asks."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

from replicad.catalog import rows
from replicad.catalog.state import State
from replicad.errors import InputError
from replicad.model.entries import Revision, RevisionKind, RevisionState
from replicad.model.ids import STAMP_MAX, RecordId, Stamp
from replicad.model.records import Entry, Record
from replicad.protocol.runs import Place

HISTORY_MAX = 5_000
LAST: tuple[Stamp, bytes] = (Stamp(STAMP_MAX), b"\xff" * 33)
"""After every (hlc, id)."""

HISTORY = """
SELECT record.id, record.type, record.payload, run.origin, record.signature, record.run, record.seq, record.hlc,
    register.register, entry.live, entry.live AND (entry.wins OR register.winner IS NULL), held.content IS NOT NULL, taken_down.content IS NOT NULL,
    EXISTS (
        SELECT 1 FROM entry AS older JOIN record AS before ON before.record = older.record
        WHERE older.register = entry.register AND older.content = entry.content AND older.counts = 1 AND (before.hlc, before.id) < (record.hlc, record.id)
    )
FROM register JOIN entry ON entry.register = register.register JOIN record ON record.record = entry.record JOIN run ON run.run = record.run
    LEFT JOIN held ON held.content = entry.content LEFT JOIN taken_down ON taken_down.content = entry.content
WHERE register.share = ? AND register.key = ? AND (record.hlc, record.id) < (?, ?) ORDER BY record.hlc DESC, record.id DESC LIMIT ?
"""
ENTRY_COUNTS = """
SELECT 1 FROM record JOIN entry ON entry.record = record.record WHERE record.id = ? AND entry.register = ? AND entry.counts = 1 AND entry.content IS NOT NULL
"""
REMOVED = """
SELECT register.key, register.stage, run.origin, record.hlc, record.id
FROM register JOIN entry ON entry.register = register.register AND entry.live = 1 JOIN record ON record.record = entry.record JOIN run ON run.run = record.run
WHERE register.winner IS NULL AND register.share = ?1 AND register.key >= ?2 AND register.key < ?2 || '0' AND (register.key = ?2 OR register.key > ?2 || '/')
"""
UNSEEN = """
SELECT record.id, record.type, record.payload, run.origin, record.signature, record.run, record.seq, record.hlc
FROM run CROSS JOIN record ON record.run = run.run JOIN entry ON entry.record = record.record JOIN held ON held.content = entry.content
WHERE run.origin = ? AND entry.counts = 0 AND NOT EXISTS (
    SELECT 1 FROM entry AS other JOIN record AS later ON later.record = other.record JOIN run AS said ON said.run = later.run
    WHERE other.register = entry.register AND (other.counts = 1 OR said.origin = run.origin) AND (later.hlc, later.id) > (record.hlc, record.id)
)
"""
NAMES = "SELECT DISTINCT key FROM register WHERE winner IS NOT NULL AND share = ? LIMIT ?"


class History(State):
    """Part of ``Catalog``."""

    async def history(self, share: str, key: str, *, before: tuple[Stamp, bytes] = LAST, limit: int = HISTORY_MAX) -> list[Revision]:
        """Every record about a name, at all stages, counting or not: the newest ``limit`` (at most 5,000) of those with a smaller (hlc, id) than ``before``, newest first."""
        if not 1 <= limit <= HISTORY_MAX:
            raise InputError(f"limit: 1 to {HISTORY_MAX} expected, got {limit}")
        trust = self.replica.trust
        known = trust.shares().get(share)
        unit = partial(_history, name=(share, key, *before, limit), immutable=known is not None and known.immutable)
        return [_judged(revision, trust.why_not(revision.record, place)) for revision, place in await self._database.scan(unit)]

    async def removed(self, share: str, key: str, stages: Collection[str]) -> list[str]:
        """This collision key if its file was removed at any of these stages and is not there now; else the keys below it that the last removal there ended, and where no file is now; sorted.

        The tombstones of one removal come from one node in one millisecond.
        """
        return await self._database.scan(partial(_removed, place=(share, key), stages=stages))

    async def unseen(self) -> list[Record]:
        """Entries of this node that a cut made void because its author had not seen them, if nothing newer is said about their names and the content is here. None if the key was revoked: then
        what is void was meant to be.
        """
        await self._settle()
        trust = self.replica.trust
        if trust.is_revoked(self.node):
            return []
        found = await self._database.scan(
            lambda connection: [(rows.restore(row[:5]), Place(row[5], row[6], Stamp(row[7]))) for row in connection.execute(UNSEEN, (self.node,))]
        )
        return [record for record, place in found if trust.why_not(record, place) == "cut"]

    async def count_names(self, share: str, limit: int) -> int:
        """How many names with a live file a share has, counted up to ``limit``."""
        return await self._database.scan(lambda connection: sum(1 for _ in connection.execute(NAMES, (share, limit))))


def _removed(connection: sqlite3.Connection, *, place: tuple[str, str], stages: Collection[str]) -> list[str]:
    rows = [(key, (origin, Stamp(hlc).ms), (hlc, record)) for key, stage, origin, hlc, record in connection.execute(REMOVED, place) if stage in stages]
    rows = [row for row in rows if row[0] == place[1]] or rows
    _, last, _ = max(rows, key=lambda row: row[2], default=("", None, None))
    return sorted({key for key, removal, _ in rows if removal == last})


def _history(connection: sqlite3.Connection, *, name: tuple[str, str, Stamp, bytes, int], immutable: bool) -> list[tuple[Revision, Place]]:
    found = []
    for row in connection.execute(HISTORY, name).fetchall():
        record, place = rows.restore(row[:5]), Place(row[5], row[6], Stamp(row[7]))
        register, live, current, held, taken_down, again = row[8:]
        state: RevisionState = "current" if current else "sibling" if live else "superseded"
        why_not = ""
        if not live and immutable and isinstance(record.body, Entry) and _replaces(connection, register, record.body.supersedes):
            state, why_not = "void", "immutable"
        found.append((Revision(record, _kind(record, again=bool(again)), state, why_not, held=bool(held), taken_down=bool(taken_down)), place))
    return found


def _kind(record: Record, *, again: bool) -> RevisionKind:
    if not isinstance(record.body, Entry):
        return "remove"
    return "promote" if record.body.source else "restore" if again else "publish"


def _replaces(connection: sqlite3.Connection, register: int, targets: Iterable[RecordId]) -> bool:
    """Whether one of these is an entry of the register that counts."""
    return any(connection.execute(ENTRY_COUNTS, (target, register)).fetchone() for target in targets)


def _judged(revision: Revision, why_not: str) -> Revision:
    return replace(revision, state="void", why_not=why_not) if why_not else revision
