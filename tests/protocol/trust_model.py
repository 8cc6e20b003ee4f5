"""Trust by the book: the rules of docs/protocol.md on sets of record ids, in rounds, as slow as they read. An independent second opinion for the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicad.model import paths
from replicad.model.ids import STAMP_MAX, Stamp
from replicad.model.records import Cut, Entry, Grant, Record, Role, Tombstone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from replicad.model.ids import NodeId, RecordId


@dataclass(eq=False)
class Office:
    """A grant that counts."""

    record: Record
    grant: Grant
    level: int
    above: tuple[Office, ...]
    until: int


class TrustModel:
    """``accepted``: the stored records, closed under predecessors."""

    def __init__(self, network: NodeId, accepted: Iterable[Record]) -> None:
        self.network = network
        self.records = {record.id: record for record in accepted}
        self.offices: list[Office] = []
        self._settle()

    # --- Chains ---

    def upwards(self, record: Record) -> Iterator[Record]:
        """The record and its predecessors."""
        found: Record | None = record
        while found:
            yield found
            found = self.records[found.header.prev] if found.header.prev else None

    def is_void(self, record: Record) -> bool:
        return any(self._forked_at(above) for above in self.upwards(record))

    def _forked_at(self, record: Record) -> bool:
        """Whether the record's own incarnation is no line up to and with it."""
        chain = (record.header.origin, record.header.share, record.header.incarnation)
        mine = [other for other in self.records.values() if (other.header.origin, other.header.share, other.header.incarnation) == chain]
        openings = [other for other in mine if not other.header.prev or self.records[other.header.prev].header.incarnation != record.header.incarnation]
        if len(openings) > 1:
            return record.header.seq >= min(other.header.seq for other in openings)
        seqs = [other.header.seq for other in mine if other.header.seq <= record.header.seq]
        return len(seqs) > len(set(seqs))

    def keeps(self, cut: Record, record: Record) -> bool:
        assert isinstance(cut.body, Cut)
        kept: set[RecordId] = set()
        for end in cut.body.ends.get(record.header.share, ()):
            named = self.records.get(end)
            if named and (named.header.origin, named.header.share) == (record.header.origin, record.header.share):
                kept |= {above.id for above in self.upwards(named)}
        return record.id in kept

    # --- Authority ---

    def _of(self, kind: type) -> list[Record]:
        return [record for record in self.records.values() if isinstance(record.body, kind)]

    def _settle(self) -> None:
        """Round by round: who is admitted by the network key, then by those, and so on."""
        waiting = sorted(self._of(Grant), key=lambda record: record.order)
        for level in range(len(waiting) + 1):
            found = [(record, self._parent(record, level)) for record in waiting if not self._entered(record)]
            for record, above in found:
                if above or (level == 0 and record.header.origin == self.network):
                    self._enter(record, level, above)

    def _is_renewal(self, record: Record) -> bool:
        return isinstance(record.body, Grant) and record.body.subject == record.header.origin

    def _entered(self, record: Record) -> bool:
        return any(office.record is record for office in self.offices)

    def _parent(self, record: Record, level: int) -> Office | None:
        """The most senior office of the issuer, exactly one level up, under which the grant counts."""
        fit = [
            office
            for office in self.offices
            if office.grant.subject == record.header.origin and office.level == level - 1 and self.counts_under(record, office)
        ]
        return min(fit, key=lambda office: office.record.order, default=None)

    def _enter(self, record: Record, level: int, above: Office | None) -> None:
        grant = record.body
        assert isinstance(grant, Grant)
        until = STAMP_MAX if grant.until is None else int(grant.until)
        if above and self._is_renewal(record):
            until = min(until, above.until)
        self.offices.append(Office(record, grant, level, (*above.above, above) if above else (), until))

    def effective(self, office: Office) -> list[Record]:
        """The cuts that end an office: other people's, then its holder's own, each judged by those before it."""
        subject = office.grant.subject
        against = sorted((cut for cut in self._of(Cut) if cut.body.subject == subject and cut.header.hlc > office.record.header.hlc), key=lambda cut: cut.order)
        cuts = [cut for cut in against if cut.header.origin != subject and self._ends(cut, office)]
        for cut in against:
            if cut.header.origin == subject and (self._under(cut, office, cuts) if office.grant.role is Role.ADMIN else self._leaves(cut)):
                cuts.append(cut)
        return cuts

    def _ends(self, cut: Record, office: Office) -> bool:
        author = cut.header.origin
        if author == self.network:
            return True
        offices = self._admin_offices(author)
        if office.grant.role is Role.ADMIN:
            stands_above = any(other.grant.subject == author for other in office.above)
            offices = [other for other in offices if stands_above and other.level < office.level]
        return any(self.counts_under(cut, other) for other in offices)

    def _leaves(self, cut: Record) -> bool:
        """Whether a self-cut ends an admin's office of its author."""
        return any(cut in self.effective(other) for other in self._admin_offices(cut.header.origin))

    def _admin_offices(self, node: NodeId) -> list[Office]:
        return [office for office in self.offices if office.grant.subject == node and office.grant.role is Role.ADMIN]

    def counts_under(self, record: Record, office: Office) -> bool:
        return self._under(record, office, self.effective(office))

    def _under(self, record: Record, office: Office, cuts: list[Record]) -> bool:
        if not (self._covers(record, office) and office.record.header.hlc < record.header.hlc <= office.until):
            return False
        decided = any(cut.header.origin != office.grant.subject for cut in cuts)
        return all(self.keeps(cut, record) for cut in cuts) and (decided or not self.is_void(record))

    def _covers(self, record: Record, office: Office) -> bool:
        grant, body = office.grant, record.body
        if grant.role is Role.ADMIN:
            return True
        if grant.role is not Role.PUBLISHER or not isinstance(body, Entry | Tombstone):
            return False
        within = grant.paths is None or any(f"{paths.key(body.path)}/".startswith(f"{prefix}/") for prefix in grant.paths)
        return within and (grant.shares is None or record.header.share in grant.shares) and (grant.stages is None or set(body.stages) <= set(grant.stages))

    # --- Answers ---

    def counts(self, record: Record) -> bool:
        if record.header.origin == self.network:
            return record.header.share == ""
        return any(self.counts_under(record, office) for office in self.offices if office.grant.subject == record.header.origin)

    def members(self, now_ms: int) -> set[NodeId]:
        return {office.grant.subject for office in self.offices if office.until >= Stamp.of(now_ms) and not self.effective(office)}
