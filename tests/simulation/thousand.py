"""A large network that shares one base catalog: up to a thousand nodes, each with its own replica and core over the same immutable records; links as ``protocol.gossip.neighbours`` chooses them. For how fast and how dear, not for liars.

grown = Grown(1000); grown.steady(); grown.partition(); ...; grown.heal()
"""

from __future__ import annotations

import copy
import gc
import math
from collections import ChainMap, Counter, defaultdict
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from replicad.crypto.hashing import sha256
from replicad.model.manifest import Manifest
from replicad.model.records import Entry, Grant, Policy, Role
from replicad.protocol.clock import HybridClock
from replicad.protocol.gossip.core import ROUND_MS
from replicad.protocol.gossip.neighbours import is_full_mesh, neighbours
from replicad.protocol.replica import Replica
from replicad.protocol.wire import Heads, Records
from simulation.catalog import Catalog
from simulation.node import Node
from simulation.watch import Watch
from simulation.wire import Weather, Wires, _bounded, once_for_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Envelope, Record
    from replicad.protocol import wire
    from replicad.protocol.gossip.events import Accuse
    from replicad.protocol.runs import Tree
    from simulation.catalog import Name

SITES = 10
AUTHORS = 20
DIALS = 50
"""Links that open within ``DIAL_MS``: each brings every head that the other may know."""
DIAL_MS = 50
HEADLESS_MS = 600_000
LATENCY_MS = 20
"""The same on all links, so that what comes first came by the fewest hops."""


class Onlooker(Watch):
    """Counts instead of judging: by how many hops, and how often, each new record came to whom."""

    def __init__(self, wires: Wires) -> None:
        super().__init__(wires)
        self.hops: dict[RecordId, dict[NodeId, int]] = defaultdict(dict)
        self.reached_ms: dict[RecordId, dict[NodeId, int]] = defaultdict(dict)
        self.copies: Counter[RecordId] = Counter()

    def stored(self, node: Node, record: Record) -> None:
        pass

    def settled(self, node: Node, name: Name) -> None:
        pass

    def news(self, node: Node, about: NodeId) -> None:
        pass

    def accused(self, node: Node, effect: Accuse) -> None:
        raise AssertionError(f"{node.name} accuses: {effect.offence} {effect.detail}")

    def committed(self, node: Node, new: Sequence[Record], source: NodeId | None) -> None:
        for record in new:
            hops = self.hops[record.id]
            hops[node.id] = 0 if source is None else hops.get(source, 0) + 1
            self.reached_ms[record.id][node.id] = self.wires.now_ms

    def overheard(self, sender: Node, receiver: Node, message: wire.Message) -> None:
        del sender, receiver
        if isinstance(message, Records):
            for envelope in message.envelopes:
                self.copies[self.wires.parse(envelope).id] += 1


class SharingWires(Wires):
    """Equal envelopes are one object, however many nodes keep them."""

    def __init__(self, seed: int | str) -> None:
        super().__init__(seed)
        self._envelopes: dict[Envelope, Envelope] = {}

    def decode(self, frame: bytes) -> wire.Message | None:
        message = super().decode(frame)
        if isinstance(message, Heads):
            known = _bounded(self._envelopes)
            return Heads(tuple(known.setdefault(one, one) for one in message.envelopes), message.ages_s)
        return message


class SharingNode(Node):
    """Begins as a fork of a base."""

    def __init__(self, wires: Wires, name: str, *, base: Node, watch: Watch) -> None:
        self._base = base
        super().__init__(wires, name, watch=watch)

    def _load(self, found: Sequence[Record]) -> None:
        del found
        base = self._base
        self.places = ChainMap({}, base.places)
        self.stored = ChainMap({}, base.stored)
        self.at = ChainMap({}, base.at)
        self.replica = fork(base.replica, self.id)

    def _read_catalog(self) -> None:
        """Nobody asks what is shown: the base's will do."""
        self.catalog = Unread(self.replica, self.places, lambda _: None)


class Unread(Catalog):
    """Keeps nothing."""

    def add(self, new: Iterable[Record], now_ms: int) -> None:
        pass


def fork(base: Replica, own: NodeId) -> Replica:
    """A replica with the same records, that shares what never changes with the first: runs, records, the tree of authority."""
    made = copy.copy(base)
    made.own, made._opened, made.clock = own, {}, HybridClock(base.clock.last)
    made.chains = chains = copy.copy(base.chains)
    chains._trees = defaultdict(dict, {share: {origin: _forked(tree) for origin, tree in trees.items()} for share, trees in base.chains._trees.items()})
    chains._runs, chains._tips, chains._hashes = dict(base.chains._runs), dict(base.chains._tips), dict(base.chains._hashes)
    chains._anchors, chains._disturbed = {}, set()
    made.trust = trust = copy.copy(base.trust)
    trust._chains, trust._changed = chains, set()
    trust._grants, trust._cuts, trust._policies = list(trust._grants), list(trust._cuts), list(trust._policies)
    return made


