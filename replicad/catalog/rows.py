"""Records and runs in and out of their tables. Functions of a connection; the writing ones are called inside the writer's transactions only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from replicad.errors import ConfigurationError
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.records import Cut, Envelope, Record
from replicad.protocol import records as formats
from replicad.protocol.chains import Chains
from replicad.protocol.replica import Replica, mentions
from replicad.protocol.runs import Place, Run, Segment

PLACES = "SELECT id, run, seq, hlc FROM record WHERE id IN (?)"
LISTED_MAX = 256
"""Values of a list in one statement."""
ADDED_TOGETHER = 32
"""Rows in one statement: a quarter cheaper than one by one, and hardly better with more."""
RECORD_ADD = "INSERT INTO record (record, id, run, seq, hlc, type, payload, signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
CUT_ENDS_NAMED = 384
"""With the longest share names for each, a cut of so many ends is 52 KiB: it fits into a record. An honest node has one end in each share, and one more for each restored backup."""
RECORD = "SELECT record.id, record.type, record.payload, run.origin, record.signature FROM record JOIN run ON run.run = record.run WHERE record.id = ?"
SEGMENT = "SELECT record.type, record.payload, run.origin, record.signature FROM record JOIN run ON run.run = record.run WHERE record.run = ? AND record.seq BETWEEN ? AND ? ORDER BY record.seq"
LAST_BEFORE = "SELECT id FROM record WHERE run = ? AND seq BETWEEN ? AND ? AND hlc < ? ORDER BY seq DESC LIMIT 1"
SAID_SINCE = """
SELECT count(*), coalesce(sum(entry.wins), 0) FROM run CROSS JOIN record ON record.run = run.run LEFT JOIN entry ON entry.record = record.record
WHERE run.origin = ? AND record.hlc >= ?
"""
IN_TIME = """
SELECT record.id, record.type, record.payload, run.origin, record.signature, record.run, record.seq, record.hlc
FROM record CROSS JOIN run ON run.run = record.run WHERE (record.hlc, record.id) > (?, ?) ORDER BY record.hlc, record.id LIMIT ?
"""
# CROSS JOIN: the runs first, which are few; SQLite would begin with all records.
NETWORK_RECORDS = """
SELECT record.id, record.type, record.payload, run.origin, record.signature, record.run, record.seq, record.hlc
FROM run CROSS JOIN record ON record.run = run.run WHERE run.share = '' ORDER BY run.run, record.seq
"""
RUN_PUT = """
INSERT INTO run (run, origin, share, incarnation, first_seq, last_seq, last_id, last_hlc, parent_run, parent_seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET last_seq = excluded.last_seq, last_id = excluded.last_id, last_hlc = excluded.last_hlc
"""
FORGOTTEN = ("record", "run", "register", "entry", "supersedes", "recount", "carried", "taken_down", "wanted", "head", "invite", "pending")
"""Tables about one network. What is left (held, manifest, partial) is about content, which is the same everywhere."""


def for_all(connection: sqlite3.Connection, sql: str, values: Sequence[object], *, given: Sequence[object] = ()) -> list[Any]:
    """What a statement finds, or changes, whose ``(?)`` stands for a list of values: many at once, because each execution costs the interpreter lock twice, which other threads want.

    After ``VALUES`` it stands for as many rows. ``given``: the values of what stands before the list.
    """
    between = "),(" if "VALUES (?)" in sql else ","
    found: list[Any] = []
    for start in range(0, len(values), LISTED_MAX):
        part = values[start : start + LISTED_MAX]
        found += connection.execute(sql.replace("(?)", f"({between.join('?' * len(part))})"), (*given, *part))
    return found


def add_all(connection: sqlite3.Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows by a statement that ends in the place-holders of one: many at once, for the same reason. The last few one by one: a statement for just as many would have to be prepared."""
    together = len(rows) - len(rows) % ADDED_TOGETHER
    many = sql + f", {sql[sql.rindex('(') :]}" * (ADDED_TOGETHER - 1)
    for start in range(0, together, ADDED_TOGETHER):
        connection.execute(many, tuple(chain.from_iterable(rows[start : start + ADDED_TOGETHER])))
    connection.executemany(sql, rows[together:])


def remove(connection: sqlite3.Connection, table: str, contents: Sequence[Digest]) -> None:
    """What a table says of these contents, gone. It is mostly empty, and then that is asked in a hundredth of the time of a list."""
    if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():  # noqa: S608 - constants only
        for_all(connection, f"DELETE FROM {table} WHERE content IN (?)", contents)  # noqa: S608 - constants only


def find_places(connection: sqlite3.Connection, ids: Iterable[RecordId]) -> dict[RecordId, Place]:
    """Where these records stand, of those that are stored."""
    return {RecordId(record): Place(run, seq, Stamp(hlc)) for record, run, seq, hlc in for_all(connection, PLACES, list(ids))}


def find_record(connection: sqlite3.Connection, record: RecordId) -> Record | None:
    """A stored record."""
    row = connection.execute(RECORD, (record,)).fetchone()
    return None if row is None else restore(row)


def cut_ends(connection: sqlite3.Connection, chains: Chains, subject: NodeId, *, before: Stamp) -> dict[str, tuple[RecordId, ...]]:
    """What a cut names, share by share, to keep what the subject said before that time: the last such records of its chains, before any fork.

    At most ``CUT_ENDS_NAMED``, those of the runs that this node saw first: somebody who branches without end must not become too long to be cut, nor push out what was said before.
    """
    ends = sorted(((share, end) for share in chains.shares_of(subject) for end in chains.sound_ends(subject, share)), key=lambda found: found[1].run)
    named: dict[str, set[RecordId]] = {}
    for share, end in ends[:CUT_ENDS_NAMED]:
        if last := last_before(connection, chains.line(end), before):
            named.setdefault(share, set()).add(last)
    return {share: tuple(sorted(found)) for share, found in named.items()}


def last_before(connection: sqlite3.Connection, line: Iterable[Segment], before: Stamp) -> RecordId | None:
    """The id of the last record with a smaller hlc in a line of a chain (its segments, the newest first); None if there is none. The clock grows along a line."""
    for segment in line:
        row = connection.execute(LAST_BEFORE, (*segment, before)).fetchone()
        if row is not None:
            return RecordId(row[0])
    return None


def said_since(connection: sqlite3.Connection, *, origin: NodeId, since: Stamp) -> tuple[int, int]:
    """How many records of that origin are not older than ``since``, and how many names these decide."""
    records, names = connection.execute(SAID_SINCE, (origin, since)).fetchone()
    return records, names


def restore(row: Sequence[Any]) -> Record:
    """A record from (id, type, payload, origin, signature)."""
    record_id, type_, payload, origin, signature = row
    return formats.restore(Envelope(type_, payload, NodeId(origin), signature), RecordId(record_id))


def add_records(connection: sqlite3.Connection, records: Sequence[tuple[Record, Place]]) -> range:
    """Store records that are not stored yet; their record numbers, in the same order."""
    (last,) = connection.execute("SELECT coalesce(max(record), 0) FROM record").fetchone()
    numbers = range(last + 1, last + 1 + len(records))
    rows = [
        (number, record.id, place.run, place.seq, place.hlc, record.envelope.type, record.envelope.payload, record.envelope.signature)
        for number, (record, place) in zip(numbers, records, strict=True)
    ]
    add_all(connection, RECORD_ADD, rows)
    return numbers


def put_runs(connection: sqlite3.Connection, runs: Iterable[Run]) -> None:
    """Store new runs and the new ends of known ones."""
    rows = (
        (run.number, run.origin, run.share, run.incarnation, run.first_seq, run.last_seq, run.last_id, run.last_hlc, *(run.parent or (None, None)))
        for run in runs
    )
    connection.executemany(RUN_PUT, rows)


def load_replica(connection: sqlite3.Connection, *, own: NodeId) -> Replica:
    """A replica of the stored network."""
    replica = Replica(stored_network(connection), own)
    records = [(restore(row[:5]), Place(row[5], row[6], Stamp(row[7]))) for row in connection.execute(NETWORK_RECORDS)]
    named = {mentioned for record, _ in records if isinstance(record.body, Cut) for mentioned in mentions(record)}
    replica.load(_runs(connection), records, find_places(connection, named))
    return replica


def stored_network(connection: sqlite3.Connection) -> NodeId:
    """The network this catalog belongs to; ConfigurationError if it belongs to none."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'network'").fetchone()
    if row is None:
        raise ConfigurationError("the catalog belongs to no network", hint="replicad init")
    return NodeId.parse(row[0])


def store_network(connection: sqlite3.Connection, network: NodeId) -> None:
    """The catalog belongs to this network from now on."""
    connection.execute("INSERT INTO meta (name, value) VALUES ('network', ?) ON CONFLICT DO UPDATE SET value = excluded.value", (str(network),))


def forget_network(connection: sqlite3.Connection) -> None:
    """Everything that is about a network, gone; content stays."""
    for table in FORGOTTEN:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - constants only
    connection.execute("DELETE FROM tally WHERE kind <> 'held'")


def in_time(connection: sqlite3.Connection, after: tuple[Stamp, bytes], *, limit: int) -> Iterator[tuple[Record, Place]]:
    """Stored records in order of (hlc, id), read as they are asked for."""
    for row in connection.execute(IN_TIME, (*after, limit)):
        yield restore(row[:5]), Place(row[5], row[6], Stamp(row[7]))


def envelopes(connection: sqlite3.Connection, segments: Iterable[Segment]) -> Iterator[Envelope]:
    """The stored envelopes of these parts of chains, in their order, read as they are asked for."""
    for segment in segments:
        for type_, payload, origin, signature in connection.execute(SEGMENT, segment):
            yield Envelope(type_, payload, NodeId(origin), signature)


def _runs(connection: sqlite3.Connection) -> Iterator[Run]:
    rows = connection.execute("SELECT run, origin, share, incarnation, first_seq, last_seq, last_id, last_hlc, parent_run, parent_seq FROM run ORDER BY run")
    for number, origin, share, incarnation, first_seq, last_seq, last_id, last_hlc, parent_run, parent_seq in rows:
        parent = None if parent_run is None else (parent_run, parent_seq)
        yield Run(number, NodeId(origin), share, Stamp(incarnation), first_seq, last_seq, RecordId(last_id), Stamp(last_hlc), parent)
