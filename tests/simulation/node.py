"""One simulated node: the product's replica and gossip core over a disk that forgets what was not synced, a clock that may be wrong, and an in-memory catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicad.errors import DistrustError, PeerError
from replicad.model import paths
from replicad.model.ids import NETWORK_SHARE, Stamp
from replicad.model.records import Entry, Record, Role, Tombstone, Unknown
from replicad.protocol import records as formats
from replicad.protocol import wire
from replicad.protocol.chains import Chains
from replicad.protocol.gossip.core import GOSSIP_MESSAGES, Gossip
from replicad.protocol.gossip.events import (
    Accuse,
    Chain,
    Committed,
    Describe,
    Described,
    Heard,
    Holdings,
    LinkClosed,
    LinkOpened,
    News,
    Now,
    Read,
    RightsChanged,
    Store,
    Stored,
    Tell,
    Tick,
)
from replicad.protocol.gossip.heads import Presence
from replicad.protocol.gossip.standing import Kept, Standing
from replicad.protocol.replica import Admission, Replica
from simulation.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Body, Envelope, Header
    from replicad.protocol.gossip.events import Effect, Event
    from replicad.protocol.runs import Place
    from simulation.watch import Watch
    from simulation.wire import Link, Wires

PASSES_MAX = 4
_LATER_MESSAGE = b"\x92\xa5later\x01"
"""As a later version might send it: ["later", 1]."""
SKEW_AUTHOR_MS = 300_000
"""A daemon whose clock contradicts its peers' by five minutes does not author (protocol.md section 3.3)."""


@dataclass
class Disk:
    """Transactions in order; those before ``synced`` survive a crash. ``heads`` is saved now and then."""

    commits: list[tuple[Record, ...]] = field(default_factory=list)
    synced: int = 0
    heads: list[Kept] = field(default_factory=list)

    def records(self) -> list[Record]:
        return [record for commit in self.commits for record in commit]

    def until(self, count: int) -> Disk:
        """A copy of the first transactions: what a crash left, or a backup."""
        return Disk(self.commits[:count], count, list(self.heads))


