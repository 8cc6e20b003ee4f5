"""A network on paper: keys by name, records with chosen clocks, and replicas that are told them in any order.

``World`` says what its nodes say (each record follows the author's last one in that share unless told otherwise); ``deliver`` plays a peer that offers records until nothing more is accepted. Record ids and
signatures are the real ones; only their verification is left out, as when records are read back from disk.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Cut, Entry, Grant, Header, Policy, Record, Role, Tombstone
from replicad.protocol import records
from replicad.protocol.replica import Admission, Replica

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicad.model.ids import NodeId, RecordId
    from replicad.protocol.runs import Place

NOW_MS = 1_000_000_000
"""Later than everything said in a test."""


def signing_key(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


class World:
    """Everything that was ever said, in the order in which it was said. Times are small numbers of milliseconds; each record is later than the one before unless ``at`` says otherwise."""

    def __init__(self) -> None:
        self.keys: dict[str, SigningKey] = {}
        self.said: list[Record] = []
        self.last: dict[tuple[str, str], Record] = {}
        self.time = 1000
        self.network = self.id("network")

    def id(self, name: str) -> NodeId:
        return self.keys.setdefault(name, signing_key(name)).id

    def name(self, node: NodeId) -> str:
        return next(name for name, key in self.keys.items() if key.id == node)

    def say(self, by: str, share: str, body: Body, *, at: int | None = None, after: Record | str | None = "last", incarnation: int | None = None) -> Record:
        """A record by ``by``. ``after``: the predecessor (None starts a chain anew)."""
        self.time = max(self.time + 1, at or 0)
        before = self.last.get((by, share)) if isinstance(after, str) else after
        if incarnation is None:
            incarnation = before.header.incarnation if before else 1
        seq, prev = (before.header.seq + 1, before.id) if before else (1, None)
        header = Header(self.id(by), share, Stamp(incarnation), seq, prev, Stamp.of(self.time if at is None else at))
        record = make(self.keys[by], self.network, header, body)
        self.said.append(record)
        self.last[by, share] = record
        return record

    def grant(self, by: str, subject: str, role: Role | str = Role.MIRROR, **options: object) -> Record:
        said = {name: options.pop(name) for name in ("at", "after", "incarnation") if name in options}
        return self.say(by, "", Grant(self.id(subject), subject, Role(role), **options), **said)  # type: ignore[arg-type]

    def cut(self, by: str, subject: str, ends: dict[str, Sequence[Record]] | None = None, *, reason: str = "remove", **said: object) -> Record:
        """``ends`` None: everything the subject has said so far still counts."""
        if ends is None:
            ends = {share: [record] for (author, share), record in self.last.items() if author == subject}
        named = {share: tuple(record.id for record in last) for share, last in ends.items()}
        return self.say(by, "", Cut(self.id(subject), named, reason), **said)  # type: ignore[arg-type]

    def policy(self, by: str, name: str, *, public: bool = True, said: dict[str, object] | None = None, **options: object) -> Record:
        return self.say(by, "", Policy(name, public, **options), **said or {})  # type: ignore[arg-type]

    def entry(
        self, by: str, path: str = "a", *, share: str = "munki", stage: str = "prod", supersedes: Iterable[RecordId] = (), source: str = "", **said: object
    ) -> Record:
        return self.say(by, share, entry_body(path, stage=stage, supersedes=supersedes, source=source), **said)  # type: ignore[arg-type]

    def tombstone(self, by: str, path: str = "a", *, share: str = "munki", stage: str = "prod", supersedes: Iterable[RecordId] = (), **said: object) -> Record:
        return self.say(by, share, Tombstone(path, stage, supersedes=tuple(supersedes)), **said)  # type: ignore[arg-type]

    def founded(self, admin: str = "ann") -> World:
        """With the founding grant."""
        self.grant("network", admin, Role.ADMIN)
        return self


def entry_body(path: str, *, stage: str = "prod", supersedes: Iterable[RecordId] = (), content: bytes = b"x", source: str = "") -> Entry:
    digest = sha256(content)
    manifest = Manifest.implied(digest, len(content))
    assert manifest
    return Entry(path, stage, digest, len(content), manifest.id, 1_700_000_000, "", tuple(supersedes), source or msgspec.UNSET)


def make(key: SigningKey, network: NodeId, header: Header, body: Body) -> Record:
    payload = records.encode(header, body)
    type_ = records.type_of(body)
    return records.restore(envelopes.seal(key, network, type_, payload), envelopes.record_id(network, type_, payload))


class Node:
    """A replica with the records it stored."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.replica = Replica(world.network, world.id("observer"))
        self.places: dict[RecordId, Place] = {}
        self.stored: list[Record] = []

    def offer(self, record: Record) -> Admission:
        admission = self.replica.judge(record, NOW_MS, self.places)
        if admission is Admission.NEW:
            self.replica.add(record, self.places)
            self.stored.append(record)
        return admission

    def deliver(self, offered: Iterable[Record]) -> Node:
        """Offer until nothing more is accepted."""
        waiting = list(offered)
        while waiting:
            left = [record for record in waiting if self.offer(record) in {Admission.GAP, Admission.STRANGER}]
            if len(left) == len(waiting):
                break
            waiting = left
        return self

    def counts(self, record: Record) -> bool:
        """Also False for what was never accepted."""
        return record.id in self.places and self.replica.trust.counts(record, self.places[record.id])

    def why_not(self, record: Record) -> str:
        return self.replica.trust.why_not(record, self.places[record.id])

    def counting(self) -> set[RecordId]:
        return {record.id for record in self.stored if self.counts(record)}


def node_with(world: World, offered: Iterable[Record] | None = None) -> Node:
    return Node(world).deliver(world.said if offered is None else offered)
