"""Records that must be judged again because rights changed: a list on the disk, worked off in batches.

The list is written in the transaction that changed the rights, so a crash between two batches forgets nothing. Functions of the writer's connection, called inside its transactions only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from replicad.catalog.rows import restore
from replicad.model.ids import NodeId, Stamp
from replicad.model.records import Record
from replicad.protocol.runs import Place

NEXT_ROWS = """
SELECT record.id, record.type, record.payload, run.origin, record.signature, record.record, record.seq, record.hlc
FROM record JOIN run ON run.run = record.run JOIN entry ON entry.record = record.record WHERE record.run = ? AND record.seq > ? ORDER BY record.seq LIMIT ?
"""
_ADD_RUNS = "INSERT INTO recount (run, seq, everything) SELECT run, 0, {everything} FROM run WHERE {whose} ON CONFLICT DO UPDATE SET seq = 0, everything = max(everything, excluded.everything)"
ADD_ORIGIN = _ADD_RUNS.format(everything=0, whose="origin = ? AND share <> ''")
ADD_SHARE = _ADD_RUNS.format(everything=1, whose="share = ?")


@dataclass(frozen=True, slots=True)
class Due:
    """One entry or tombstone to be judged again, with its record number and place."""

    record: Record
    number: int
    place: Place


@dataclass(frozen=True, slots=True)
class Batch:
    """The next of them, all of one run; ``run`` None: nothing is due."""

    run: int | None
    rows: tuple[Due, ...] = ()
    everything: bool = False


def pending(connection: sqlite3.Connection) -> bool:
    """Whether anything is due."""
    return connection.execute("SELECT 1 FROM recount LIMIT 1").fetchone() is not None


def add_origins(connection: sqlite3.Connection, origins: Iterable[NodeId]) -> None:
    """All entries of these origins are due."""
    connection.executemany(ADD_ORIGIN, ((origin,) for origin in origins))


def add_shares(connection: sqlite3.Connection, shares: Iterable[str]) -> None:
    """All entries of these shares are due, and are to be merged again even if they count as before."""
    connection.executemany(ADD_SHARE, ((share,) for share in shares))


def next_batch(connection: sqlite3.Connection, limit: int) -> Batch:
    """The next ``limit`` entries due, at most."""
    row = connection.execute("SELECT run, seq, everything FROM recount ORDER BY run LIMIT 1").fetchone()
    if row is None:
        return Batch(None)
    run, seq, everything = row
    rows = connection.execute(NEXT_ROWS, (run, seq, limit))
    return Batch(run, tuple(Due(restore(row[:5]), row[5], Place(run, row[6], Stamp(row[7]))) for row in rows), bool(everything))


def done(connection: sqlite3.Connection, batch: Batch) -> None:
    """A batch was judged: the next one begins behind it, or the run is finished."""
    if batch.rows:
        connection.execute("UPDATE recount SET seq = ? WHERE run = ?", (batch.rows[-1].place.seq, batch.run))
    else:
        connection.execute("DELETE FROM recount WHERE run = ?", (batch.run,))
