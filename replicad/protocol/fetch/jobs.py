"""A job: up to 4096 units that are missing here, and who has them. Two kinds, one bookkeeping.

``ContentJob`` is one large content; its units are chunks and a request takes neighbours (an extent). ``PackJob`` is a moving window over the small contents; its units are places in the window
and a request takes any of them (a batch). What a unit's state is - missing, under way, rare, suggested - stands in sets (``sets``), so choosing costs the same for 10 units and for 4096.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from enum import Enum
from heapq import heappop, heappush
from itertools import groupby

from replicad.model.chunks import EXTENT_CHUNKS_MAX, Extent, chunk_count, chunk_size_for
from replicad.model.entries import Wanted
from replicad.model.ids import STAMP_MAX, Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.claims import Claims
from replicad.protocol.fetch.config import BATCH_BYTES_MAX, COPIES_MAX, PACK_BYTES_MIN, PACK_MAX
from replicad.protocol.fetch.events import Priority, Target, small_of
from replicad.protocol.fetch.owners import Owners
from replicad.protocol.wire import BATCH_CONTENTS_MAX, Have, HaveMore, Small

Order = tuple[Priority, int, Digest]
"""What goes first: the better class, then the older entry."""


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

    def best(self, node: NodeId, free: int) -> int:
        """Of what is free, what should be taken from this peer first: what it suggests, else the rarest."""
        return self.suggested.get(node, 0) & free or self.rarity.least(free)


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

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.target = Target(wanted.content, wanted.manifest)
        self.chunk_size = chunk_size_for(wanted.size)
        self.count = chunk_count(wanted.size, self.chunk_size)
        super().__init__(sets.full(self.count))
        self.state = State.SEEKING
        self.rivals: set[NodeId] = set()
        self.since = 0.0
        self.benched_until = 0.0
        self.priority = Priority.NEW
        self.owners: Owners | None = None

    @property
    def order(self) -> Order:
        """By class, then oldest first."""
        return Priority.AWAITED if self.awaited else self.priority, self.wanted.hlc, self.wanted.content

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
        """What peers at this site have."""
        return sets.union(self.have.get(node, 0) for node in self.owners.near) if self.owners is not None else 0

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


class PackJob(Units):
    """The small contents looked for now, each in a place of its own that is used again when it is here."""

    def __init__(self, own: NodeId) -> None:
        super().__init__()
        self.claims = Claims(own)
        self.places: dict[Small, int] = {}
        """The place of each as a set of one."""
        self._wanted: list[Wanted | None] = [None] * PACK_MAX
        self._sizes = sets.Tally()
        self._since: list[float] = [0.0] * PACK_MAX
        self._empty = list(range(PACK_MAX - 1, -1, -1))
        self._ages: list[tuple[int, Digest, int]] = []
        self._classes: dict[Priority, int] = {}

    @property
    def room(self) -> int:
        """Places free."""
        return len(self._empty)

    @property
    def order(self) -> Order:
        """The best class in the window, and the age of its oldest content."""
        while self._ages and Small(*self._ages[0][1:]) not in self.places:
            heappop(self._ages)
        return self._best_class(self.reachable), *(self._ages[0][:2] if self._ages else (STAMP_MAX, Digest(bytes(32))))

    def _best_class(self, units: int) -> Priority:
        return next((priority for priority, ranked in sorted(self._classes.items()) if ranked & units), Priority.HEAL)

    def rank(self, units: int, priority: Priority) -> None:
        """These places are of that class."""
        self._classes = {other: ranked & ~units for other, ranked in self._classes.items() if ranked & ~units}
        if units:
            self._classes[priority] = self._classes.get(priority, 0) | units

    def behind(self, priority: Priority) -> int:
        """The missing units of worse classes that are not under way."""
        return sum(ranked for other, ranked in self._classes.items() if other > priority) & self.missing & ~self.flying.counted

    def add(self, many: Mapping[Small, Wanted], now: float, priority: Priority) -> None:
        """Give places to contents of one class, or want them again in the places they still have; there must be room."""
        new = {small: 1 << self._empty.pop() for small in many if small not in self.places}
        self.places.update(new)
        self.claims.add(new, now)
        for size, alike in groupby(sorted(new, key=lambda small: small.size), key=lambda small: small.size):
            self._sizes.put(self.units_of(alike), size)
        for small, wanted in many.items():
            at = self.places[small].bit_length() - 1
            self._wanted[at], self._since[at] = wanted, now
            if small in new:
                heappush(self._ages, (wanted.hlc, wanted.content, wanted.size))
        if len(self._ages) > 2 * PACK_MAX:
            self._ages = sorted((known.hlc, known.content, known.size) for known in self._wanted if known is not None)
        units = self.units_of(many)
        self.missing |= units
        self.rank(units, priority)

    def drop(self, units: int) -> None:
        """These are here, or not wanted any more: their places are free again, unless they are under way (then ``drop`` them again when that ended)."""
        self.got(units)
        units &= ~self.flying.counted
        self.rarity.clear(units)
        self.claims.drop(units)
        for node in self.have:
            self.have[node] &= ~units
        for place in sets.members(units):
            wanted = self._wanted[place]
            if wanted is not None:
                del self.places[small_of(wanted)]
                self._wanted[place] = None
                self._empty.append(place)

    def forget(self, node: NodeId) -> None:
        """The peer is gone."""
        super().forget(node)
        self.claims.forget(node)

    def free(self, node: NodeId, *, busy: bool = False) -> int:
        """While only this peer has something that is missing here, only that is taken from it, and of that what this node owns: others soon have the rest. A waiting client ignores that."""
        free = super().free(node, busy=busy)
        sole = self.have.get(node, 0) & self.missing & ~self.rarity.several
        return free & (self.late | self._classes.get(Priority.AWAITED, 0) | sole & ~self.claims.foreign) if sole else free

    def enough(self, free: int) -> bool:
        """Whether that is worth a request of its own, or most of what is left; else it waits for more while another one is under way."""
        count = free.bit_count()
        if self._best_class(free) is Priority.AWAITED:
            return True
        return count >= BATCH_CONTENTS_MAX or 4 * count >= self.missing.bit_count() or 2 * self.size_of(free) >= PACK_BYTES_MIN

    def units_of(self, contents: Iterable[Small]) -> int:
        """The places of those of them that have one."""
        return sets.union([self.places.get(small, 0) for small in contents])

    def wanted_of(self, units: int) -> list[Wanted]:
        """What stands in these places, in order of place."""
        return [wanted for place in sets.members(units) if (wanted := self._wanted[place]) is not None]

    def named(self, contents: Container[Digest], units: int) -> int:
        """Of these places those of such contents."""
        return sets.of(place for place in sets.members(units) if (wanted := self._wanted[place]) is not None and wanted.content in contents)

    def unheld(self, now: float, longer_than_s: float) -> int:
        """What nobody had for so long."""
        return sets.of(place for place in sets.members(self.missing & ~self.rarity.counted) if now - self._since[place] >= longer_than_s)

    def size_of(self, units: int) -> int:
        """Bytes of these contents."""
        return self._sizes.total(units)

    def take(self, node: NodeId, free: int, *, size_bytes: int, randrange: sets.RandRange) -> int:
        """Of the places ``free`` with this peer (some are), about that many bytes, at least one and at most a batch: the best class first, of that the rarest, starting anywhere among them."""
        chosen, budget, left = 0, min(size_bytes, BATCH_BYTES_MAX), BATCH_CONTENTS_MAX
        while free:
            pool = self.best(node, free & self._classes.get(self._best_class(free), free))
            place = sets.some(pool, randrange)
            later = pool >> place << place
            for unit in sets.members(later):
                wanted = self._wanted[unit]
                size = wanted.size if wanted is not None else 0
                if not left or (chosen and budget < size):
                    return chosen
                chosen, budget, left = chosen | 1 << unit, budget - size, left - 1
            free &= ~later
        return chosen


def chunks_of(message: Have | HaveMore, count: int) -> int:
    """The chunks that a message about a content of ``count`` chunks names."""
    if isinstance(message, HaveMore):
        return sets.of(message.chunks) & sets.full(count)
    return sets.full(count) if message.complete else sets.from_bitmap(message.bitmap, count)


Job = ContentJob | PackJob
