"""A job: up to 4096 units that are missing here, and who has them. Two kinds, one bookkeeping.

``ContentJob`` is one large content; its units are chunks and a request takes neighbours (an extent). The other kind is the pack of small contents (``pack``). What a unit's state is - missing, under way, rare, suggested - stands in sets (``sets``), so choosing costs the same for 10 units and for 4096.
"""

from __future__ import annotations

from collections.abc import Container
from enum import Enum

from replicad.model.chunks import EXTENT_CHUNKS_MAX, Extent, chunk_count, chunk_size_for
from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import COPIES_MAX
from replicad.protocol.fetch.events import Priority, Target
from replicad.protocol.fetch.owners import Owners
from replicad.protocol.wire import Have, HaveMore

Order = tuple[Priority, int, int, Digest]
"""What goes first: the better class; of what clients wait for that whose turn was longest ago, so that a large one keeps no small one waiting; then the older entry."""


class Units:
    """Which units are missing, under way, held by whom."""

    def __init__(self, missing: int = 0) -> None:
        self.missing = missing
        self.flying = sets.Tally()
        self.late = 0
        self.have: dict[NodeId, int] = {}
        self.suggested: dict[NodeId, int] = {}
        self.rarity = sets.Tally()
        self.awaited: tuple[int, ...] = ()
        self.rivals: set[NodeId] = set()
        """Peers that fetch the same; small contents: that seek any."""
        self.turn = 0
        """The number of the last request for any of these."""

    def learn(self, node: NodeId, units: int) -> int:
        """The peer has these as well; returns those of them that are missing here and news."""
        known = self.have.get(node, 0)
        news = units & ~known
        self.have[node] = known | news
        self.rarity.add(news)
        return news & self.missing

    def unlearn(self, node: NodeId, units: int) -> None:
        """The peer lacks these after all."""
        gone = self.have.get(node, 0) & units
        if gone:
            self.have[node] &= ~gone
            self.rarity.remove(gone)

    def suggest(self, node: NodeId, units: int) -> None:
        """The peer proposes these: it has sent them least."""
        self.suggested[node] = self.suggested.get(node, 0) | units

    def forget(self, node: NodeId) -> None:
        """The peer is gone."""
        self.rarity.remove(self.have.pop(node, 0))
        self.suggested.pop(node, None)

    def got(self, units: int) -> None:
        """These are here now."""
        self.missing &= ~units
        self.late &= ~units

    def start(self, units: int) -> None:
        """A request for these begins."""
        self.flying.add(units)
        self.late &= ~units

    def end(self, units: int) -> None:
        """A request for these ended, one way or the other."""
        self.flying.remove(units)
        self.late &= self.flying.counted

    def overdue(self, units: int) -> None:
        """The request for these takes too long: somebody else may be asked as well, as long as fewer than ``COPIES_MAX`` are under way."""
        self.late |= sets.of(unit for unit in sets.members(units & self.missing) if self.flying.of(unit) < COPIES_MAX)

    def free(self, node: NodeId, *, busy: bool = False) -> int:
        """What this peer could be asked for: missing here, there, and not under way (or late). What a peer that suggests did not suggest to us it suggested to others: as long as it is
        ``busy`` for us, we wait for its next suggestions, unless a client waits.
        """
        free = self.have.get(node, 0) & self.missing & (~self.flying.counted | self.late)
        suggested = self.suggested.get(node, 0)
        return 0 if busy and suggested and not suggested & free and not self.awaited else free

    @property
    def awaited_next(self) -> int:
        """The units that clients need now, one for each place where one waits."""
        return sets.of(at + sets.lowest(self.missing >> at) for at in self.awaited if self.missing >> at)

    @property
    def sources(self) -> list[NodeId]:
        """Peers that have something that is missing here."""
        return [node for node, have in self.have.items() if have & self.missing]

    @property
    def reachable(self) -> int:
        """The missing units that somebody has."""
        return self.rarity.counted & self.missing

    @property
    def unasked(self) -> int:
        """The missing units that somebody has and nobody was asked for."""
        return self.reachable & ~self.flying.counted


class State(Enum):
    """Where a large content stands. SEEKING: holders are looked for. OPENING: the own disk is asked. NAMELESS: the manifest is asked for. ACTIVE: chunks come. FINISHING: the whole is checked."""

    SEEKING = "seeking"
    OPENING = "opening"
    NAMELESS = "nameless"
    ACTIVE = "active"
    FINISHING = "finishing"


