"""The pack: a moving window over the small contents. Its units are places in the window, and a request takes any of them (a batch)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from heapq import heappop, heappush
from itertools import groupby

from replicad.model.entries import Wanted
from replicad.model.ids import STAMP_MAX, Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import BATCH_BYTES, BATCH_BYTES_LEAST, BATCH_BYTES_MAX, PACK_MAX
from replicad.protocol.fetch.deferred import Deferred
from replicad.protocol.fetch.events import Priority, small_of
from replicad.protocol.fetch.jobs import ContentJob, Order, Units
from replicad.protocol.wire import BATCH_CONTENTS_MAX, Small


class PackJob(Units):
    """The small contents looked for now, each in a place of its own that is used again when it is here."""

    again_gain_s = 1.0
    """More than of a content: a batch is large. Simulated, 2,000 files of 64 KiB: four holders of which the slowest has a third of the rate 25.4 -> 24.4 s, four holders and eight nodes 6.4 -> 5.9 s; with 0.25 s a
    third more requests where all are equally fast, for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.deferred = Deferred()
        self.places: dict[Small, int] = {}
        """The place of each as a set of one."""
        self._wanted: list[Wanted | None] = [None] * PACK_MAX
        self._sizes = sets.Tally()
        self._since: list[float] = [0.0] * PACK_MAX
        self._empty = list(range(PACK_MAX - 1, -1, -1))
        self._ages: list[tuple[int, Digest, int]] = []
        self._classes: dict[Priority, int] = {}
        self._came_bytes = 0
        """Since nothing was missing."""

    @property
    def room(self) -> int:
        """Places free."""
        return len(self._empty)

    @property
    def order(self) -> Order:
        """The best class in the window, its turn, and the age of its oldest content."""
        while self._ages and Small(*self._ages[0][1:]) not in self.places:
            heappop(self._ages)
        best = self._best_class(self.reachable)
        return best, self.turn if best is Priority.AWAITED else 0, *(self._ages[0][:2] if self._ages else (STAMP_MAX, Digest(bytes(32))))

    def _best_class(self, units: int) -> Priority:
        return next((priority for priority, ranked in sorted(self._classes.items()) if ranked & units), Priority.HEAL)

    @property
    def awaited_next(self) -> int:
        """The contents that clients need now."""
        return self._classes.get(Priority.AWAITED, 0) & self.missing

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

    def got(self, units: int) -> None:
        """These are here now."""
        self._came_bytes += self.size_of(units & self.missing)
        super().got(units)
        if not self.missing:
            self._came_bytes = 0

    @property
    def part_bytes(self) -> int:
        """No batch asks for more than an even part, for each peer that has something, of what came, nor than two such parts of what nobody was asked for yet."""
        left_bytes = self.size_of(self.missing & ~self.flying.counted)
        return max(BATCH_BYTES_LEAST, min(self._came_bytes, 2 * left_bytes) // max(1, len(self.have)))

    @property
    def again_bytes(self) -> int:
        """So much of it is asked for a second time at once."""
        return min(BATCH_BYTES_LEAST, self.size_of(self.missing))

    def drop(self, units: int) -> None:
        """These are here, or not wanted any more: their places are free again, unless they are under way (then ``drop`` them again when that ended)."""
        self.got(units)
        units &= ~self.flying.counted
        self.rarity.clear(units)
        self.deferred.drop(units)
        for node in self.have:
            self.have[node] &= ~units
        for place in sets.members(units):
            wanted = self._wanted[place]
            if wanted is not None:
                del self.places[small_of(wanted)]
                self._wanted[place] = None
                self._empty.append(place)

    def learn(self, node: NodeId, units: int) -> int:
        """The peer has these as well: whoever was given them passes them on, or somebody else does."""
        news = super().learn(node, units)
        self.deferred.drop(news)
        return news

    def free(self, node: NodeId, *, busy: bool = False) -> int:
        """While only this peer has something that is missing here, only that is taken from it, since others soon have the rest; and not what it just gave to others, who soon have that."""
        free = super().free(node, busy=busy)
        sole = self.have.get(node, 0) & self.missing & ~self.rarity.several
        return free & (sole & ~self.deferred.waiting | self._firm) if sole else free

    @property
    def unasked(self) -> int:
        """The same without what others were given, who pass it on."""
        return super().unasked & ~self.deferred.waiting

    def patient(self, units: int) -> bool:
        """Whether these need not come from their only holder if it just gave them to another: nobody waits for them."""
        return not units & (self.rarity.several | self._firm)

    @property
    def _firm(self) -> int:
        """What must come from whoever has it."""
        return self.late | self.deferred.in_vain | self.awaited_next

    def enough(self, free: int, size_bytes: int) -> bool:
        """Whether that is worth a request of its own (half of ``size_bytes`` that one may ask for, or of ``BATCH_BYTES``), or most of what is left; else it waits for more while another one is under way."""
        count = free.bit_count()
        if self._best_class(free) is Priority.AWAITED:
            return True
        return count >= BATCH_CONTENTS_MAX or 4 * count >= self.missing.bit_count() or 2 * self.size_of(free) >= min(size_bytes, BATCH_BYTES)

    def units_of(self, contents: Iterable[Small]) -> int:
        """The places of those of them that have one."""
        return sets.union([self.places.get(small, 0) for small in contents])

    def wanted_of(self, units: int) -> list[Wanted]:
        """What stands in these places, in order of place."""
        return [wanted for place in sets.members(units) if (wanted := self._wanted[place]) is not None]

    def named(self, contents: Container[Digest], units: int) -> int:
        """Of these places those of such contents."""
        return sets.of(place for place in sets.members(units) if (wanted := self._wanted[place]) is not None and wanted.content in contents)

    @property
    def unheld(self) -> int:
        """What is missing and nobody has."""
        return self.missing & ~self.rarity.counted

    def since_of(self, units: int) -> list[tuple[Wanted, float]]:
        """What stands in these places, and since when."""
        return [(wanted, self._since[place]) for place in sets.members(units) if (wanted := self._wanted[place]) is not None]

    def size_of(self, units: int) -> int:
        """Bytes of these contents."""
        return self._sizes.total(units)

    def take(self, _node: NodeId, free: int, *, size_bytes: int, randrange: sets.RandRange) -> int:
        """Of the places ``free`` with this peer (some are), about that many bytes, at least one and at most a batch: what clients wait for alone, else the best class first, of that the rarest, starting anywhere among them."""
        firm = free & self._firm
        if awaited := free & self.awaited_next:
            free = awaited
        elif firm and free & ~(firm | self.rarity.several):
            free = firm  # with what can wait in the same request, that would not be asked for patiently
        chosen, budget, left = 0, min(size_bytes, BATCH_BYTES_MAX), BATCH_CONTENTS_MAX
        while free:
            pool = self.rarity.least(free & self._classes.get(self._best_class(free), free))
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


Job = ContentJob | PackJob
