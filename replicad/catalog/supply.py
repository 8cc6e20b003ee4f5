"""Which content this node should hold and does not: the table ``wanted``, kept exact in the same transaction as whatever changes it.

Content is wanted when a live entry in a stage that this node carries names it - a winner, or a sibling that lost a conflict, so that nothing depends on the node that published it - and no takedown
stands on it. Functions of the writer's connection, called inside its transactions only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from replicad.catalog.rows import for_all
from replicad.model.ids import Digest, NodeId
from replicad.protocol.replica import Replica

_OTHERS = "SELECT wanted.record FROM entry AS other JOIN wanted ON wanted.record = other.record WHERE other.content = {content} AND other.counts = 1"
WANT = f"""
INSERT INTO wanted (record, share, origin, hlc, content, manifest, size_bytes, in_share, in_all)
SELECT entry.record, entry.share, run.origin, record.hlc, entry.content, entry.manifest, entry.size_bytes,
    lag(entry.share) OVER alike IS NOT entry.share AND NOT EXISTS ({_OTHERS.format(content="entry.content")} AND other.share = entry.share),
    lag(entry.share) OVER alike IS NULL AND NOT EXISTS ({_OTHERS.format(content="entry.content")})
FROM entry JOIN record ON record.record = entry.record JOIN run ON run.run = record.run
WHERE entry.record IN (?) AND entry.content IS NOT NULL
  AND EXISTS (SELECT 1 FROM carried WHERE carried.share = entry.share AND carried.stage = entry.stage)
  AND NOT EXISTS (SELECT 1 FROM held WHERE held.content = entry.content)
  AND NOT EXISTS (SELECT 1 FROM taken_down WHERE taken_down.content = entry.content)
WINDOW alike AS (PARTITION BY entry.content ORDER BY entry.share)
"""  # noqa: S608 - constants only
UNWANT = "DELETE FROM wanted WHERE record = ? RETURNING content, share, in_share, in_all"
HEIR_IN_SHARE = f"UPDATE wanted SET in_share = 1 WHERE record = ({_OTHERS.format(content='?')} AND other.share = ? LIMIT 1)"  # noqa: S608 - constants only
HEIR_IN_ALL = f"UPDATE wanted SET in_all = 1 WHERE record = ({_OTHERS.format(content='?')} LIMIT 1)"  # noqa: S608 - constants only
FOUND = "DELETE FROM wanted WHERE record IN (SELECT record FROM entry WHERE content IN (?) AND counts = 1)"
LIVE_OF = "SELECT record FROM entry WHERE content = ? AND counts = 1 AND live = 1"
LIVE_AT = """
SELECT entry.record FROM register JOIN entry ON entry.register = register.register AND entry.live = 1
WHERE register.winner IS NOT NULL AND register.share = ? AND register.stage = ? AND entry.content IS NOT NULL
"""
WANTED_AT = "SELECT wanted.record FROM wanted JOIN entry ON entry.record = wanted.record WHERE wanted.share = ? AND entry.stage = ?"

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


def want(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    """These record numbers have just become live, or interesting otherwise: their contents are wanted if carried and not held. One of those that name the same content is counted, the first."""
    for_all(connection, WANT, numbers)


def unwant(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """These record numbers are live no more, or not carried: what only they named is wanted no more. If they stood for others in the totals, one of those takes over."""
    for record in numbers:
        for content, share, in_share, in_all in connection.execute(UNWANT, (record,)).fetchall():
            if in_share:
                connection.execute(HEIR_IN_SHARE, (content, share))
            if in_all:
                connection.execute(HEIR_IN_ALL, (content,))


def found(connection: sqlite3.Connection, contents: Iterable[Digest]) -> None:
    """These contents are held now, or must not be."""
    for_all(connection, FOUND, list(contents))


def lost(connection: sqlite3.Connection, content: Digest) -> None:
    """This content is not held any more, or may be served again."""
    want(connection, _numbers(connection, LIVE_OF, content))


def take_down(connection: sqlite3.Connection, contents: Iterable[Digest]) -> None:
    """Takedowns stand on exactly these contents now."""
    before = {Digest(content) for (content,) in connection.execute("SELECT content FROM taken_down")}
    now = set(contents)
    connection.executemany("DELETE FROM taken_down WHERE content = ?", ((content,) for content in before - now))
    connection.executemany("INSERT INTO taken_down (content) VALUES (?)", ((content,) for content in now - before))
    found(connection, now - before)
    for content in before - now:
        lost(connection, content)


def carry(connection: sqlite3.Connection, places: Places) -> set[str]:
    """The stages this node carries are these now. Returns the shares in which that is a change. Costs one walk over the registers of a share for each added stage of it, and one over the
    wanted contents of a share for each lost one: rare, since only this node's grant and the shares' policies move it.
    """
    before = set(connection.execute("SELECT share, stage FROM carried"))
    now = {(share, stage) for share, stages in places.items() for stage in stages}
    connection.executemany("DELETE FROM carried WHERE share = ? AND stage = ?", before - now)
    connection.executemany("INSERT INTO carried (share, stage) VALUES (?, ?)", now - before)
    for place in before - now:
        unwant(connection, _numbers(connection, WANTED_AT, *place))
    for place in now - before:
        want(connection, _numbers(connection, LIVE_AT, *place))
    return {share for share, _ in before ^ now}


def _numbers(connection: sqlite3.Connection, sql: str, *values: object) -> list[int]:
    return [number for (number,) in connection.execute(sql, values)]