class ContentJob(Units):
    """One content of more than one chunk. ``awaited``: clients wait for these chunks and what follows each; an extent for one is no longer than its distance from the client, so that what is read next is not
    delayed by what is read later.
    """

    again_gain_s = 0.25
    """Nothing is asked for a second time unless it comes so much earlier: on a fast network the first is nearly done before the second has begun (a guess)."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.target = Target(wanted.content, wanted.manifest)
        self.chunk_size = chunk_size_for(wanted.size)
        self.count = chunk_count(wanted.size, self.chunk_size)
        super().__init__(sets.full(self.count))
        self.state = State.SEEKING
        self.since = 0.0
        self.benched_until = 0.0
        self.priority = Priority.NEW
        self.owners: Owners | None = None

    @property
    def again_bytes(self) -> int:
        """So much of it is asked for a second time at once."""
        return self.chunk_size

    @property
    def order(self) -> Order:
        """By class, then in turn, then oldest first."""
        priority, turn = (Priority.AWAITED, self.turn) if self.awaited else (self.priority, 0)
        return priority, turn, self.wanted.hlc, self.wanted.content

    def free(self, node: NodeId, *, busy: bool = False) -> int:
        """Of a peer at another site only chunks that this node owns and nobody here has, unless a client waits or whoever is asked is late."""
        if self.owners is None or self.awaited or node in self.owners.near:
            return super().free(node, busy=busy)
        return super().free(node) & (self.owners.mine & ~self.near | self.late)

    @property
    def due(self) -> float:
        """When it must be looked at although nothing happened; 0: never."""
        return self.owners.due if self.state is State.ACTIVE and self.owners is not None else self.benched_until if self.state is State.SEEKING else 0.0

    @property
    def near(self) -> int:
        """What peers at this site have, and give."""
        return sets.union(self.have.get(node, 0) for node in self.owners.giving) if self.owners is not None else 0

    def forget(self, node: NodeId) -> None:
        """The peer is gone, and owns nothing any more."""
        super().forget(node)
        if self.owners is not None:
            self.owners.skip(node)

    def told(self, node: NodeId, message: Have | HaveMore) -> bool:
        """Take up what a peer has of it; True if something of that is missing here."""
        named = chunks_of(message, self.count)
        if isinstance(message, HaveMore):
            self.suggest(node, sets.of(message.suggest) & sets.full(self.count))
        else:
            self.unlearn(node, ~named & sets.full(self.count))
        return bool(self.learn(node, named)) or (isinstance(message, HaveMore) and bool(self.suggested.get(node, 0) & self.missing))

    def size_of(self, units: int) -> int:
        """Bytes of these chunks."""
        size = units.bit_count() * self.chunk_size
        if units >> (self.count - 1) & 1:
            size -= self.count * self.chunk_size - self.wanted.size
        return size

    def take(self, node: NodeId, free: int, *, size_bytes: int, randrange: sets.RandRange) -> int:
        """Of the chunks that are ``free`` with this peer (some are), neighbours of about that size, at least one.

        Clients who wait come first, whoever is nearest to what is not there yet. Alone, in order, as files are written and read best. With others fetching the same, everybody in order would be the
        mistake: what was suggested to us comes in order, the rest at random among the rarest.
        """
        longest = max(1, min(size_bytes // self.chunk_size, EXTENT_CHUNKS_MAX))
        ahead = min(((sets.lowest(free >> at), at) for at in self.awaited if free >> at), default=None)
        if ahead is not None:
            first = sum(ahead)
            return sets.run(first, sets.run_length(free >> first, min(longest, ahead[0] + 1)))
        if not self.rivals:
            first = sets.lowest(free)
            return sets.run(first, sets.run_length(free >> first, longest))
        if pool := self.suggested.get(node, 0) & free:
            first = sets.lowest(pool)
        else:
            pool = self.rarity.least(free)
            first = sets.some(pool, randrange)
        while first % longest and pool >> (first - 1) & 1:
            first -= 1
        return sets.run(first, sets.run_length(pool >> first, longest))

    def named(self, contents: Container[Digest], units: int) -> int:
        """Of these units those of such contents: all or none."""
        return units if self.target.content in contents else 0

    def extent(self, units: int) -> Extent:
        """The same as an extent."""
        return Extent(sets.lowest(units), units.bit_count())


def chunks_of(message: Have | HaveMore, count: int) -> int:
    """The chunks that a message about a content of ``count`` chunks names."""
    if isinstance(message, HaveMore):
        return sets.of(message.chunks) & sets.full(count)
    return sets.full(count) if message.complete else sets.from_bitmap(message.bitmap, count)
