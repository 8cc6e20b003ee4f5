"""The second opinion: what counts, who wins and what is shown, by the book and from a plain set of records. It shares nothing with the program but the record types and the collision key."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from protocol.trust_model import Office, TrustModel
from replicad.model.records import Entry, Grant, Policy, Record, Role, Takedown, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicad.model.ids import Digest, NodeId, RecordId

_Chain = tuple["NodeId", str, int]
"""Origin, share, incarnation."""


class Reference(TrustModel):
    """The rules of counting, as in ``trust_model``; what they ask again and again is remembered."""

    def __init__(self, network: NodeId, accepted: Iterable[Record]) -> None:
        self._kinds: dict[type, list[Record]] = defaultdict(list)
        self._lines: dict[_Chain, list[Record]] = defaultdict(list)
        self._forks: dict[_Chain, int | None] = {}
        self._void: dict[RecordId, bool] = {}
        self._kept: dict[tuple[RecordId, str], set[RecordId]] = {}
        self._ended: dict[RecordId, list[Record]] = {}
        everything = list(accepted)
        for record in everything:
            self._kinds[type(record.body)].append(record)
            self._lines[record.header.origin, record.header.share, record.header.incarnation].append(record)
        self._settled = False
        super().__init__(network, everything)
        self._settled = True

    def _of(self, kind: type) -> list[Record]:
        return self._kinds[kind]

    def is_void(self, record: Record) -> bool:
        line = []
        step: Record | None = record
        while step is not None and step.id not in self._void:
            line.append(step)
            step = self.records[step.header.prev] if step.header.prev else None
        void = step is not None and self._void[step.id]
        for one in reversed(line):
            void = self._void[one.id] = void or self._forked_at(one)
        return void

    def _forked_at(self, record: Record) -> bool:
        chain = (record.header.origin, record.header.share, record.header.incarnation)
        if chain not in self._forks:
            self._forks[chain] = self._fork(chain)
        fork = self._forks[chain]
        return fork is not None and record.header.seq >= fork

    def _fork(self, chain: _Chain) -> int | None:
        mine = self._lines[chain]
        openings = [one.header.seq for one in mine if not one.header.prev or self.records[one.header.prev].header.incarnation != chain[2]]
        if len(openings) > 1:
            return min(openings)
        seqs = sorted(one.header.seq for one in mine)
        return next((seq for seq, following in pairwise(seqs) if seq == following), None)

    def keeps(self, cut: Record, record: Record) -> bool:
        share = record.header.share
        if (cut.id, share) not in self._kept:
            kept: set[RecordId] = set()
            for end in cut.body.ends.get(share, ()):
                named = self.records.get(end)
                if named and (named.header.origin, named.header.share) == (cut.body.subject, share):
                    kept |= {above.id for above in self.upwards(named)}
            self._kept[cut.id, share] = kept
        return record.id in self._kept[cut.id, share]

    def effective(self, office: Office) -> list[Record]:
        """What ends an admin depends on its seniors alone, who are known before it; what ends others is asked when all admins are known."""
        if not self._settled and office.grant.role is not Role.ADMIN:
            return []
        if office.record.id not in self._ended:
            self._ended[office.record.id] = super().effective(office)
        return self._ended[office.record.id]

    def counts(self, record: Record) -> bool:
        return not isinstance(record.body, Unknown) and super().counts(record)

    def policies(self) -> dict[str, tuple[bool, tuple[str, ...]]]:
        """The shares that exist: immutable, stages."""
        found: dict[str, tuple[bool, tuple[str, ...]]] = {}
        for record in sorted(self._kinds[Policy], key=lambda record: record.order):
            policy = record.body
            if self.counts(record):
                if policy.removed:
                    found.pop(policy.name, None)
                else:
                    found[policy.name] = (found[policy.name][0] if policy.name in found else policy.immutable, policy.stages)
        return found

    def strangers(self) -> list[Record]:
        """Records whose author is, by no grant here, of a role that may write where they stand (section 5.1)."""
        roles = {(grant.body.subject, grant.body.role) for grant in self._kinds[Grant]} | {(self.network, Role.ADMIN)}
        admins = {node for node, role in roles if role is Role.ADMIN}
        publishers = admins | {node for node, role in roles if role is Role.PUBLISHER}
        return [record for record in self.records.values() if record.header.origin not in (publishers if record.header.share else admins)]

    def taken_down(self) -> set[Digest]:
        """The contents of which the newest takedown that counts is not lifted."""
        newest = {record.body.content: record.body for record in sorted(self._kinds[Takedown], key=lambda record: record.order) if self.counts(record)}
        return {content for content, takedown in newest.items() if not takedown.lifted}

    def has_share(self, node: NodeId, share: str, now: int) -> bool:
        """Whether some grant in force gives the node that share."""
        mine = [office for office in self.offices if office.grant.subject == node and office.until >= now and not self.effective(office)]
        return any(office.grant.role.value == "admin" or office.grant.shares is None or share in office.grant.shares for office in mine)


def live(stages: Mapping[str, Sequence[Record]], stage: str, *, immutable: bool) -> list[Record]:
    """Of one name's counting records by stage: what lives in that register, best first (section 5.5)."""
    register = list(stages[stage])
    if immutable:
        files = {record.id for record in register if isinstance(record.body, Entry)}
        register = [record for record in register if not (isinstance(record.body, Entry) and files & set(record.body.supersedes))]
    promoted = [record for records in stages.values() for record in records if isinstance(record.body, Entry) and record.body.source == stage]
    replaced = {old for record in (*register, *promoted) for old in record.body.supersedes}
    return sorted((record for record in register if record.id not in replaced), key=lambda record: (record.header.hlc, record.id), reverse=not immutable)


def shown(stages: Mapping[str, Sequence[Record]], carried: Sequence[str], *, immutable: bool) -> Record | None:
    """What a node that carries these stages (lowest first) shows of one name."""
    for stage in carried:
        files = [record for record in live(stages, stage, immutable=immutable) if isinstance(record.body, Entry)] if stage in stages else []
        if files:
            return files[0]
    return None
