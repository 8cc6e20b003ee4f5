"""Chains: what this node has of every origin in every share, what it lacks, and whether a record fits.

A record is accepted only after its predecessor, so what a node has is closed under "predecessor of" and the leaves (*ends*) describe all of it: two nodes whose frontiers are equal have equal sets.
Kept in memory is one ``Run`` per unbroken piece of one incarnation (see ``runs``), not the records: an origin that restarted a hundred times costs a hundred small rows. Where single records stand
(``Place``) comes from the caller, who can look ids up: ``mentions`` says which.
"""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from replicad.crypto.hashing import sha256
from replicad.model.ids import Digest, NodeId, RecordId, Stamp, to_binary
from replicad.model.records import Cut, Header, Record
from replicad.protocol.runs import ENDS_MAX, Fork, Place, Run, Segment, Tree

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, MutableMapping

    from replicad.protocol.wire import End

__all__ = ["ENDS_MAX", "Admission", "Chains", "Fork", "Place", "Run", "Segment", "mentions"]

RUNS_MAX = 4096
"""Runs of one chain that are kept (3 MiB of memory): a node starts so many times in eleven years of daily restarts; only a stolen key makes more."""

_PACK = msgspec.msgpack.Encoder(enc_hook=to_binary)


class Admission(StrEnum):
    """What is to be done with a verified record. Only ``NEW`` is stored; ``GAP`` and ``FUTURE`` will be offered again."""

    NEW = "new"
    DUPLICATE = "duplicate"
    GAP = "gap"
    """Its predecessor is not here yet."""
    BROKEN = "broken"
    """It contradicts its predecessor (another chain, wrong seq, hlc not growing, incarnation going back): nobody will ever accept it."""
    FUTURE = "future"
    """Its clock is too far ahead."""
    STRANGER = "stranger"
    """Its origin never had a grant under which it could count."""
    FULL = "full"
    """Its chain has ``RUNS_MAX`` runs already."""


def mentions(record: Record) -> set[RecordId]:
    """The ids whose places must be known to judge and add this record: its own, its predecessor's, and the ends that a cut names."""
    ids = {record.id}
    if record.header.prev:
        ids.add(record.header.prev)
    if isinstance(record.body, Cut):
        ids.update(*record.body.ends.values())
    return ids


