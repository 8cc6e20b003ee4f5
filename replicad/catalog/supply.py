"""Which content this node should hold and does not: the table ``wanted``, kept exact in the same transaction as whatever changes it.

Content is wanted when a winner in a stage that this node carries names it. Functions of the writer's connection, called inside its transactions only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from replicad.model.ids import Digest, NodeId
from replicad.protocol.replica import Replica

_NAMED = """
SELECT entry.content, entry.manifest, entry.size_bytes, entry.share, record.hlc
FROM entry JOIN record ON record.record = entry.record
WHERE {where} AND entry.wins = 1
  AND EXISTS (SELECT 1 FROM carried WHERE carried.share = entry.share AND carried.stage = entry.stage)
  AND NOT EXISTS (SELECT 1 FROM held WHERE held.content = entry.content)
"""
_UPSERT = "INSERT INTO wanted (content, manifest, size_bytes, share, hlc) {rows} ON CONFLICT DO UPDATE SET hlc = min(hlc, excluded.hlc)"

WANT_RECORD = _UPSERT.format(rows=_NAMED.format(where="entry.record = ?"))
WANT_CONTENT = _UPSERT.format(rows=_NAMED.format(where="entry.content = ? AND entry.counts = 1"))
WANT_PLACE = _UPSERT.format(rows=_NAMED.format(where="entry.record IN (SELECT winner FROM register WHERE share = ? AND stage = ? AND winner IS NOT NULL)"))
OLDEST = """
SELECT min(record.hlc)
FROM entry JOIN record ON record.record = entry.record
WHERE entry.content = ?1 AND entry.counts = 1 AND entry.share = ?4 AND entry.wins = 1 AND entry.manifest = ?2 AND entry.size_bytes = ?3
  AND EXISTS (SELECT 1 FROM carried WHERE carried.share = entry.share AND carried.stage = entry.stage)
"""

Places = Mapping[str, tuple[str, ...]]
"""Share name to the stages of it that this node carries, lowest first."""


def carried_places(replica: Replica, node: NodeId, now_ms: int) -> dict[str, tuple[str, ...]]:
    """What the node's grants in force let it carry of the shares that exist; nothing while it is no member."""
    member = replica.trust.members(now_ms).get(node)
    if member is None:
        return {}
    return {
        name: tuple(stage for stage in share.stages if member.carries(name, stage)) for name, share in replica.trust.shares().items() if member.has_share(name)
    }


def want(connection: sqlite3.Connection, winners: Iterable[int]) -> None:
    """These record numbers have just won their registers."""
    connection.executemany(WANT_RECORD, ((record,) for record in winners))


def unwant(connection: sqlite3.Connection, losers: Sequence[int]) -> None:
    """These record numbers win no more: what only they named is wanted no more."""
    for record in losers:
        row = connection.execute("SELECT content, manifest, size_bytes, share FROM entry WHERE record = ?", (record,)).fetchone()
        _judge_again(connection, row)


def found(connection: sqlite3.Connection, contents: Iterable[Digest]) -> None:
    """These contents are held now."""
    connection.executemany("DELETE FROM wanted WHERE content = ?", ((content,) for content in contents))


def lost(connection: sqlite3.Connection, content: Digest) -> None:
    """This content is not held any more."""
    connection.execute(WANT_CONTENT, (content,))


def carry(connection: sqlite3.Connection, places: Places) -> set[str]:
    """The stages this node carries are these now. Returns the shares in which that is a change. Costs one walk over the registers of an added (share, stage), and over the wanted
    contents of a share that lost one: rare, since only this node's grant and the shares' policies move it.
    """
    before = set(connection.execute("SELECT share, stage FROM carried"))
    now = {(share, stage) for share, stages in places.items() for stage in stages}
    connection.executemany("DELETE FROM carried WHERE share = ? AND stage = ?", before - now)
    connection.executemany("INSERT INTO carried (share, stage) VALUES (?, ?)", now - before)
    for share in {share for share, _ in before - now}:
        rows = connection.execute("SELECT content, manifest, size_bytes, share FROM wanted WHERE share = ?", (share,)).fetchall()
        for row in rows:
            _judge_again(connection, row)
    connection.executemany(WANT_PLACE, now - before)
    return {share for share, _ in before ^ now}


def _judge_again(connection: sqlite3.Connection, row: tuple[bytes, bytes, int, str]) -> None:
    """A row of ``wanted`` whose reason may be gone: keep it with the oldest reason that is left, or drop it."""
    (hlc,) = connection.execute(OLDEST, row).fetchone()
    if hlc is None:
        connection.execute("DELETE FROM wanted WHERE content = ? AND manifest = ? AND size_bytes = ? AND share = ?", row)
    else:
        connection.execute("UPDATE wanted SET hlc = ?5 WHERE content = ?1 AND manifest = ?2 AND size_bytes = ?3 AND share = ?4", (*row, hlc))
