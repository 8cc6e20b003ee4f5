"""The ledger: records into tables, rights into consequences. Lives in the writer's thread and is called inside its transactions only.

It owns the working replica, which is ahead of the committed one by the transaction being written. If that is rolled back, the working replica is thrown away and read from the disk again before the
next use; its next own record then opens a new incarnation, so a chain never continues from something that may or may not have reached the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from replicad.catalog import recount, registers, rows, supply
from replicad.catalog.answers import Refusal
from replicad.catalog.registers import Changed, New
from replicad.crypto.envelope import record_id, seal
from replicad.crypto.keys import SigningKey
from replicad.errors import NotAllowedError
from replicad.model import paths
from replicad.model.ids import NETWORK_SHARE, NodeId, RecordId, Stamp
from replicad.model.records import Body, Cut, Entry, Header, Reason, Record, Role, Tombstone
from replicad.protocol import records as formats
from replicad.protocol.replica import Admission, Replica, mentions
from replicad.protocol.runs import Place, Run

RECOUNT_BATCH = 2_000
"""Records judged again in one transaction: about 0.1 s, so that other writers wait no longer than that."""
STORE_PART = 1_000
"""Records merged at once."""
PASSES_MAX = 4
"""How often a batch is gone through for records that became acceptable by later ones of the same batch. In order of time, one pass is enough for honest clocks."""


@dataclass(slots=True)
class Outcome:
    """What one transaction did to records and names, for memory and for everybody else. ``runs``: the new and the longer ones, by number. ``places``: of the records and of what they mention."""

    source: NodeId | None = None
    now_ms: int = 0
    records: list[Record] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    places: dict[RecordId, Place] = field(default_factory=dict)
    duplicates: int = 0
    refused: list[Refusal] = field(default_factory=list)
    gaps: int = 0
    rights_changed: bool = False
    changed: Changed = field(default_factory=Changed)

    def add(self, record: Record, replica: Replica) -> None:
        """Take an acceptable record into the working replica."""
        run = replica.add(record, self.places)
        self.runs[run.number] = run
        self.records.append(record)

    def follow(self, replica: Replica) -> None:
        """Bring another replica to the same state."""
        replica.follow(self.records, self.runs.values(), self.places)


class Ledger:
    """Made by ``Catalog.open``; the database's mirror."""

    def __init__(self, key: SigningKey, *, clock_ms: Callable[[], int], random16: Callable[[], int]) -> None:
        self._key = key
        self._clock_ms = clock_ms
        self._random16 = random16
        self._working: Replica | None = None
        self._ahead = False
        self._immutable: frozenset[str] = frozenset()
        self.unfinished = False
        """Whether a change of rights left records to be counted again. Read from the event loop, too: at worst it is told one transaction late."""

    def committed(self) -> None:
        """The database's word that memory and disk are equal."""
        self._ahead = False

    def rolled_back(self) -> None:
        """The database's word that they may not be."""
        if self._ahead:
            self._working = None
            self._ahead = False

    def begin(self, connection: sqlite3.Connection) -> Replica:
        """Read the tables; a replica for the event loop, equal to the working one. Takedowns that an earlier version of the program stored without knowing them take effect."""
        supply.take_down(connection, self._replica(connection).trust.taken_down())
        return rows.load_replica(connection, own=self._key.id)

    def receive(self, connection: sqlite3.Connection, records: Sequence[Record], *, network: NodeId, source: NodeId | None) -> Outcome:
        """Store what is acceptable of these verified records, and all that follows from it. Nothing if the network is not ``network`` any more."""
        replica = self._replica(connection)
        outcome = Outcome(source, self._clock_ms())
        if replica.network == network:
            self._admit(connection, replica, records, outcome)
        return outcome

    def author(self, connection: sqlite3.Connection, share: str, bodies: Sequence[Body], *, key: SigningKey) -> Outcome:
        """Sign and store one record per body. Raises NotAllowedError before anything happened, RecordError if a body breaks a rule."""
        replica = self._replica(connection)
        outcome = Outcome(None, self._clock_ms())
        at = Stamp(max(replica.clock.last + 1, Stamp.of(outcome.now_ms)))
        for body in bodies:
            _check_right(replica, key.id, share, body, at=at)
        outcome.places = rows.find_places(connection, (end for body in bodies for end in _ends(body)))
        self._ahead = True
        for body in bodies:
            header = replica.next_header(share, now_ms=outcome.now_ms, random16=self._random16(), origin=key.id)
            outcome.add(_signed(key, replica.network, header, body), replica)
        self._store(connection, replica, outcome)
        return outcome

    def cut(self, connection: sqlite3.Connection, *, subject: NodeId, reason: Reason, before: Stamp, then: Sequence[Body], key: SigningKey) -> Outcome:
        """Sign and store a cut that keeps what the subject said before that time, and ``then`` more. Raises as ``author``."""
        ends = rows.cut_ends(connection, self._replica(connection).chains, subject, before=before)
        return self.author(connection, NETWORK_SHARE, [Cut(subject, ends, reason), *then], key=key)

    def move(self, connection: sqlite3.Connection, records: Sequence[Record], *, network: NodeId) -> Outcome:
        """Forget the network and take up another one with these records. The outcome is to be followed by an empty replica of it."""
        outcome = Outcome(None, self._clock_ms(), rights_changed=True)
        outcome.changed.shares |= set(self._replica(connection).trust.shares())
        self._ahead = True
        rows.forget_network(connection)
        rows.store_network(connection, network)
        self._working, self._immutable, self.unfinished = Replica(network, self._key.id), frozenset(), False
        self._admit(connection, self._working, records, outcome)
        return outcome

    def recount(self, connection: sqlite3.Connection) -> Outcome:
        """Judge a batch of the records whose origin's rights changed again, and merge what is different."""
        replica = self._replica(connection)
        outcome = Outcome(None, self._clock_ms())
        batch = recount.next_batch(connection, RECOUNT_BATCH)
        changes = [
            registers.recounted(connection, due.number, due.record, counts=replica.trust.counts(due.record, due.place), everything=batch.everything)
            for due in batch.rows
        ]
        registers.apply(connection, [change for change in changes if change], outcome.changed, immutable=_immutable(replica).__contains__)
        recount.done(connection, batch)
        self.unfinished = recount.pending(connection)
        return outcome

    # -- steps --

    def _replica(self, connection: sqlite3.Connection) -> Replica:
        if self._working is None:
            self._working = rows.load_replica(connection, own=self._key.id)
            self._immutable = _immutable(self._working)
            self.unfinished = recount.pending(connection)
        return self._working

    def _admit(self, connection: sqlite3.Connection, replica: Replica, records: Sequence[Record], outcome: Outcome) -> None:
        outcome.places = rows.find_places(connection, {mentioned for record in records for mentioned in mentions(record)})
        waiting = sorted(records, key=lambda record: (record.header.share != NETWORK_SHARE, record.order))
        for _ in range(PASSES_MAX):
            left = []
            for record in waiting:
                match admission := replica.judge(record, outcome.now_ms, outcome.places):
                    case Admission.NEW:
                        self._ahead = True
                        outcome.add(record, replica)
                    case Admission.GAP | Admission.STRANGER:
                        left.append((record, admission))
                    case Admission.DUPLICATE:
                        outcome.duplicates += 1
                    case _:
                        outcome.refused.append(_refusal(record, admission))
            if len(left) in (0, len(waiting)):
                break
            waiting = [record for record, _ in left]
        outcome.gaps += sum(admission is Admission.GAP for _, admission in left)
        outcome.refused += [_refusal(record, admission) for record, admission in left if admission is not Admission.GAP]
        self._store(connection, replica, outcome)

    def _store(self, connection: sqlite3.Connection, replica: Replica, outcome: Outcome) -> None:
        """The accepted records into the tables after their runs, which say whose they are: a part at a time (what merging needs of a whole publication would be tens of MB), then whatever follows."""
        rows.put_runs(connection, outcome.runs.values())
        immutable = _immutable(replica)
        for start in range(0, len(outcome.records), STORE_PART):
            part = outcome.records[start : start + STORE_PART]
            numbers = rows.add_records(connection, [(record, outcome.places[record.id]) for record in part])
            named = [
                New(number, record.id, record.header.share, record.body, replica.trust.counts(record, outcome.places[record.id]))
                for number, record in zip(numbers, part, strict=True)
                if isinstance(record.body, Entry | Tombstone)
            ]
            registers.add(connection, named, outcome.changed, immutable=immutable.__contains__)
        disturbed = replica.trust.take_changed()
        if disturbed or any(record.header.share == NETWORK_SHARE for record in outcome.records):
            self._follow_rights(connection, replica, disturbed, outcome)

    def _follow_rights(self, connection: sqlite3.Connection, replica: Replica, origins: Iterable[NodeId], outcome: Outcome) -> None:
        """Rights, members, shares or takedowns are different: what this node carries and must not serve, and which stored records must be judged again."""
        outcome.rights_changed = True
        outcome.changed.shares |= supply.carry(connection, supply.carried_places(replica, self._key.id, outcome.now_ms))
        supply.take_down(connection, replica.trust.taken_down())
        recount.add_origins(connection, origins)
        recount.add_shares(connection, _immutable(replica) ^ self._immutable)
        self._immutable = _immutable(replica)
        self.unfinished = recount.pending(connection)


