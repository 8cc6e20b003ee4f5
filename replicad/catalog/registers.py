"""Who lives under which name: entries and tombstones taken apart, and the winner of every register they touch kept right.

``protocol.merge`` decides; this module gives it the rows it needs and no more, so that a name with a long history costs as little as a new one: of an ordinary register only what is live and what
changed, of an immutable one everything (its history is short by nature). Functions of the writer's connection, called inside its transactions only.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from replicad.catalog import supply
from replicad.catalog.rows import add_all, for_all
from replicad.model import paths
from replicad.model.ids import Digest, RecordId, Stamp
from replicad.model.records import Entry, Record, Tombstone
from replicad.protocol.merge import RegisterRow, resolve

REGISTERS_FIND = "SELECT key, register FROM register WHERE share = ? AND stage = ? AND key IN (?)"
REGISTER_ADD = "INSERT INTO register (register, share, key, stage, winner) VALUES (?, ?, ?, ?, ?)"
STAGE_COUNT = "INSERT INTO tally (kind, amount, bytes) VALUES ('stage/' || ?, ?, 0) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
"""Living files whose register was made with its winner: the trigger that counts sees changes only."""
ENTRY_ADD = """
INSERT INTO entry (record, register, share, stage, path, publisher, content, size_bytes, manifest, modified_s, source, urgent, counts, live, wins)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SUPERSEDES_ADD = "INSERT INTO supersedes (target, record) VALUES (?, ?) ON CONFLICT DO NOTHING"
SUPERSEDED = "SELECT DISTINCT target FROM supersedes WHERE target IN (?)"
TARGET = """
SELECT entry.record, entry.register, register.stage FROM record JOIN entry ON entry.record = record.record JOIN register ON register.register = entry.register
WHERE record.id = ? AND register.share = ? AND register.key = ?
"""
_ROW = "SELECT entry.record, record.id, record.hlc, entry.content, entry.counts, entry.live FROM entry JOIN record ON record.record = entry.record"
ROW_ONE = f"{_ROW} WHERE entry.record = ?"
ROWS_LIVE = f"{_ROW} WHERE entry.register = ? AND entry.live = 1"
ROWS_ALL = f"{_ROW} WHERE entry.register = ?"
SUPERSEDERS = """
SELECT supersedes.record FROM supersedes JOIN entry ON entry.record = supersedes.record JOIN register ON register.register = entry.register
WHERE supersedes.target = ?1 AND entry.counts = 1 AND register.share = ?2 AND register.key = ?3 AND ?4 IN (entry.stage, entry.source) LIMIT ?5
"""


@dataclass(slots=True)
class Changed:
    """What a transaction changed among the names: by share the keys whose winner or siblings are different, and shares of which any name may be."""

    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    shares: set[str] = field(default_factory=set)


class New(NamedTuple):
    """A record that was just stored under that number, and whether it counts."""

    number: int
    id: RecordId
    share: str
    body: Entry | Tombstone
    counts: bool


class Change(NamedTuple):
    """A stored entry or tombstone that is new, or counts now and did not, or the reverse."""

    number: int
    share: str
    key: str
    stage: str
    register: int
    targets: Sequence[RecordId]


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    id: RecordId
    hlc: Stamp
    content: bytes | None
    counts: bool
    live: bool


def add(connection: sqlite3.Connection, records: Sequence[New], changed: Changed, *, immutable: Callable[[str], bool]) -> None:
    """Store the parsed form of entries and tombstones, and make every register right that they touch, as ``apply`` does. Most name something for the first time: there is nothing to resolve."""
    connection.executemany(SUPERSEDES_ADD, ((target, new.number) for new in records for target in new.body.supersedes))
    superseded = {target for (target,) in for_all(connection, SUPERSEDED, [new.id for new in records])}
    names = [(new.share, new.body.stage, paths.key(new.body.path)) for new in records]
    registers = _find(connection, names)
    last: int = connection.execute("SELECT coalesce(max(register), 0) FROM register").fetchone()[0]
    made: list[tuple[object, ...]] = []
    entries: list[tuple[object, ...]] = []
    firsts: dict[int, str] = {}
    others: list[Change] = []
    for new, name in zip(records, names, strict=True):
        share, stage, key = name
        body, is_made = new.body, name not in registers
        is_first = is_made and new.counts and isinstance(body, Entry) and not body.supersedes and new.id not in superseded
        if is_made:
            registers[name] = last = last + 1
            made.append((last, share, key, stage, new.number if is_first else None))
        entries.append(_row_of(new, registers[name], wins=is_first))
        if is_first:
            firsts[new.number] = stage
            changed.names[share].add(key)
        else:
            others.append(Change(new.number, share, key, stage, registers[name], body.supersedes))
    add_all(connection, REGISTER_ADD, made)
    connection.executemany(STAGE_COUNT, Counter(firsts.values()).items())
    add_all(connection, ENTRY_ADD, entries)
    supply.want(connection, list(firsts))
    apply(connection, others, changed, immutable=immutable)


def _row_of(new: New, register: int, *, wins: bool) -> tuple[object, ...]:
    body = new.body
    content = (
        (body.content, body.size, body.manifest, body.modified, body.source or None, bool(body.urgent)) if isinstance(body, Entry) else (*(None,) * 5, False)
    )
    return new.number, register, new.share, body.stage, body.path, body.publisher, *content, new.counts, wins, wins


