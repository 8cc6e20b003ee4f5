"""What this node remembers about other nodes: their heads, invitations it made, requests to join, offences; and small values that services keep."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from functools import partial

from replicad.catalog.answers import Blame, HeadRow, Invite, Pending
from replicad.catalog.state import State
from replicad.errors import ConflictError
from replicad.model.events import PeerBlamed
from replicad.model.ids import Digest, NodeId
from replicad.model.records import Envelope

PENDING_MAX = 64
BLAMES_PER_NODE_MAX = 100
BLAMES_MAX = 1000
DETAIL_MAX = 500


class Peers(State):
    """Part of ``Catalog``."""

    async def heads(self) -> list[HeadRow]:
        """The newest head of each (node, share)."""
        return await self._database.read(_heads)

    async def save_heads(self, heads: Iterable[tuple[NodeId, str, Envelope]]) -> None:
        """Replace the stored heads of these (node, share)."""
        rows = [(node, share, envelope.type, envelope.payload, envelope.key, envelope.signature) for node, share, envelope in heads]
        await self._write(partial(_save_heads, rows=rows))

    async def forget_heads(self, node: NodeId) -> None:
        """Drop every head of a node that is no member any more."""
        await self._write(lambda connection: _run(connection, "DELETE FROM head WHERE node = ?", node))

    async def add_invite(self, secret_hash: Digest, body: bytes, expires_ms: int) -> None:
        """Remember an invitation, durably. ConflictError if that secret is known already."""
        await self._write(partial(_add_invite, row=(secret_hash, body, expires_ms)), durable=True)

    async def invite(self, secret_hash: Digest) -> Invite | None:
        """An invitation, used, expired or not."""
        return await self._database.read(partial(_invite, secret_hash=secret_hash))

    async def use_invite(self, secret_hash: Digest, node: NodeId) -> bool:
        """Bind the invitation to the first key that asks, durably: True for that key, also when it asks again, False for any other and for an unknown invitation. Expiry is the caller's to judge."""
        return await self._write(partial(_use_invite, secret_hash=secret_hash, node=node), durable=True)

    async def add_pending(self, node: NodeId, body: bytes, now_ms: int) -> None:
        """Keep a request to join; a second one of that node replaces the first, and beyond 64 the oldest is dropped."""
        await self._write(partial(_add_pending, row=(node, body, now_ms)))

    async def pending(self) -> list[Pending]:
        """Requests to join, oldest first."""
        return await self._database.read(_pending)

    async def drop_pending(self, node: NodeId) -> None:
        """Forget a request."""
        await self._write(lambda connection: _run(connection, "DELETE FROM pending WHERE node = ?", node))

    async def blame(self, node: NodeId, offence: str, detail: str, now_ms: int) -> None:
        """Note an offence (the newest 100 of a node are kept, 500 characters of detail) and publish PeerBlamed."""
        row = (node, offence, detail[:DETAIL_MAX], now_ms)
        await self._write(partial(_blame, row=row), after=lambda _: self.on_event(PeerBlamed(node, offence, detail)))

    async def blames(self, node: NodeId | None = None) -> list[Blame]:
        """Offences of a member, or of all, newest first, at most 1000."""
        return await self._database.read(partial(_blames, node=node))

    async def meta(self, key: str) -> str | None:
        """A small value that a service keeps."""
        return await self._database.read(partial(_meta, key=key))

    async def set_meta(self, key: str, value: str, *, durable: bool = False) -> None:
        """Keep it. ``durable``: survives a power failure; for what somebody is told."""
        await self._write(
            lambda connection: _run(connection, "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", f"service/{key}", value),
            durable=durable,
        )


def _run(connection: sqlite3.Connection, sql: str, *values: object) -> None:
    connection.execute(sql, values)


def _heads(connection: sqlite3.Connection) -> list[HeadRow]:
    rows = connection.execute("SELECT node, share, type, payload, key, signature FROM head")
    return [HeadRow(NodeId(node), share, Envelope(type_, payload, NodeId(key), signature)) for node, share, type_, payload, key, signature in rows]


def _save_heads(connection: sqlite3.Connection, *, rows: Sequence[tuple[NodeId, str, str, bytes, NodeId, bytes]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?)", rows)


def _add_invite(connection: sqlite3.Connection, *, row: tuple[Digest, bytes, int]) -> None:
    if not connection.execute("INSERT INTO invite VALUES (?, ?, ?, NULL) ON CONFLICT DO NOTHING", row).rowcount:
        raise ConflictError("an invitation with this secret exists already")


def _invite(connection: sqlite3.Connection, *, secret_hash: Digest) -> Invite | None:
    row = connection.execute("SELECT body, expires_ms, used_by FROM invite WHERE secret_hash = ?", (secret_hash,)).fetchone()
    if row is None:
        return None
    body, expires_ms, used_by = row
    return Invite(secret_hash, body, expires_ms, NodeId(used_by) if used_by is not None else None)


def _use_invite(connection: sqlite3.Connection, *, secret_hash: Digest, node: NodeId) -> bool:
    return bool(connection.execute("UPDATE invite SET used_by = ?2 WHERE secret_hash = ?1 AND (used_by IS NULL OR used_by = ?2)", (secret_hash, node)).rowcount)


def _add_pending(connection: sqlite3.Connection, *, row: tuple[NodeId, bytes, int]) -> None:
    connection.execute("INSERT OR REPLACE INTO pending VALUES (?, ?, ?)", row)
    connection.execute("DELETE FROM pending WHERE node IN (SELECT node FROM pending ORDER BY asked_ms DESC, node LIMIT -1 OFFSET ?)", (PENDING_MAX,))


def _pending(connection: sqlite3.Connection) -> list[Pending]:
    rows = connection.execute("SELECT node, body, asked_ms FROM pending ORDER BY asked_ms, node")
    return [Pending(NodeId(node), body, asked_ms) for node, body, asked_ms in rows]


def _blame(connection: sqlite3.Connection, *, row: tuple[NodeId, str, str, int]) -> None:
    connection.execute("INSERT INTO blame (node, offence, detail, at_ms) VALUES (?, ?, ?, ?)", row)
    connection.execute(
        "DELETE FROM blame WHERE node = ?1 AND blame <= (SELECT blame FROM blame WHERE node = ?1 ORDER BY blame DESC LIMIT 1 OFFSET ?2)",
        (row[0], BLAMES_PER_NODE_MAX),
    )


def _blames(connection: sqlite3.Connection, *, node: NodeId | None) -> list[Blame]:
    where, values = ("", ()) if node is None else ("WHERE node = ?", (node,))
    rows = connection.execute(f"SELECT node, offence, detail, at_ms FROM blame {where} ORDER BY blame DESC LIMIT {BLAMES_MAX}", values)  # noqa: S608 - constants only
    return [Blame(NodeId(who), offence, detail, at_ms) for who, offence, detail, at_ms in rows]


def _meta(connection: sqlite3.Connection, *, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (f"service/{key}",)).fetchone()
    return None if row is None else str(row[0])