def _immutable(replica: Replica) -> frozenset[str]:
    return frozenset(name for name, share in replica.trust.shares().items() if share.immutable)


def _refusal(record: Record, admission: Admission) -> Refusal:
    header = record.header
    return Refusal(admission.value, f"{record.envelope.type} record {header.seq} of {header.origin.short} in share {header.share!r}, {record.id.short}")


def _signed(key: SigningKey, network: NodeId, header: Header, body: Body) -> Record:
    envelope = seal(key, network, formats.type_of(body), formats.encode(header, body))
    return Record(envelope, record_id(network, envelope.type, envelope.payload), header, body)


def _ends(body: Body) -> Iterable[RecordId]:
    return (end for ends in body.ends.values() for end in ends) if isinstance(body, Cut) else ()


_DECISIONS = {
    "policy": "create or change a share",
    "takedown": "take content down or lift that",
    "grant": "admit a node or change what it may do",
    "cut": "end a node's membership or what it may do",
}
"""By record type, what a person wanted."""


def _check_right(replica: Replica, node: NodeId, share: str, body: Body, *, at: Stamp) -> None:
    """Nothing is signed that would not count."""
    if isinstance(body, Entry | Tombstone):
        stage, *source = body.stages
        allowed = replica.trust.may(
            node, share=share, path_key=paths.key(body.path), stage=stage, source=source[0] if source else None, role=Role.PUBLISHER, at=at
        )
        what = f"{'publish' if isinstance(body, Entry) else 'remove'} {body.path!r} at stage {' from '.join(body.stages)} in share {share}"
    else:
        allowed = replica.trust.may(node, share=share, path_key=None, stage=None, role=Role.ADMIN, at=at)
        what = f"{_DECISIONS[formats.type_of(body)]}: only an admin's node may"
    if not allowed:
        raise NotAllowedError(f"this node's grants do not let it {what}", hint="replicad peer list")