def recounted(connection: sqlite3.Connection, number: int, record: Record, *, counts: bool, everything: bool) -> Change | None:
    """Store whether an entry or tombstone counts now. None if that is no change and not ``everything`` is to be merged again."""
    body = record.body
    if not isinstance(body, Entry | Tombstone):
        return None
    changed = connection.execute("UPDATE entry SET counts = ?2 WHERE record = ?1 AND counts <> ?2", (number, counts)).rowcount
    if not changed and not everything:
        return None
    share, key = record.header.share, paths.key(body.path)
    name = share, body.stage, key
    return Change(number, share, key, body.stage, _find(connection, [name])[name], body.supersedes)


def apply(connection: sqlite3.Connection, changes: Iterable[Change], changed: Changed, *, immutable: Callable[[str], bool]) -> None:
    """Make every register right that these changes touch, and what is wanted with it. Registers that show something else now are added to ``changed``."""
    touched: dict[int, set[int]] = defaultdict(set)
    names: dict[int, tuple[str, str, str]] = {}
    for change in changes:
        touched[change.register].add(change.number)
        names[change.register] = (change.share, change.key, change.stage)
        for target in change.targets:
            row = connection.execute(TARGET, (target, change.share, change.key)).fetchone()
            if row is not None:
                touched[row[1]].add(row[0])
                names[row[1]] = (change.share, change.key, row[2])
    wins: list[tuple[bool, int]] = []
    lives: list[tuple[bool, int]] = []
    for register, numbers in touched.items():
        share, key, _ = name = names[register]
        before, now, flags = _settle(connection, register, numbers, name=name, immutable=immutable(share))
        lives += flags
        if before == now:
            continue
        changed.names[share].add(key)
        if before[0] != now[0]:
            wins += [(won, number) for won, number in ((False, before[0]), (True, now[0])) if number is not None]
    connection.executemany("UPDATE entry SET live = ? WHERE record = ?", lives)
    connection.executemany("UPDATE entry SET wins = ? WHERE record = ?", wins)
    supply.unwant(connection, (number for is_live, number in lives if not is_live))
    supply.want(connection, [number for is_live, number in lives if is_live])


def _find(connection: sqlite3.Connection, names: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
    """The numbers of those registers (share, stage, key) that exist."""
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for share, stage, key in names:
        places[share, stage].append(key)
    return {(*place, key): number for place, keys in places.items() for key, number in for_all(connection, REGISTERS_FIND, keys, given=place)}


State = tuple[int | None, int]
"""A register's (winner, siblings)."""


def _settle(
    connection: sqlite3.Connection, register: int, numbers: Iterable[int], *, name: tuple[str, str, str], immutable: bool
) -> tuple[State, State, list[tuple[bool, int]]]:
    """Resolve one register of which these records changed; its state before and now, and of which records it is news whether they are live."""
    rows = _rows(connection, ROWS_ALL if immutable else ROWS_LIVE, register)
    for number in numbers:
        if number not in rows:
            rows |= _rows(connection, ROW_ONE, number)
    by_id = {row.id: row for row in rows.values()}
    supersedes, elsewhere = _supersessions(connection, rows, name, everyone=immutable)
    resolution = resolve([_for_merge(row, supersedes[row.number]) for row in rows.values()], immutable=immutable, elsewhere=elsewhere)
    live = set(resolution.live)
    flags = [(row.id in live, row.number) for row in rows.values() if row.live != (row.id in live)]
    before: State = connection.execute("SELECT winner, siblings FROM register WHERE register = ?", (register,)).fetchone()
    now: State = (by_id[resolution.winner].number if resolution.winner else None, len(resolution.siblings))
    if before != now:
        connection.execute("UPDATE register SET winner = ?, siblings = ? WHERE register = ?", (*now, register))
    return before, now, flags


def _rows(connection: sqlite3.Connection, sql: str, number: int) -> dict[int, _Row]:
    return {row[0]: _Row(row[0], RecordId(row[1]), Stamp(row[2]), row[3], bool(row[4]), bool(row[5])) for row in connection.execute(sql, (number,))}


def _supersessions(
    connection: sqlite3.Connection, rows: Mapping[int, _Row], name: tuple[str, str, str], *, everyone: bool
) -> tuple[dict[int, set[RecordId]], set[RecordId]]:
    """Which of these rows are superseded by something that counts, under the same name at the same stage or promoted from it: by row, and by records that are not among the rows.

    ``everyone`` tells all superseders (an immutable register must know them); otherwise one is enough, and it is reported as foreign.
    """
    by_row: dict[int, set[RecordId]] = defaultdict(set)
    foreign: set[RecordId] = set()
    for row in rows.values():
        for (number,) in connection.execute(SUPERSEDERS, (row.id, *name, -1 if everyone else 1)):
            if everyone and number in rows:
                by_row[number].add(row.id)
            else:
                foreign.add(row.id)
    return by_row, foreign


def _for_merge(row: _Row, supersedes: set[RecordId]) -> RegisterRow:
    if row.content is None:
        return RegisterRow(row.id, row.hlc, "tombstone", None, supersedes, row.counts)
    return RegisterRow(row.id, row.hlc, "entry", Digest(row.content), supersedes, row.counts)
