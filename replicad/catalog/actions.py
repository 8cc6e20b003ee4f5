"""What people and programs did through the admin door: append-only, each row bound to all before it by a hash, the oldest dropped when they are too old or too many.

The chain shows any later change of a row, also at both ends: it is anchored in the hash before the oldest row and in that of the newest. Whoever can write the file can compute a whole new chain: against that helps only to keep ``last`` of a verification somewhere else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from functools import partial

from replicad.catalog.answers import Action, ActionChain
from replicad.catalog.state import State
from replicad.model.callers import Retention

DROPPED_MAX = 100
"""Rows dropped with one that is appended: an action that is written while the clock is years ahead costs no more than so many."""
_COLUMNS = "seq, at_ms, caller, origin, request, method, target, detail, status, code"


class Actions(State):
    """Part of ``Catalog``."""

    async def append_action(self, action: Action) -> None:
        """Append it; its ``seq`` is replaced by the next one."""
        await self._write(partial(_append_and_drop, action=action, retention=self.retention))

    async def actions(self, *, since_ms: int = 0, after: int = 0, limit: int) -> list[Action]:
        """Those at or after a time and after a seq, oldest first."""
        return await self._database.scan(partial(_page, since_ms=since_ms, after=after, limit=limit))

    async def verify_actions(self) -> ActionChain:
        """Compute the whole chain anew: 0.6 s for all that is kept (measured)."""
        return await self._database.check(_verify)


def _hash(before: bytes, action: Action) -> bytes:
    """SHA-256 of the 32 bytes before and the columns as a JSON list without spaces."""
    return hashlib.sha256(before + json.dumps(list(action), separators=(",", ":"), ensure_ascii=True).encode()).digest()


def append(connection: sqlite3.Connection, *, action: Action) -> int:
    """In a transaction: append it; returns its seq."""
    last_seq, before = connection.execute("SELECT last_seq, last_hash FROM action_chain").fetchone()
    action = action._replace(seq=last_seq + 1)
    found = _hash(before, action)
    connection.execute(f"INSERT INTO action ({_COLUMNS}, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*action, found))  # noqa: S608 - constants only
    connection.execute("UPDATE action_chain SET last_seq = ?, last_hash = ?", (action.seq, found))
    return action.seq


def _append_and_drop(connection: sqlite3.Connection, *, action: Action, retention: Retention) -> None:
    """Dropped is what stands before the first that is young enough: a single row that a wrong clock dated back takes none with it."""
    last_seq = append(connection, action=action)
    young_ms = action.at_ms - int(retention.time_s * 1000)
    (first_seq,) = connection.execute("SELECT first_seq FROM action_chain").fetchone()
    (young_seq,) = connection.execute("SELECT seq FROM action WHERE at_ms >= ? ORDER BY seq LIMIT 1", (young_ms,)).fetchone()
    drop_seq = min(max(last_seq - retention.actions, young_seq - 1), first_seq - 1 + DROPPED_MAX)
    ended = connection.execute("SELECT seq, hash FROM action WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (drop_seq,)).fetchone()
    if ended is not None:
        connection.execute("DELETE FROM action WHERE seq <= ?", (ended[0],))
        connection.execute("UPDATE action_chain SET first_seq = ?, first_before = ?", (ended[0] + 1, ended[1]))


def _page(connection: sqlite3.Connection, *, since_ms: int, after: int, limit: int) -> list[Action]:
    sql = f"SELECT {_COLUMNS} FROM action WHERE seq > ? AND at_ms >= ? ORDER BY seq LIMIT ?"  # noqa: S608 - constants only
    return [Action(*row) for row in connection.execute(sql, (after, since_ms, limit))]


def _verify(connection: sqlite3.Connection) -> ActionChain:
    first, before, last_seq, last_hash = connection.execute("SELECT first_seq, first_before, last_seq, last_hash FROM action_chain").fetchone()
    expected = first
    for *columns, stored in connection.execute(f"SELECT {_COLUMNS}, hash FROM action ORDER BY seq"):  # noqa: S608 - constants only
        action = Action(*columns)
        before = _hash(before, action)
        if action.seq != expected or before != stored:
            return ActionChain(first, last_seq, bytes(last_hash), broken=min(action.seq, expected))
        expected += 1
    broken = None if (expected - 1, before) == (last_seq, last_hash) else expected
    return ActionChain(first, last_seq, bytes(last_hash), broken=broken)
