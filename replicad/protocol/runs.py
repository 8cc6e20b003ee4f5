"""One origin in one share: the tree that its records form, as runs.

Each record names its predecessor, so the records of a chain form a tree, normally a single line. A ``Run`` is an unbroken piece of one incarnation; a ``Tree`` is all runs of one chain. What it answers
is a function of the set of records, never of the order in which they came.

**Equivocation.** An incarnation is written by one process, hence a line. Two records at one position of it, or two openings of it, prove that somebody lied or that a running machine was cloned. From
that position on the incarnation, and whatever descends from it, is *void*; what that means for rights is for ``trust``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from replicad.model.ids import Stamp
from replicad.protocol.wire import End

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicad.model.ids import NodeId, RecordId

ENDS_MAX = 64
"""Ends of one chain that a frontier names, and runs that a Pull names: the newest. An honest chain has one end, and one more for each restored backup."""


class Place(NamedTuple):
    """Where a stored record stands: the number of its run, its seq and hlc."""

    run: int
    seq: int
    hlc: Stamp


class Segment(NamedTuple):
    """The records ``first_seq`` to ``last_seq`` of a run."""

    run: int
    first_seq: int
    last_seq: int


class Fork(NamedTuple):
    """Proof that a key is used twice: an incarnation that is no line from ``seq`` on. ``witnesses`` are the last records of segments, one on each branch; ``last_hlc`` is the newest stamp behind it."""

    share: str
    incarnation: Stamp
    seq: int
    witnesses: tuple[Segment, ...]
    last_hlc: Stamp


class Run(NamedTuple):
    """Consecutive records of one incarnation. ``number`` is this node's own name for it; ``parent`` is (run number, seq) of the first one's predecessor, None at the start of a chain."""

    number: int
    origin: NodeId
    share: str
    incarnation: Stamp
    first_seq: int
    last_seq: int
    last_id: RecordId
    last_hlc: Stamp
    parent: tuple[int, int] | None

    @property
    def end(self) -> End:
        """Its last record, as a frontier names it."""
        return End(self.incarnation, self.last_seq, self.last_id)


class Tree:
    """The runs of one chain. ``runs`` is in order of number, so every parent stands before its children."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.last_incarnation = Stamp(0)
        self._incarnations: dict[Stamp, list[Run]] = defaultdict(list)
        self._leaves: set[int] = set()
        self._forks: dict[Stamp, int] = {}
        self._void_from: dict[int, int] = {}
        self._ends: tuple[End, ...] | None = None

    def attach(self, run: Run) -> bool:
        """Take in a new run, numbered above all others. True if that proves a fork, or an earlier one: other records may be void now."""
        self.runs[run.number] = run
        self.last_incarnation = max(self.last_incarnation, run.incarnation)
        self._incarnations[run.incarnation].append(run)
        self._leaves.add(run.number)
        self._ends = None
        if run.parent and self.runs[run.parent[0]].last_seq == run.parent[1]:
            self._leaves.discard(run.parent[0])
        found = self._find_fork(run.incarnation)
        if found is not None and found != self._forks.get(run.incarnation):
            self._forks[run.incarnation] = found
            self._void_from.clear()
            for other in self.runs.values():
                self._mark(other)
            return True
        self._mark(run)
        return False

    def extend(self, run: Run) -> None:
        """A run grew at its end."""
        line = self._incarnations[run.incarnation]
        line[line.index(self.runs[run.number])] = run
        self.runs[run.number] = run
        self._leaves.add(run.number)
        self._ends = None

    def is_void(self, number: int, seq: int) -> bool:
        """Whether that position lies behind a fork."""
        return seq >= self._void_from.get(number, seq + 1)

    def leaves(self) -> tuple[Run, ...]:
        """The runs whose last record nothing continues, void ones too (so that the proof of a fork spreads), in order of (incarnation, seq, id); the newest ``ENDS_MAX``."""
        leaves = sorted((self.runs[number] for number in self._leaves), key=lambda run: (run.incarnation, run.last_seq, run.last_id))
        return tuple(leaves[-ENDS_MAX:])

    def ends(self) -> tuple[End, ...]:
        """The last records of the ``leaves``."""
        if self._ends is None:
            self._ends = tuple(run.end for run in self.leaves())
        return self._ends

    def tip(self, prefer: Stamp | None) -> Run | None:
        """The leaf to continue, none that is void: that of incarnation ``prefer``, else the newest."""
        sound = (self.runs[number] for number in self._leaves if not self.is_void(number, self.runs[number].last_seq))
        return max(sound, key=lambda run: (run.incarnation == prefer, run.last_hlc, run.last_id), default=None)

    def sound_ends(self) -> list[tuple[int, int]]:
        """(run number, seq) of the leaves of what is not void."""
        last = {run.number: min(run.last_seq, self._void_from.get(run.number, run.last_seq + 1) - 1) for run in self.runs.values()}
        continued = {run.parent for run in self.runs.values() if last[run.number] >= run.first_seq}
        return [
            (run.number, last[run.number])
            for run in self.runs.values()
            if last[run.number] >= run.first_seq and (run.number, last[run.number]) not in continued
        ]

    def closure(self, positions: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Run number to last seq of everything at or above these (run number, seq)."""
        reached: dict[int, int] = {}
        for position in positions:
            step: tuple[int, int] | None = position
            while step and reached.get(step[0], 0) < step[1]:
                reached[step[0]] = step[1]
                step = self.runs[step[0]].parent
        return reached

    def have(self, *, step_back: int = 0) -> dict[Stamp, int]:
        """What a Pull says this node has: incarnation to last seq for the leaves and then the newest runs. Of a forked incarnation only the part before the fork: behind it a seq names no single record."""
        newest = sorted(self.runs.values(), key=lambda run: (run.number in self._leaves, run.incarnation), reverse=True)
        claims: dict[Stamp, int] = {}
        for run in newest:
            last = self._unambiguous(run.incarnation) - step_back
            if last >= self._opening(run.incarnation).first_seq and len(claims) < ENDS_MAX:
                claims[run.incarnation] = last
        return claims

    def missing(self, have: Mapping[Stamp, int]) -> list[Segment]:
        """What somebody with these claims lacks, every predecessor before its successors. Claims about what this node does not know are ignored."""
        claimed = []
        for incarnation, seq in have.items():
            if incarnation in self._incarnations:
                opening = self._opening(incarnation)
                last = min(seq, self._unambiguous(incarnation))
                if last >= opening.first_seq:
                    claimed.append((opening.number, last))
        covered = self.closure(claimed)
        starts = ((run, covered.get(run.number, run.first_seq - 1) + 1) for run in self.runs.values())
        return [Segment(run.number, start, run.last_seq) for run, start in starts if start <= run.last_seq]

    def passes(self, incarnation: Stamp, seq: int) -> bool:
        """Whether a record of that incarnation and seq is here that is not the last one of its run (those are known by id)."""
        return any(run.first_seq <= seq < run.last_seq for run in self._incarnations.get(incarnation, ()))

    def forks(self) -> list[Fork]:
        """Every incarnation that was found forked, oldest first."""
        found = []
        for incarnation, seq in sorted(self._forks.items()):
            branches = [run for run in self._incarnations[incarnation] if run.last_seq >= seq]
            witnesses = tuple(Segment(run.number, run.first_seq, max(seq, run.first_seq)) for run in branches)
            found.append(Fork(branches[0].share, incarnation, seq, witnesses, max(run.last_hlc for run in branches)))
        return found

    def contradicted(self, ends: Iterable[End]) -> set[RecordId]:
        """Of somebody's ends those that cannot be what stands at their places here: the others of these ends continue that, and an end is continued by nothing. So there is a fork that is not known here."""
        standing = {end: self._standing(end) for end in ends}
        found: set[RecordId] = set()
        for end, numbers in standing.items():
            continued = self.closure(self._surely(other, others) for other, others in standing.items() if other is not end and others)
            if numbers and all(continued.get(number, 0) >= end.seq for number in numbers):
                found.add(end.id)
        return found

    def _standing(self, end: End) -> list[int]:
        """The runs in which an end of somebody's frontier may stand: one if it is the last record of one, or there is no other at that place."""
        runs = [run for run in self._incarnations.get(end.incarnation, ()) if run.first_seq <= end.seq <= run.last_seq]
        return [run.number for run in runs if run.last_id == end.id] or [run.number for run in runs]

    def _surely(self, end: End, numbers: list[int]) -> tuple[int, int]:
        """The last (run number, seq) that certainly is that end or before it."""
        if len(numbers) == 1:
            return numbers[0], end.seq
        return self._opening(end.incarnation).number, self._unambiguous(end.incarnation)

    def _opening(self, incarnation: Stamp) -> Run:
        return min(self._incarnations[incarnation], key=lambda run: run.first_seq)

    def _unambiguous(self, incarnation: Stamp) -> int:
        """The last seq of an incarnation that names one record."""
        return self._forks.get(incarnation, self._opening(incarnation).last_seq + 1) - 1

    def _find_fork(self, incarnation: Stamp) -> int | None:
        """The seq at which an incarnation stops being a line: the first of several openings, or else of its branches."""
        runs = self._incarnations[incarnation]
        if len(runs) == 1:
            return None
        openings = [run for run in runs if run.parent is None or self.runs[run.parent[0]].incarnation != incarnation]
        forked = openings if len(openings) > 1 else [run for run in runs if run is not openings[0]]
        return min(run.first_seq for run in forked)

    def _mark(self, run: Run) -> None:
        if run.parent and self.is_void(*run.parent):
            self._void_from[run.number] = run.first_seq
        elif run.incarnation in self._forks:
            self._void_from[run.number] = max(run.first_seq, self._forks[run.incarnation])
