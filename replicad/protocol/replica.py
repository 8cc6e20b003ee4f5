"""A replica: clock, chains and trust of one node in one network, kept in step.

It holds no records and touches no disk: whoever stores records asks ``judge`` before, calls ``add`` for each that was accepted, and supplies the places of the ids that a record ``mentions``. The same
object runs in the daemon and, by the thousand, in the simulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.model.ids import NETWORK_SHARE, NodeId, Stamp
from replicad.model.records import Header
from replicad.protocol.chains import Admission, Chains, mentions
from replicad.protocol.clock import HybridClock, is_future
from replicad.protocol.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, MutableMapping

    from replicad.model.ids import RecordId
    from replicad.model.records import Record
    from replicad.protocol.runs import Place, Run

__all__ = ["Admission", "Replica", "mentions"]


class Replica:
    """What a node knows about who may say what and who said how much. ``own`` is the key it authors with."""

    def __init__(self, network: NodeId, own: NodeId) -> None:
        self.network = network
        self.own = own
        self.clock = HybridClock()
        self.chains = Chains()
        self.trust = Trust(network, self.chains)
        self._opened: dict[tuple[NodeId, str], Stamp] = {}

    def load(self, runs: Iterable[Run], records: Iterable[tuple[Record, Place]], places: Mapping[RecordId, Place]) -> None:
        """Take over what is stored, at start: all runs, the records of the share ``""``, and the places of what those mention."""
        self.chains.load(runs)
        self.clock = HybridClock(self.chains.last_hlc())
        self.trust.load(records, places)

    def judge(self, record: Record, now_ms: int, places: Mapping[RecordId, Place]) -> Admission:
        """What is to be done with a verified record. ``places``: of those of its ``mentions`` that are stored."""
        if not self.trust.knows(record.header.origin, record.header.share):
            return Admission.STRANGER
        if is_future(record.header.hlc, now_ms):
            return Admission.FUTURE
        return self.chains.check(record, places)

    def add(self, record: Record, places: MutableMapping[RecordId, Place]) -> Run:
        """Take in a record that ``judge`` called NEW. Enters it into ``places``; returns the run whose last record it now is, as it is to be stored."""
        run = self.chains.add(record, places)
        self.clock.observe(record.header.hlc)
        if record.header.share == NETWORK_SHARE:
            self.trust.add(record, places[record.id], places)
        return run

    def follow(self, records: Iterable[Record], runs: Collection[Run], places: Mapping[RecordId, Place]) -> None:
        """Take in what another replica, equal to this one, has added: the runs that it calls so now, and the places of the records and their ``mentions``. Costs per run, not per record."""
        self.chains.follow(runs, places)
        for run in runs:
            self.clock.observe(run.last_hlc)
        for record in records:
            if record.header.share == NETWORK_SHARE:
                self.trust.add(record, places[record.id], places)

    def next_header(self, share: str, *, now_ms: int, random16: int, origin: NodeId | None = None) -> Header:
        """The header of the next own record in a share (``origin``: of another key we hold, the network's).

        The first one after start opens a new incarnation, later than all before it in that chain and told from a clone's by 16 random bits. So does the first after the current one was found to be
        forked; it starts a chain anew unless there is an end without fork. Add the record before asking for the next.
        """
        origin = origin or self.own
        current = self._opened.get((origin, share))
        tip = self.chains.tip(origin, share, prefer=current)
        last = self.chains.last_incarnation(origin, share)
        if current is None or (current <= last and (tip is None or tip.incarnation != current)):
            current = self._opened[origin, share] = Stamp.of(max(now_ms, last.ms + 1), random16)
        hlc = self.clock.tick(now_ms)
        if tip is None:
            return Header(origin, share, current, 1, None, hlc)
        return Header(origin, share, current, tip.last_seq + 1, tip.last_id, hlc)