def _forked(tree: Tree) -> Tree:
    made = copy.copy(tree)
    made.runs, made._leaves, made._forks, made._void_from = dict(tree.runs), set(tree._leaves), dict(tree._forks), dict(tree._void_from)
    made._incarnations = defaultdict(list, {incarnation: list(runs) for incarnation, runs in tree._incarnations.items()})
    return made


class Grown(AbstractContextManager["Grown"]):
    """A network of that many nodes that have agreed about ``entries`` entries for a long time."""

    def __init__(self, size: int, *, seed: int = 1, entries: int = 2_000) -> None:
        self._cached = once_for_all()
        self._cached.__enter__()
        gc.disable()
        self.wires = SharingWires(seed)
        self.wires.weather = Weather(latency_ms=(LATENCY_MS, LATENCY_MS))
        self.dice = self.wires.dice
        self.watch = Onlooker(self.wires)
        base = Node(self.wires, "base", watch=self.watch)
        keys = [self.wires.key_of(f"n{number}") for number in range(size)]
        base.author("", Grant(keys[0].id, "n0", Role.ADMIN, "s0"), Policy("munki", public=True), key=self.wires.key)
        base.author("", Policy("munki", public=True), key=keys[0])
        base.author("", *(Grant(key.id, f"n{number}", Role.PUBLISHER, f"s{number % SITES}") for number, key in enumerate(keys) if number), key=keys[0])
        authors = keys[: min(AUTHORS, size)]
        for number in range(entries):
            base.author("munki", entry(f"old/{number}"), key=authors[number % len(authors)])
        base.stop()
        base.replica.trust.members(base.now.wall_ms)
        for share in ("", "munki"):
            base.replica.chains.frontier_hash(share)
        self.nodes = [SharingNode(self.wires, f"n{number}", base=base, watch=self.watch) for number in range(size)]
        self.by_id = {node.id: node for node in self.nodes}
        members = base.replica.trust.members(base.now.wall_ms)
        self.pairs = sorted({tuple(sorted((node.name, self.by_id[other].name))) for node in self.nodes for other in _chosen(node.id, members)})
        self._by_name = {node.name: node for node in self.nodes}

    def __exit__(self, *_: object) -> None:
        gc.enable()
        self._cached.__exit__(None, None, None)

    def connect(self) -> None:
        """The chosen links, a few after the other, as nodes dial."""
        for count, (one, other) in enumerate(self.pairs, 1):
            if self._by_name[other].id not in self._by_name[one].peers:
                self.wires.link(self._by_name[one], self._by_name[other])
                if count % DIALS == 0:
                    self.wires.run(DIAL_MS)

    def steady(self, *, heads: bool = True) -> None:
        """As after a long time: linked, and everybody has said what there was to be said. Without ``heads`` nobody makes one for the next ten minutes: they are nearly all of the work, and agreement does
        not need them; the trees along which bursts travel then come from records alone.
        """
        for node in self.nodes:
            for own in node.core._announce._own.values():
                if not heads:
                    own.said_ms = self.wires.now_ms + HEADLESS_MS
                own.change_ms, own.next_ms = None, self.wires.now_ms + self.dice.randrange(ROUND_MS * len(self.nodes))
        self.connect()
        self.wires.run(5_000)

    def partition(self, side: Sequence[Node]) -> None:
        """Every link between these and the others ends."""
        inside = {node.name for node in side}
        for node in side:
            for link in list(node.peers.values()):
                if (link.first.name in inside) != (link.second.name in inside):
                    self.wires.unlink(link)

    def agree(self) -> bool:
        return len({node.replica.chains.frontier_hash("munki") for node in self.nodes}) == 1

    def heal(self, rounds_max: int) -> float:
        """The links come back: anti-entropy rounds until all agree, infinite if more than ``rounds_max``."""
        begun = self.wires.now_ms
        self.connect()
        return self.rounds_until_agreement(rounds_max, begun_ms=begun)

    def rounds_until_agreement(self, rounds_max: int, *, begun_ms: int | None = None) -> float:
        """Anti-entropy rounds; infinite if not within ``rounds_max``."""
        begun = self.wires.now_ms if begun_ms is None else begun_ms
        return (self.wires.now_ms - begun) / ROUND_MS if self.wires.run(rounds_max * ROUND_MS, until=self.agree, every_ms=100) else math.inf

    def hops(self, record: Record, share: float) -> int:
        """By how many hops the record had come to that share of all nodes."""
        return sorted(self.watch.hops[record.id].values())[math.ceil(share * len(self.nodes)) - 1]


def _chosen(own: NodeId, members: object) -> list[NodeId]:
    """As the product decides: everybody in a small network."""
    return [node for node in members if node != own] if is_full_mesh(members) else neighbours(own, members)


def entry(path: str) -> Entry:
    manifest = Manifest.implied(sha256(path.encode()), len(path))
    assert manifest is not None
    return Entry(path, "prod", manifest.content, manifest.size, manifest.id, 1_700_000_000)