class Chains:
    """Every chain this node has. Numbers of runs are unique in it and only grow."""

    def __init__(self) -> None:
        self._trees: dict[str, dict[NodeId, Tree]] = defaultdict(dict)
        self._runs: dict[int, Run] = {}
        self._tips: dict[RecordId, int] = {}
        self._hashes: dict[str, Digest] = {}
        self._anchors: dict[RecordId, Place | None] = {}
        self._disturbed: set[NodeId] = set()
        self._last_number = 0

    def load(self, runs: Iterable[Run]) -> None:
        """Take over the stored runs, at start."""
        for run in sorted(runs, key=lambda run: run.number):
            self._enter(run)

    def check(self, record: Record, places: Mapping[RecordId, Place]) -> Admission:
        """NEW, DUPLICATE, GAP, BROKEN or FULL, given the places of those ``mentions`` that are stored (last records of runs are known here anyway)."""
        if record.id in self._tips or record.id in places:
            return Admission.DUPLICATE
        header = record.header
        before = self._locate(header.prev, places) if header.prev else None
        if header.prev and before is None:
            return Admission.GAP
        run = self._runs[before.run] if before else None
        if before and run and not _follows(header, before, run):
            return Admission.BROKEN
        continues = before and run and _continues(header, before, run)
        tree = self._tree(header.origin, header.share)
        return Admission.FULL if tree and len(tree.runs) >= RUNS_MAX and not continues else Admission.NEW

    def add(self, record: Record, places: MutableMapping[RecordId, Place]) -> Run:
        """Take in a record that ``check`` calls NEW, and enter it into ``places``. Returns the run whose last record it now is, as it is to be stored."""
        header = record.header
        before = self._locate(header.prev, places) if header.prev else None
        previous = self._runs[before.run] if before else None
        if before and previous and _continues(header, before, previous):
            run = Run(*previous[:5], header.seq, record.id, header.hlc, previous.parent)
        else:
            parent = (before.run, before.seq) if before else None
            number = self._last_number + 1
            run = Run(number, header.origin, header.share, header.incarnation, header.seq, header.seq, record.id, header.hlc, parent)
        self._enter(run)
        places[record.id] = Place(run.number, header.seq, header.hlc)
        if record.id in self._anchors:
            self._anchors[record.id] = places[record.id]
            self._disturbed.add(header.origin)
        return run

    def follow(self, runs: Iterable[Run], places: Mapping[RecordId, Place]) -> None:
        """Take over what other chains, equal to these, became by ``add``: runs that are new or longer, and the places of their new records."""
        for run in sorted(runs, key=lambda run: run.number):
            self._enter(run)
        for record_id in self._anchors.keys() & places.keys():
            if self._anchors[record_id] is None:
                place = self._anchors[record_id] = places[record_id]
                self._disturbed.add(self._runs[place.run].origin)

    def run(self, number: int) -> Run:
        """The run of that number."""
        return self._runs[number]

    def last_hlc(self) -> Stamp:
        """The greatest stamp of any record here."""
        return max((run.last_hlc for run in self._runs.values()), default=Stamp(0))

    def tip(self, origin: NodeId, share: str, *, prefer: Stamp | None = None) -> Run | None:
        """The run that the origin's next record continues: among the ends that are not void that of incarnation ``prefer``, else the newest."""
        tree = self._tree(origin, share)
        return tree.tip(prefer) if tree else None

    def last_incarnation(self, origin: NodeId, share: str) -> Stamp:
        """The greatest incarnation of a chain."""
        tree = self._tree(origin, share)
        return tree.last_incarnation if tree else Stamp(0)

    # --- Frontiers ---

    def ends(self, origin: NodeId, share: str) -> tuple[End, ...]:
        """The ends of one chain, ordered; empty if there is none."""
        tree = self._tree(origin, share)
        return tree.ends() if tree else ()

    def leaves(self, origin: NodeId, share: str) -> tuple[Run, ...]:
        """The runs behind ``ends``, in the same order: a head also says how late each end is."""
        tree = self._tree(origin, share)
        return tree.leaves() if tree else ()

    def frontier(self, share: str) -> dict[NodeId, tuple[End, ...]]:
        """The ends of every chain in a share."""
        return {origin: tree.ends() for origin, tree in self._trees.get(share, {}).items()}

    def frontier_hash(self, share: str) -> Digest:
        """SHA-256 of the frontier: msgpack of [origin, ends] for each origin in ascending order. Equal hashes, equal records."""
        if share not in self._hashes:
            self._hashes[share] = sha256(_PACK.encode(sorted(self.frontier(share).items())))
        return self._hashes[share]

    def unsure(self, share: str, lines: Mapping[NodeId, tuple[End, ...]]) -> set[RecordId]:
        """Of somebody's frontier, the ids of which memory cannot tell whether they are here. Look them up and pass those found to ``behind``."""
        unsure: set[RecordId] = set()
        for origin, ends in lines.items():
            found = {end.id for end in ends if end.id not in self._tips and self._passes(origin, share, end)}
            if found and len(ends) > 1:
                found -= self._trees[share][origin].contradicted(ends)
            unsure |= found
        return unsure

    def behind(self, lines: Mapping[NodeId, tuple[End, ...]], known: Container[RecordId]) -> list[NodeId]:
        """The origins of whom somebody with this frontier has records that are not here."""
        return [origin for origin, ends in lines.items() if any(end.id not in self._tips and end.id not in known for end in ends)]

    def have(self, origin: NodeId, share: str, *, step_back: int = 0) -> dict[Stamp, int]:
        """What to say in a Pull: incarnation to last seq, the newest 64. ``step_back`` claims that much less of each: double it as long as the answers have gaps (the other side's branch leaves ours earlier)."""
        tree = self._tree(origin, share)
        return tree.have(step_back=step_back) if tree else {}

    def missing(self, origin: NodeId, share: str, have: Mapping[Stamp, int]) -> list[Segment]:
        """The answer to a Pull: segments of runs, every predecessor before its successors."""
        tree = self._tree(origin, share)
        return tree.missing(have) if tree else []

    # --- For trust ---

    def shares_of(self, origin: NodeId) -> list[str]:
        """The shares in which an origin has a chain here, sorted."""
        return sorted(share for share, trees in self._trees.items() if origin in trees)

    def is_void(self, place: Place) -> bool:
        """Whether a record stands behind a fork of its incarnation, or descends from one that does."""
        run = self._runs[place.run]
        return self._trees[run.share][run.origin].is_void(place.run, place.seq)

    def forks(self, origin: NodeId) -> list[Fork]:
        """The proofs that this key is used twice, of all shares."""
        return [fork for share in self.shares_of(origin) for fork in self._trees[share][origin].forks()]

    def sound_ends(self, origin: NodeId, share: str) -> list[Segment]:
        """What a cut that keeps everything must name: the last record (``last_seq``) of each of these segments."""
        tree = self._tree(origin, share)
        return [Segment(number, tree.runs[number].first_seq, seq) for number, seq in tree.sound_ends()] if tree else []

    def line(self, end: Segment) -> list[Segment]:
        """That segment and all that stands before it in its chain, the newest first."""
        found = [end]
        while parent := self._runs[found[-1].run].parent:
            found.append(Segment(parent[0], self._runs[parent[0]].first_seq, parent[1]))
        return found

    def anchor(self, ids: Iterable[RecordId], places: Mapping[RecordId, Place]) -> None:
        """Remember where these records stand, now or once they come: a cut names them."""
        for record_id in ids:
            if self._anchors.get(record_id) is None:
                self._anchors[record_id] = self._locate(record_id, places)

    def closure(self, origin: NodeId, share: str, ids: Iterable[RecordId]) -> dict[int, int]:
        """Run number to last seq of these anchored records and all their predecessors, as far as they are here and belong to that chain."""
        tree = self._tree(origin, share)
        if tree is None:
            return {}
        anchored = [place for record_id in ids if (place := self._anchors[record_id])]
        return tree.closure((place.run, place.seq) for place in anchored if place.run in tree.runs)

    def take_disturbed(self) -> set[NodeId]:
        """The origins of whom an anchor arrived or a fork was found since the last call: what counts of them may be different."""
        disturbed, self._disturbed = self._disturbed, set()
        return disturbed

    def _tree(self, origin: NodeId, share: str) -> Tree | None:
        return self._trees.get(share, {}).get(origin)

    def _passes(self, origin: NodeId, share: str, end: End) -> bool:
        tree = self._tree(origin, share)
        return tree is not None and tree.passes(end.incarnation, end.seq)

    def _locate(self, record_id: RecordId, places: Mapping[RecordId, Place]) -> Place | None:
        if record_id in self._tips:
            run = self._runs[self._tips[record_id]]
            return Place(run.number, run.last_seq, run.last_hlc)
        return places.get(record_id)

    def _enter(self, run: Run) -> None:
        tree = self._tree(run.origin, run.share)
        if tree is None:
            tree = self._trees[run.share][run.origin] = Tree()
        if run.number in self._runs:
            del self._tips[self._runs[run.number].last_id]
            tree.extend(run)
        elif tree.attach(run):
            self._disturbed.add(run.origin)
        self._runs[run.number] = run
        self._tips[run.last_id] = run.number
        self._last_number = max(self._last_number, run.number)
        self._hashes.pop(run.share, None)


def _continues(header: Header, before: Place, run: Run) -> bool:
    """Whether a record that follows that place becomes the new end of its run."""
    return run.incarnation == header.incarnation and run.last_seq == before.seq


def _follows(header: Header, before: Place, run: Run) -> bool:
    """Whether a record may come right after the one at that place."""
    same_chain = (run.origin, run.share) == (header.origin, header.share)
    return same_chain and header.seq == before.seq + 1 and header.hlc > before.hlc and header.incarnation >= run.incarnation
