"""Many gossip cores in one virtual time: the product core, an in-memory catalog, and links that delay, lose, duplicate and reorder messages or end.

Everything comes from one ``random.Random``: a seed replays exactly. Messages are really encoded and decoded, so their size is counted and what would not fit on the wire fails.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from replicad.crypto import envelope as envelopes
from replicad.crypto.hashing import sha256
from replicad.crypto.keys import SigningKey
from replicad.model.ids import Digest, NodeId, RecordId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.records import Body, Entry, Envelope, Grant, Policy, Record, Role
from replicad.protocol import records as codec
from replicad.protocol.gossip.core import Gossip
from replicad.protocol.gossip.events import (
    Accuse,
    Agreed,
    Chain,
    Committed,
    Describe,
    Described,
    Effect,
    Event,
    Heard,
    Holdings,
    HoldingsChanged,
    LinkClosed,
    LinkOpened,
    Now,
    Read,
    RightsChanged,
    Store,
    Stored,
    Tell,
    Tick,
)
from replicad.protocol.gossip.heads import Missing, Presence
from replicad.protocol.gossip.standing import Standing
from replicad.protocol.replica import Admission, Replica, mentions
from replicad.protocol.runs import Place
from replicad.protocol.wire import RECORDS_BYTES_PER_MESSAGE, Message, Records, decode, encode

EPOCH_MS = 1_700_000_000_000
START_MS = 1_000_000


@dataclass
class Wire:
    """How links behave. Times in milliseconds; probabilities per message."""

    latency_ms: tuple[int, int] = (1, 20)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: bool = False


@dataclass
class Cost:
    """What was sent, by message type."""

    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    record_bytes: int = 0

    def count(self, message: Message, size: int) -> None:
        self.messages[type(message).__name__] += 1
        self.bytes[type(message).__name__] += size
        if isinstance(message, Records):
            self.record_bytes += sum(len(encode(Records((envelope,)))) - len(encode(Records(()))) for envelope in message.envelopes)

    @property
    def overhead(self) -> int:
        """Bytes besides the records themselves and heads."""
        return sum(self.bytes.values()) - self.record_bytes - self.bytes["Heads"]


class Node:
    """One node: keys, replica, stored records, core."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.key = SigningKey(sha256(f"{network.label} {name}".encode()))
        self.id = self.key.id
        self.replica = Replica(network.key.id, self.id)
        self.places: dict[RecordId, Place] = {}
        self.at: dict[tuple[int, int], Record] = {}
        self.standing = Standing(lambda: self.replica.chains)
        self.held: set[Digest] = set()
        self.missing: dict[Digest, int] = {}
        self.accused: list[Accuse] = []
        self.agreed: Counter[NodeId] = Counter()
        self.duplicates = 0
        self.boot()

    def boot(self) -> None:
        self.core = Gossip(
            key=self.key,
            replica=self.replica,
            standing=self.standing,
            incarnation=Stamp.of(self.network.now.wall_ms),
            dice=self.network.dice.random,
            now=self.network.now,
        )

    def handle(self, event: Event) -> None:
        self.perform(self.core.handle(event, self.network.now))
        self.network.wake(self)

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Tell(node, message):
                    self.network.transmit(self, node, message)
                case Store():
                    self.network.later(lambda effect=effect: self.store(effect))
                case Read(node, pull):
                    self.network.later(lambda node=node, pull=pull: self.handle(Chain(node, pull, *self.read(pull.share, pull.origin, pull.have))))
                case Describe(share):
                    self.network.later(lambda share=share: self.handle(self.describe(share)))
                case Agreed(node):
                    self.agreed[node] += 1
                case Accuse():
                    self.accused.append(effect)

    def store(self, store: Store) -> None:
        fresh, gaps = [], 0
        for envelope in store.envelopes:
            record = self.network.parse(envelope)
            admission = self.replica.judge(record, self.network.now.wall_ms, self.places)
            if admission is Admission.NEW:
                self.add(record)
                fresh.append(record)
            gaps += admission is Admission.GAP
            self.duplicates += admission is Admission.DUPLICATE
        if fresh:
            self.committed(fresh, store.node)
        self.handle(Stored(store, frozenset(record.header.origin for record in fresh), gaps))

    def add(self, record: Record) -> None:
        assert mentions(record)
        self.replica.add(record, self.places)
        place = self.places[record.id]
        self.at[place.run, place.seq] = record

    def committed(self, new: list[Record], source: NodeId | None) -> None:
        self.handle(Committed(tuple(new), source))
        if any(record.header.share == "" for record in new):
            self.handle(RightsChanged())

    def read(self, share: str, origin: NodeId, have: dict[Stamp, int]) -> tuple[tuple[Envelope, ...], bool]:
        found: list[Envelope] = []
        size = 0
        for run, first, last in self.replica.chains.missing(origin, share, have):
            for seq in range(first, last + 1):
                envelope = self.at[run, seq].envelope
                if found and size + len(envelope.payload) > min(RECORDS_BYTES_PER_MESSAGE, self.network.batch_bytes):
                    return tuple(found), True
                found.append(envelope)
                size += len(envelope.payload)
        return tuple(found), False

    def describe(self, share: str) -> Described:
        newest = tuple(Missing(content, percent) for content, percent in itertools.islice(self.missing.items(), 64))
        holdings = Holdings(len(self.missing), 1000 * len(self.missing), Stamp(1) if self.missing else None, newest)
        return Described(share, holdings if share else Holdings(0, 0, None, ()), None if share else Presence(urls=(f"https://{self.name}:8440",)))

    def fetch(self, content: Digest, percent: int | None) -> None:
        """Want a content, get further with it, or hold it (None)."""
        if percent is None:
            self.missing.pop(content, None)
        else:
            self.missing[content] = percent
        self.handle(HoldingsChanged())

    def author(self, share: str, *bodies: Body, key: SigningKey | None = None) -> list[Record]:
        made = []
        for body in bodies:
            record = self.network.say(self.replica, key or self.key, share, body)
            self.add(record)
            made.append(record)
        self.committed(made, None)
        return made

    def publish(self, share: str, count: int = 1) -> list[Record]:
        return self.author(share, *(entry(f"{self.name}/{next(self.network.serial)}") for _ in range(count)))

    def frontier(self) -> dict[str, Digest]:
        shares = ["", *self.replica.trust.shares()]
        return {share: self.replica.chains.frontier_hash(share) for share in shares if self.may_have(share)}

    def may_have(self, share: str) -> bool:
        member = self.replica.trust.members(self.network.now.wall_ms).get(self.id)
        return share == "" or (member is not None and member.has_share(share))


