"""One content that peers fetch: what of it can be served here, who has what, who got what first, what is suggested to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicad.model.chunks import Extent
from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import SPREAD_S, SUGGESTED_MAX, SUGGESTED_MIN, SUGGESTED_RUN, SUGGESTED_SHARE, SUGGESTED_WINDOW
from replicad.protocol.fetch.events import Target
from replicad.protocol.wire import Have


@dataclass(slots=True)
class Watcher:
    """A peer that fetches it, as sets of chunks: ``told`` to it, ``owns`` as it said or was sent, ``suggested`` and not asked for yet. ``near``: at this node's site."""

    near: bool = True
    told: int = 0
    owns: int = 0
    suggested: int = 0


@dataclass(slots=True)
class Watched:
    """``servable`` of ``count`` chunks can be served. ``given`` counts per chunk the copies that were sent or promised by a suggestion."""

    count: int
    servable: int
    watchers: dict[NodeId, Watcher] = field(default_factory=dict)
    given: sets.Tally = field(default_factory=sets.Tally)
    _first: dict[int, tuple[NodeId, float]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """All of it can be served."""
        return self.count > 0 and self.servable == sets.full(self.count)

    @property
    def owned(self) -> int:
        """The chunks that a watcher has, or is being sent."""
        return sets.union(watcher.owns for watcher in self.watchers.values())

    def have(self, target: Target) -> Have:
        """The message that says what can be served."""
        return Have(*target, bitmap=b"" if self.complete else sets.to_bitmap(self.servable, self.count), complete=self.complete)

    def gave(self, node: NodeId, extent: Extent, now: float) -> None:
        """A watcher is being sent these chunks. Only the first time counts: nobody keeps a chunk from others by asking for it again and again."""
        for chunk in extent.chunks:
            self._first.setdefault(chunk, (node, now))

    def spreads(self, node: NodeId, extent: Extent, now: float) -> bool:
        """Whether another watcher at our site got each of these chunks, and nobody before it, so short a time ago that this one will soon have them from there. Who has all to give gives the rest first."""
        if not self.complete or not self._is_near(node):
            return False
        firsts = [self._first.get(chunk, (node, now)) for chunk in extent.chunks]
        return all(first != node and now - since < SPREAD_S and self._is_near(first) for first, since in firsts)

    def _is_near(self, node: NodeId) -> bool:
        return node in self.watchers and self.watchers[node].near

    def suggest(self, watcher: Watcher, randrange: sets.RandRange) -> int:
        """New suggestions, once half of the old ones are used up: runs of chunks that were given least."""
        most = max(SUGGESTED_MIN, min(SUGGESTED_MAX, self.count // (SUGGESTED_SHARE * len(self.watchers))))
        room = most - watcher.suggested.bit_count()
        if room * 2 < most:
            return 0
        chosen = 0
        while room > 0 and (left := self.servable & ~watcher.owns & ~watcher.suggested & ~chosen):
            pool = self.given.least(left)
            first = sets.some(pool & sets.run(sets.lowest(pool), SUGGESTED_WINDOW), randrange)
            run = sets.run(first - first % SUGGESTED_RUN, SUGGESTED_RUN) & pool
            chosen |= run
            room -= run.bit_count()
            self.given.add(run)
        watcher.suggested |= chosen
        return chosen