class Node:
    """A process with a key. ``honest`` nodes are judged by ``watch``. ``acknowledged``: own records that were durable before anybody heard of them."""

    def __init__(self, wires: Wires, name: str, *, key: SigningKey | None = None, watch: Watch) -> None:
        self.wires = wires
        self.name = name
        self.key = key or wires.key_of(name)
        self.id = self.key.id
        self.watch = watch
        self.honest = True
        self.alive = False
        self.offset_ms = 0
        self.disk = Disk()
        self.peers: dict[NodeId, Link] = {}
        self.acknowledged: list[Record] = []
        self.dialect = "same"
        self.withhold: Callable[[Envelope], bool] | None = None
        self.start()

    # -- life ---------------------------------------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> Now:
        return Now(self.wires.now_ms, self.wires.wall_ms + self.offset_ms)

    def start(self) -> None:
        """From what the disk has."""
        self.alive = True
        self.boot = object()
        self.replica = Replica(self.wires.network, self.id)
        self.places: dict[RecordId, Place] = {}
        self.at: dict[tuple[int, int], Record] = {}
        self.stored: dict[RecordId, Record] = {}
        self.heads_seen: dict[tuple[NodeId, str], tuple[int, int]] = {}
        self._load(self.disk.records())
        self._read_catalog()
        self.standing = Standing(lambda: self.replica.chains)
        for kept in self.disk.heads:
            self.standing.add(Kept(kept.head, kept.envelope, self.now.monotonic_ms - (1 << 42)))
        own = max((kept.head.incarnation for kept in self.disk.heads if kept.head.node == self.id), default=0)
        self.core = Gossip(
            key=self.key,
            replica=self.replica,
            standing=self.standing,
            incarnation=max(Stamp.of(self.now.wall_ms), Stamp(own + 1)),
            dice=self.wires.dice.random,
            now=self.now,
        )
        self._woken = 1 << 62
        self._wake()

    def _load(self, found: Sequence[Record]) -> None:
        chains = Chains()
        for record in found:
            chains.add(record, self.places)
            self.stored[record.id] = record
        self.at = {(place.run, place.seq): self.stored[id_] for id_, place in self.places.items()}
        runs = {run: chains.run(run) for run, _ in self.at}
        self.replica.load(runs.values(), [(record, self.places[record.id]) for record in found if record.header.share == NETWORK_SHARE], self.places)

    def _read_catalog(self) -> None:
        self.catalog = Catalog(self.replica, self.places, lambda name: self.watch.settled(self, name))
        self.catalog.add(self.stored.values(), self.now.wall_ms)

    def stop(self) -> None:
        """Everything in memory is gone; peers notice that their links ended."""
        self.alive = False
        self.boot = object()
        for link in list(self.peers.values()):
            self.wires.unlink(link)

    def crash(self, keep: float) -> None:
        """Lose power: of what was not synced only a part (whole transactions, in order) is on the disk."""
        self.stop()
        unsynced = len(self.disk.commits) - self.disk.synced
        self.disk = self.disk.until(self.disk.synced + int(unsynced * keep))

    def sync(self) -> None:
        """The disk catches up, as it does by itself every few seconds; heads are saved."""
        self.disk.synced = len(self.disk.commits)
        self.disk.heads = self.standing.kept()

    # -- events and effects -------------------------------------------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        if self.alive:
            self._perform(self.core.handle(event, self.now))
            self._wake()

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(node, message):
                    self.wires.transmit(self, node, message)
                case Store():
                    self._later(self._store, effect)
                case Read():
                    self._later(self._read, effect)
                case Describe(share):
                    self._later(self._describe, share)
                case News(node):
                    self.watch.news(self, node)
                case Accuse(node):
                    self.watch.accused(self, effect)
                    if (link := self.peers.get(node)) is not None:
                        self.wires.unlink(link)

    def _later(self, action: Callable[..., None], *arguments: object) -> None:
        """Work of a disk: a moment later, in order, unless the process is gone by then."""
        boot = self.boot
        self.wires.at(self.wires.now_ms + 1, lambda: action(*arguments) if self.boot is boot else None)

    def _wake(self) -> None:
        deadline = max(self.core.deadline_ms(), self.wires.now_ms)
        if not self.wires.now_ms < self._woken <= deadline:
            self._woken = deadline
            self.wires.at(deadline, self._tick, self.boot, deadline)

    def _tick(self, boot: object, deadline: int) -> None:
        if self.boot is boot and self._woken == deadline:
            self._woken = 1 << 62
            self.handle(Tick())

    def opened(self, node: NodeId) -> None:
        self.handle(LinkOpened(node))

    def closed(self, node: NodeId) -> None:
        self.handle(LinkClosed(node))

    def hear(self, link: Link, sender: NodeId, frame: bytes) -> None:
        try:
            message = self.wires.decode(frame)
        except PeerError:
            self.wires.unlink(link)
            return
        if isinstance(message, GOSSIP_MESSAGES) and not (self.dialect == "older" and isinstance(message, wire.Eager)):
            self.handle(Heard(sender, message))

    def frames(self, message: wire.Message) -> Iterable[bytes]:
        """What goes onto the wire. An older node does not know ``Eager``; a newer one adds items and messages that others ignore; a liar leaves records out."""
        if self.dialect == "older" and isinstance(message, wire.Eager):
            return ()
        if self.withhold is not None and isinstance(message, wire.Records):
            message = wire.Records(tuple(one for one in message.envelopes if not self.withhold(one)), message.pull, message.more)
        frame = wire.encode(message)
        return (_LATER_MESSAGE, _with_another_item(frame)) if self.dialect == "newer" else (frame,)

    # -- records ------------------------------------------------------------------------------------------------------------------------------------

    def admits(self, node: NodeId) -> bool:
        """Whether it links with that node: a liar does with everybody."""
        return not self.honest or node in self.replica.trust.members(self.now.wall_ms)

    def _store(self, store: Store) -> None:
        """As journal and ledger do it: leave out what is stored, verify, sort, judge in passes, one transaction."""
        unknown = []
        for envelope in store.envelopes:
            try:
                record = self.wires.parse(envelope)
            except DistrustError:
                continue
            if record.id not in self.stored:
                unknown.append(record)
        waiting = sorted(unknown, key=lambda record: (record.header.share != NETWORK_SHARE, record.order))
        now_ms = self.now.wall_ms
        fresh: list[Record] = []
        gaps: list[Record] = []
        for _ in range(PASSES_MAX):
            left = []
            gaps = []
            for record in waiting:
                admission = self.replica.judge(record, now_ms, self.places)
                if admission is Admission.NEW:
                    self._add(record)
                    fresh.append(record)
                elif admission in {Admission.GAP, Admission.STRANGER}:
                    left.append(record)
                    gaps += [record] if admission is Admission.GAP else []
            if len(left) in {0, len(waiting)}:
                break
            waiting = left
        if fresh:
            self._committed(fresh, store.node)
        self.handle(Stored(store, frozenset(record.header.origin for record in fresh), len(gaps)))

    def _add(self, record: Record) -> None:
        self.replica.add(record, self.places)
        place = self.places[record.id]
        self.at[place.run, place.seq] = record
        self.stored[record.id] = record
        self.watch.stored(self, record)

    def _committed(self, new: Sequence[Record], source: NodeId | None) -> None:
        self.watch.committed(self, new, source)
        self.disk.commits.append(tuple(new))
        if source is None:
            self.disk.synced = len(self.disk.commits)
        self.catalog.add(new, self.now.wall_ms)
        self.handle(Committed(tuple(new), source))
        if any(record.header.share == NETWORK_SHARE for record in new):
            self.handle(RightsChanged())
            self.heads_seen = {place: order for place, order in self.heads_seen.items() if self.standing.find(*place)}
            for node, link in list(self.peers.items()):
                if not self.admits(node):
                    self.wires.unlink(link)

    def _read(self, effect: Read) -> None:
        pull = effect.pull
        found: list[Envelope] = []
        size, more = 0, False
        for run, first, last in self.replica.chains.missing(pull.origin, pull.share, pull.have):
            for seq in range(first, last + 1):
                envelope = self.at[run, seq].envelope
                size += len(envelope.payload)
                if found and (size > wire.RECORDS_BYTES_PER_MESSAGE or len(found) == wire.RECORDS_PER_MESSAGE_MAX):
                    more = True
                    break
                found.append(envelope)
            if more:
                break
        self.handle(Chain(effect.node, pull, tuple(found), more))

    def _describe(self, share: str) -> None:
        presence = None if share else Presence(urls=(f"https://{self.name}:8440",), links=tuple(sorted(self.peers))[:64])
        self.handle(Described(share, Holdings(0, 0, None, ()), presence))

    # -- authoring ----------------------------------------------------------------------------------------------------------------------------------

    def may(self, share: str, body: Body, *, of: NodeId | None = None) -> bool:
        """What the ledger asks before it signs; ``of``: as somebody else might."""
        at = Stamp(max(self.replica.clock.last + 1, Stamp.of(self.now.wall_ms)))
        named = isinstance(body, Entry | Tombstone)
        stage, source = (*body.stages, None)[:2] if named else (None, None)
        return self.replica.trust.may(
            of or self.id,
            share=share,
            path_key=paths.key(body.path) if named else None,
            stage=stage,
            source=source,
            role=Role.PUBLISHER if named else Role.ADMIN,
            at=at,
        )

    def author(self, share: str, *bodies: Body, key: SigningKey | None = None, unchecked: bool = False) -> list[Record]:
        """Sign, make durable, then tell. Nothing if this node's grants do not cover it or its clock is wrong, unless ``unchecked``."""
        key = key or self.key
        if not self.alive or (
            not unchecked and (abs(self.offset_ms) >= SKEW_AUTHOR_MS or not all(key is not self.key or self.may(share, body) for body in bodies))
        ):
            return []
        made = []
        for body in bodies:
            record = self.sign(self.next_header(share, key), body, key=key)
            self._add(record)
            made.append(record)
        self._committed(made, None)
        self.acknowledged += made
        return made

    def next_header(self, share: str, key: SigningKey | None = None) -> Header:
        return self.replica.next_header(share, now_ms=self.now.wall_ms, random16=self.wires.dice.randrange(1 << 16), origin=(key or self.key).id)

    def sign(self, header: Header, body: Body, *, key: SigningKey | None = None) -> Record:
        return self.watch.sign(key or self.key, header, formats.type_of(body), formats.encode(header, body), body)

    def sign_unknown(self, header: Header) -> Record:
        """A record of a type that this version does not know."""
        payload = formats._CANONICAL.encode(formats._fields(header) | {"what": "a later version knows"})
        return self.watch.sign(self.key, header, "later-type", payload, Unknown())

    def cut_ends(self, subject: NodeId) -> dict[str, tuple[RecordId, ...]]:
        """What a cut names if everything said so far still counts."""
        chains = self.replica.chains
        return {share: tuple(self.at[run, last].id for run, _, last in chains.sound_ends(subject, share)) for share in chains.shares_of(subject)}

    def shares(self) -> list[str]:
        """The shares that this node has now."""
        member = self.replica.trust.members(self.now.wall_ms).get(self.id)
        return [NETWORK_SHARE, *(share for share in self.replica.trust.shares() if member is not None and member.has_share(share))]


def _with_another_item(frame: bytes) -> bytes:
    """The same message as a later version of the protocol might send it: arrays of fewer than 16 items have their length in the first byte."""
    return bytes([frame[0] + 1]) + frame[1:] + b"\xc0" if 0x90 <= frame[0] < 0x9F else frame