class Network:
    """Nodes, links and the clock."""

    def __init__(self, dice: random.Random, *, wire: Wire | None = None, label: str = "net") -> None:
        self.dice = dice
        self.wire = wire or Wire()
        self.label = label
        self.key = SigningKey(sha256(f"{label} network".encode()))
        self.now = Now(START_MS, EPOCH_MS)
        self.batch_bytes = RECORDS_BYTES_PER_MESSAGE
        self.cost = Cost()
        self.serial = itertools.count()
        self.nodes: dict[NodeId, Node] = {}
        self.links: dict[frozenset[NodeId], int] = {}
        self.parsed: dict[bytes, Record] = {}
        self.heard: list[tuple[NodeId, NodeId, Message]] = []
        self.spy: Callable[[Node, NodeId, Message], bool] | None = None
        self.dialect: Callable[[Node, bytes], Iterable[bytes]] = lambda _sender, frame: (frame,)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last_arrival: dict[tuple[NodeId, NodeId], int] = defaultdict(int)
        self._generation = itertools.count(1)
        self._woken: dict[NodeId, int] = {}

    # -- people -------------------------------------------------------------------------------------------------------------------------------------

    def found(self, names: Iterable[str], *, shares: Iterable[str] = ("munki",), role: Role = Role.PUBLISHER) -> list[Node]:
        """Nodes of one network; the first is its admin and knows of all, the others know what admits them."""
        made = [Node(self, name) for name in names]
        admin = made[0]
        self.nodes = {node.id: node for node in made}
        admin.author("", Grant(admin.id, admin.name, Role.ADMIN), key=self.key)
        admin.author("", *(Policy(share, public=True) for share in shares), *(Grant(node.id, node.name, role) for node in made[1:]))
        for node in made[1:]:
            self.copy_network(admin, node)
        return made

    def copy_network(self, source: Node, node: Node) -> None:
        """What joining does: all network-wide records at once."""
        new = [record for _, record in sorted(source.at.items()) if record.header.share == "" and record.id not in node.places]
        for record in new:
            node.add(record)
        node.committed(new, None)

    def say(self, replica: Replica, key: SigningKey, share: str, body: Body) -> Record:
        header = replica.next_header(share, now_ms=self.now.wall_ms, random16=self.dice.randrange(1 << 16), origin=key.id)
        payload = codec.encode(header, body)
        type_ = codec.type_of(body)
        record = codec.restore(envelopes.seal(key, self.key.id, type_, payload), envelopes.record_id(self.key.id, type_, payload))
        self.parsed[record.envelope.signature] = record
        return record

    def parse(self, envelope: Envelope) -> Record:
        """Verified and parsed, once for all nodes."""
        if (found := self.parsed.get(envelope.signature)) is None or found.envelope != envelope:
            found = self.parsed[envelope.signature] = codec.parse(envelope, self.key.id)
        return found

    # -- links --------------------------------------------------------------------------------------------------------------------------------------

    def link(self, first: Node, second: Node) -> None:
        pair = frozenset((first.id, second.id))
        if pair not in self.links:
            self.links[pair] = next(self._generation)
            first.handle(LinkOpened(second.id))
            second.handle(LinkOpened(first.id))

    def unlink(self, first: Node, second: Node) -> None:
        if self.links.pop(frozenset((first.id, second.id)), None) is not None:
            first.handle(LinkClosed(second.id))
            second.handle(LinkClosed(first.id))

    def mesh(self, nodes: Iterable[Node] | None = None) -> None:
        for first, second in itertools.combinations(list(nodes or self.nodes.values()), 2):
            self.link(first, second)

    def transmit(self, sender: Node, to: NodeId, message: Message) -> None:
        frame = encode(message)
        generation = self.links.get(frozenset((sender.id, to)))
        if generation is None:
            return
        self.cost.count(message, len(frame))
        if self.spy is not None and not self.spy(sender, to, message):
            return
        for _ in range(1 + (self.dice.random() < self.wire.duplicate)):
            if self.dice.random() < self.wire.loss:
                continue
            arrival = self.now.monotonic_ms + self.dice.randint(*self.wire.latency_ms)
            if not self.wire.reorder:
                arrival = max(arrival, self._last_arrival[sender.id, to])
                self._last_arrival[sender.id, to] = arrival
            for piece in self.dialect(sender, frame):
                self.at_ms(arrival, lambda piece=piece: self._deliver(sender.id, to, piece, generation))

    def _deliver(self, sender: NodeId, to: NodeId, frame: bytes, generation: int) -> None:
        if self.links.get(frozenset((sender, to))) == generation and (message := decode(frame)) is not None:
            self.nodes[to].handle(Heard(sender, message))

    # -- time ---------------------------------------------------------------------------------------------------------------------------------------

    def at_ms(self, time_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time_ms, next(self._order), action))

    def later(self, action: Callable[[], None]) -> None:
        """Work of a disk: a moment later, in order."""
        self.at_ms(self.now.monotonic_ms + 1, action)

    def wake(self, node: Node) -> None:
        deadline = node.core.deadline_ms()
        if self._woken.get(node.id, 1 << 62) > deadline or self._woken[node.id] <= self.now.monotonic_ms:
            self._woken[node.id] = deadline
            self.at_ms(max(deadline, self.now.monotonic_ms), lambda: node.handle(Tick()))

    def run(self, seconds: float, *, until: Callable[[], bool] | None = None) -> float:
        """Let that much virtual time pass, or less if ``until`` comes true; returns the seconds passed."""
        begun = self.now.monotonic_ms
        end = begun + int(seconds * 1000)
        while not (until is not None and until()):
            if not self._queue or self._queue[0][0] > end:
                self._pass(end)
                break
            time_ms, _, action = heapq.heappop(self._queue)
            self._pass(time_ms)
            action()
        return (self.now.monotonic_ms - begun) / 1000

    def _pass(self, time_ms: int) -> None:
        time_ms = max(time_ms, self.now.monotonic_ms)
        self.now = Now(time_ms, EPOCH_MS + time_ms - START_MS)

    # -- what must hold -----------------------------------------------------------------------------------------------------------------------------

    def agree(self) -> bool:
        """All nodes that share something have the same records of it."""
        seen: dict[str, set[Digest]] = defaultdict(set)
        for node in self.nodes.values():
            for share, digest in node.frontier().items():
                seen[share].add(digest)
        return all(len(hashes) == 1 for hashes in seen.values())


def entry(path: str, content: bytes = b"x") -> Entry:
    digest = sha256(content)
    manifest = Manifest.implied(digest, len(content))
    assert manifest is not None
    return Entry(path, "prod", digest, len(content), manifest.id, 1_700_000_000)
