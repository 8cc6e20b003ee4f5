"""Anti-entropy: two linked nodes find out what one of them lacks, at a cost of the number of authors concerned plus the missing records.

    Compare    the frontier hash of every common share            -> Compared (same, differ) and a Frontier per share that differs
    Frontier   the lines (origin: ends of its chain) that may be
               news to the receiver                               -> a Frontier with the lines that may be news to the sender; Pulls
    Pull       what the asker has of one chain                    -> Records, in chain order, in bounded batches (``pulls``)

Only lines that changed since both sides were last equal are sent (each node counts its own changes; nothing is negotiated). If that does not lead to equality - a restored backup, a lost
message - the next Compare asks for whole frontiers. When the pulls of a share are done it is compared again, until it is equal or nothing more comes; then the next round tries.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.protocol.gossip.events import Agreed, Effect, Tell
from replicad.protocol.wire import LINES_PER_MESSAGE_MAX, Compare, Compared, Frontier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replicad.model.ids import Digest, NodeId
    from replicad.model.records import Record
    from replicad.protocol.chains import Chains
    from replicad.protocol.gossip.pulls import Pulls
    from replicad.protocol.gossip.rights import Rights
    from replicad.protocol.wire import End

ENDS_PER_MESSAGE = 8192
"""Ends of chains in one Frontier message (about 50 bytes each): a long frontier goes in parts of less than half a frame."""
SYNCED_MAX = 65_536
ANSWER_MS = 5_000
"""A comparison that was not answered for so long is taken for lost."""


@dataclass
class _Side:
    """What is known about one linked peer. ``asked``: shares compared and not yet answered, with the change count then; ``asked_ms``: when, the last time. ``unequal``: shares known to differ, with our frontier hash then.
    ``stuck``: those of them for which changed lines did not help. ``equal``: shares that were the same when last compared. ``whole``: those asked for with all lines. ``waiting``: those of which something is to be pulled.
    """

    asked: dict[str, int] = field(default_factory=dict)
    asked_ms: int = -ANSWER_MS
    unequal: dict[str, Digest] = field(default_factory=dict)
    equal: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)


class Exchange:
    """The conversation about frontiers with every linked peer."""

    def __init__(self, rights: Rights, chains: Chains, pulls: Pulls) -> None:
        self._rights = rights
        self._chains = chains
        self._pulls = pulls
        self._sides: dict[NodeId, _Side] = {}
        self._changes = 0
        self._changed: dict[str, dict[NodeId, int]] = {}
        self._synced: OrderedDict[tuple[NodeId, str], int] = OrderedDict()

    def open(self, node: NodeId) -> None:
        """A link begins."""
        self._sides[node] = _Side()

    def close(self, node: NodeId) -> None:
        """A link ended."""
        self._sides.pop(node, None)

    def committed(self, records: Iterable[Record]) -> None:
        """Count changes per line."""
        for record in records:
            self._changes += 1
            self._changed.setdefault(record.header.share, {})[record.header.origin] = self._changes

    def compare(self, node: NodeId, shares: Sequence[str], now_ms: int, out: list[Effect]) -> None:
        """Begin an exchange about these shares. Those for which the last one did not help are compared with whole frontiers."""
        side = self._sides[node]
        side.asked_ms = now_ms
        plain = {share: self._chains.frontier_hash(share) for share in shares if share not in side.stuck}
        stuck = {share: self._chains.frontier_hash(share) for share in shares if share in side.stuck}
        side.asked.update(dict.fromkeys([*plain, *stuck], self._changes))
        side.whole = (side.whole - plain.keys()) | stuck.keys()
        for frontiers, whole in ((plain, False), (stuck, True)):
            if frontiers:
                out.append(Tell(node, Compare(frontiers, whole)))

    def heard_compare(self, node: NodeId, message: Compare, now_ms: int, out: list[Effect]) -> None:
        """Answer a comparison. No frontier for what is being pulled from that peer anyway, nor for what both sides compared at the same moment: the smaller node id's exchange goes on."""
        side = self._sides[node]
        shares = [share for share in message.frontiers if self._rights.may_share(node, share)]
        same = tuple(share for share in shares if message.frontiers[share] == self._chains.frontier_hash(share))
        differ = tuple(share for share in shares if share not in same)
        out.append(Tell(node, Compared(same, differ)))
        for share in same:
            self._equal(node, side, share, self._changes)
        crossed = side.asked.keys() if self._rights.own < node and now_ms - side.asked_ms < ANSWER_MS else ()
        for share in differ:
            self._unequal(side, share)
            if share not in side.waiting and share not in crossed:
                self._tell_frontier(node, share, whole=message.whole, out=out)
        self._agreed(node, side, out)

    def heard_compared(self, node: NodeId, message: Compared, out: list[Effect]) -> None:
        """Take the answer to a comparison."""
        side = self._sides[node]
        for share in message.same:
            if (changes := side.asked.pop(share, None)) is not None:
                self._equal(node, side, share, changes)
        for share in message.differ:
            if side.asked.pop(share, None) is not None:
                self._unequal(side, share)
        self._agreed(node, side, out)

    def heard_frontier(self, node: NodeId, message: Frontier, now_ms: int, out: list[Effect]) -> None:
        """Pull what the lines show to be missing here; answer, if asked, with the lines that may be news there."""
        if not self._rights.may_share(node, message.share):
            return
        if self._pulls.want(node, message.share, message.lines):
            self._sides[node].waiting.add(message.share)
        if message.reply:
            self._answer_frontier(node, message, out)
        self._pulls.pump(node, now_ms, out)

    def settle(self, now_ms: int, out: list[Effect]) -> None:
        """Where nothing more is to be pulled from a peer: compare again if that helped, or ask for everything if changed lines did not."""
        for node, side in self._sides.items():
            for share in sorted(share for share in side.waiting if self._pulls.idle(node, share)):
                side.waiting.discard(share)
                if share not in side.unequal or not self._rights.may_share(node, share):
                    continue
                helped = side.unequal[share] != self._chains.frontier_hash(share)
                was_whole = share in side.whole
                if not helped:
                    side.stuck.add(share)
                if helped or not was_whole:
                    self.compare(node, [share], now_ms, out)

    def look(self, node: NodeId, share: str, now_ms: int, out: list[Effect]) -> None:
        """Compare one share because the peer seems to have more, unless that is under way."""
        side = self._sides[node]
        if share not in side.waiting and (share not in side.asked or now_ms - side.asked_ms >= ANSWER_MS):
            self.compare(node, [share], now_ms, out)

    def round(self, node: NodeId, now_ms: int, out: list[Effect]) -> None:
        """The periodic exchange with one peer, about everything that is not being pulled anyway. What still differs since the last one is compared with whole frontiers."""
        side = self._sides[node]
        side.stuck |= side.unequal.keys() - side.waiting
        self.compare(node, [share for share in self._rights.shares_with(node) if share not in side.waiting], now_ms, out)

    def _equal(self, node: NodeId, side: _Side, share: str, changes: int) -> None:
        side.equal.add(share)
        side.unequal.pop(share, None)
        side.stuck.discard(share)
        self._synced[node, share] = changes
        self._synced.move_to_end((node, share))
        if len(self._synced) > SYNCED_MAX:
            self._synced.popitem(last=False)

    def _unequal(self, side: _Side, share: str) -> None:
        side.unequal[share] = self._chains.frontier_hash(share)
        side.equal.discard(share)

    def _agreed(self, node: NodeId, side: _Side, out: list[Effect]) -> None:
        if not side.unequal and side.equal.issuperset(self._rights.shares_with(node)):
            out.append(Agreed(node))

    # -- frontiers ----------------------------------------------------------------------------------------------------------------------------------

    def _news_for(self, node: NodeId, share: str) -> set[NodeId]:
        """The origins whose lines changed here since both were equal; all of them if they never were."""
        base = self._synced.get((node, share))
        if base is None:
            return set(self._chains.frontier(share))
        return {origin for origin, changes in self._changed.get(share, {}).items() if changes > base}

    def _tell_frontier(self, node: NodeId, share: str, *, whole: bool, out: list[Effect]) -> None:
        frontier = self._chains.frontier(share)
        whole = whole or (node, share) not in self._synced
        origins = sorted(frontier) if whole else sorted(self._news_for(node, share))
        for part, after, until in _parts(origins, frontier):
            out.append(Tell(node, Frontier(share, part, whole=whole, reply=True, after=after if whole else b"", until=until if whole else b"")))

    def _answer_frontier(self, node: NodeId, message: Frontier, out: list[Effect]) -> None:
        frontier = self._chains.frontier(message.share)
        if message.whole:
            origins = {origin for origin in frontier if message.after < origin and (not message.until or origin <= message.until)}
        else:
            origins = self._news_for(node, message.share) | message.lines.keys()
        news = [origin for origin in sorted(origins) if origin in frontier and not _covered(frontier[origin], message.lines.get(origin, ()))]
        for part, _, _ in _parts(news, frontier) if news else ():
            out.append(Tell(node, Frontier(message.share, part)))


def _covered(ours: Iterable[End], theirs: Iterable[End]) -> bool:
    """Whether somebody with these ends certainly has all of ours: the same record, or a later one of the same incarnation."""
    last = {end.incarnation: end.seq for end in theirs}
    ids = {end.id for end in theirs}
    return all(end.id in ids or last.get(end.incarnation, 0) > end.seq for end in ours)


def _parts(origins: Sequence[NodeId], frontier: dict[NodeId, tuple[End, ...]]) -> Iterator[tuple[dict[NodeId, tuple[End, ...]], bytes, bytes]]:
    """Lines in messages of bounded size, each with its bounds (after, until); one empty message if there are none."""
    part: dict[NodeId, tuple[End, ...]] = {}
    ends, after = 0, b""
    for origin in origins:
        line = frontier.get(origin, ())
        if not line:
            continue
        if len(part) >= LINES_PER_MESSAGE_MAX or ends + len(line) > ENDS_PER_MESSAGE:
            until = bytes(max(part))
            yield part, after, until
            part, ends, after = {}, 0, until
        part[origin] = line
        ends += len(line)
    yield part, after, b""
