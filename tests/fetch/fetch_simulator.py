"""Many nodes in one process: the real plan, supply and turns of each, on modelled links. One seed replays a run.

Transfers are fluid: what a node sends is divided among its receivers, what it receives among its senders, and what one side cannot use is left to the others. Verification and disks take no
time. Peers may lie in every way the protocol names.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import itemgetter
from typing import Any

from replicad.model.chunks import CHUNK_SIZE_MIN, Extent, chunk_count, chunk_size_for
from replicad.model.entries import Wanted
from replicad.model.ids import Digest, NodeId, Stamp
from replicad.model.manifest import Manifest
from replicad.model.members import Member
from replicad.model.records import Role
from replicad.protocol.fetch import events as ev
from replicad.protocol.fetch import sets, supply
from replicad.protocol.fetch.config import FetchConfig
from replicad.protocol.fetch.jobs import chunks_of
from replicad.protocol.fetch.plan import Plan
from replicad.protocol.fetch.supply import Supply
from replicad.protocol.fetch.turns import Turn, Turns
from replicad.protocol.gossip.neighbours import is_full_mesh, neighbours
from replicad.protocol.wire import Have, HaveMore, Hold, Interest, Seek, Small

LOSSY_BREAKS = 0.05
Request = ev.GetExtent | ev.GetBatch | ev.GetManifest


def node_id(number: int) -> NodeId:
    """A key that shows its number and is otherwise as good as random: who owns what hangs on keys."""
    return NodeId(number.to_bytes(4, "big") + hashlib.sha256(f"node {number}".encode()).digest()[4:])


def wanted(number: int, size: int, *, age: int = 0, origin: bytes = b"") -> Wanted:
    """Content that exists only as numbers. Small ones have the manifest that their size implies."""
    content = Digest(hashlib.sha256(f"content {number}".encode()).digest())
    implied = Manifest.implied(content, size)
    manifest = implied.id if implied else Digest(hashlib.sha256(f"manifest {number}".encode()).digest())
    return Wanted(content, size, manifest, Stamp.of(1000 + age), origin)


@dataclass(eq=False)
class Flow:
    source: Node
    sink: Node
    remaining: float
    done: Callable[[], None]
    rate: float = 0.0
    offer: float = 0.0
    since: float = 0.0
    version: int = 0


@dataclass(eq=False)
class Node:
    """One simulated daemon. ``lie`` names what it does to those who ask it: "" nothing, "flip", "short", "absent", "busy", "hang", "manifest"; or its trouble (``Swarm.afflict``)."""

    id: NodeId
    up: float
    down: float
    plan: Plan
    supply: Supply
    turns: Turns
    lie: str = ""
    alive: bool = True
    site: str = ""
    held: dict[ev.Target, int] = field(default_factory=dict)
    small: set[Small] = field(default_factory=set)
    counts: dict[ev.Target, int] = field(default_factory=dict)
    manifests: set[ev.Target] = field(default_factory=set)
    complete: dict[Digest, float] = field(default_factory=dict)
    blamed: Counter[tuple[NodeId, str]] = field(default_factory=Counter)
    outs: dict[Flow, None] = field(default_factory=dict)
    ins: dict[Flow, None] = field(default_factory=dict)
    asked: dict[int, tuple[Request, int]] = field(default_factory=dict)
    sent_bytes: float = 0.0
    most_in_flight: int = 0
    most_contents: int = 0
    most_per_peer: int = 0
    wakeup: float = float("inf")


class Swarm:
    """The world: nodes, time, messages, transfers."""

    def __init__(self, seed: int, *, latency_s: float = 0.002) -> None:
        self.dice = random.Random(seed)
        self.now = 0.0
        self.latency_s = latency_s
        self.nodes: dict[NodeId, Node] = {}
        self.wanted: dict[Digest, Wanted] = {}
        self.messages = 0
        self.events = 0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._serving: dict[int, tuple[Node, Node, int, Request]] = {}
        self._flows: dict[int, Flow] = {}
        self._spread: dict[int, frozenset[Small]] = {}
        self.break_off: Callable[[], bool] = lambda: False
        """Whether the answer that is there now broke off instead."""
        self.abroad: Counter[str] = Counter()
        """Bytes that came to each site from others."""
        self._links: dict[frozenset[NodeId], None] = {}

    # -- building

    def add(self, *, up: float, down: float, lie: str = "", config: FetchConfig | None = None, site: str = "", linked: bool = True) -> Node:
        """A node, linked to all others unless ``linked`` is False."""
        config = config or FetchConfig()
        own = node_id(len(self.nodes) + 1)
        node = Node(own, up, down, Plan(own, config, self.dice.randrange), Supply(self.dice.randrange), Turns(config), lie, site=site)
        for other in self.nodes.values() if linked else ():
            self.link(node, other)
        self.nodes[node.id] = node
        return node

    def link_like_the_product(self) -> None:
        """Links as ``protocol.gossip.neighbours`` chooses them: everybody with everybody, or in a large network with a few."""
        members = {node.id: _member(node) for node in self.nodes.values()}
        chosen = {node: list(members) if is_full_mesh(members) else neighbours(node, members) for node in members}
        for one, other in sorted({(min(node, other), max(node, other)) for node, others in chosen.items() for other in others if other != node}):
            self.link(self.nodes[one], self.nodes[other])

    def crash(self, node: Node) -> None:
        """It dies in the middle of everything; all its links break."""
        for other in [self.nodes[other] for pair in self._links if node.id in pair for other in pair - {node.id}]:
            self.unlink(node, other)
        node.alive = False

    def afflict(self, node: Node, trouble: str) -> None:
        """From now on the node is "slow" (1 % of the rate), "frozen" (nothing it was told or asked is answered, its links stay), "resets" (every answer breaks off in the middle), or "lossy" (a
        twentieth of what passes is lost: TCP is left with a tenth of the rate, and answers break off now and then).
        """
        if trouble in {"slow", "lossy"}:
            share = {"slow": 0.01, "lossy": 0.1}[trouble]
            node.up, node.down = node.up * share, node.down * share
        node.lie = trouble if trouble != "slow" else ""
        for flow in [*node.outs, *node.ins] if trouble == "frozen" else ():
            self._progress(flow)
            flow.version += 1
            del flow.source.outs[flow], flow.sink.ins[flow]
            self._share(flow.source, flow.sink)

    def link(self, one: Node, other: Node) -> None:
        """A link begins to work."""
        self._links[frozenset((one.id, other.id))] = None
        self.tell(one, ev.PeerUp(other.id))
        self.tell(other, ev.PeerUp(one.id))

    def unlink(self, one: Node, other: Node) -> None:
        """A link breaks: requests in either direction fail."""
        self._links.pop(frozenset((one.id, other.id)), None)
        for number, (source, sink, request_number, _) in list(self._serving.items()):
            if number in self._serving and {source, sink} == {one, other}:  # ending one request may have ended this one
                self._finish_serving(number)
                self._end(sink, ev.Ended(request_number, fault=ev.Fault.BROKEN))
        for node, gone in ((one, other), (other, one)):
            self.tell(node, ev.PeerDown(gone.id))
            self._say_all(node, node.supply.handle(supply.Left(gone.id), self.now))

    def hold(self, node: Node, contents: Iterable[Wanted]) -> None:
        """The node has these from the beginning."""
        for one in contents:
            self.wanted[one.content] = one
            if one.size <= CHUNK_SIZE_MIN:
                self._gain_small(node, {Small(one.content, one.size)})
            else:
                target = ev.Target(one.content, one.manifest)
                node.counts[target] = chunk_count(one.size, chunk_size_for(one.size))
                node.manifests.add(target)
                self._gain(node, target, sets.full(node.counts[target]))

    def want(self, node: Node, contents: Iterable[Wanted], *, cut: bool = False) -> None:
        """The node learns that it should hold these."""
        ordered = tuple(sorted(contents, key=lambda one: one.hlc))
        self.wanted.update((one.content, one) for one in ordered)
        self.tell(node, ev.Wants(ordered, cut))

    # -- time

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do it then."""
        self._sequence += 1
        heappush(self._agenda, (self.now + delay_s, self._sequence, action))

    def run(self, until: Callable[[], bool], *, limit_s: float = 100_000.0) -> float:
        """Until the condition holds; returns the time. Raises when nothing more would ever happen, or the limit has passed."""
        while not until():
            if not self._agenda:
                raise AssertionError(f"nothing more happens at {self.now:.3f} s")
            self.now, _, action = heappop(self._agenda)
            if self.now > limit_s:
                raise AssertionError(f"not done after {limit_s} s")
            action()
        return self.now

    def tell(self, node: Node, event: ev.Event) -> None:
        """Give the node's plan an event and do what it says."""
        if not node.alive or node.lie == "frozen":
            return
        self.events += 1
        for effect in node.plan.handle(event, self.now):
            self._perform(node, effect)
        self._note(node)
        self._schedule(node)

    def _note(self, node: Node) -> None:
        statistics = node.plan.statistics()
        node.most_in_flight = max(node.most_in_flight, statistics.in_flight_bytes)
        node.most_contents = max(node.most_contents, sum(hasattr(job, "state") for job in node.plan.jobs()) if len(self.wanted) > 1 else 1)
        if node.asked:
            node.most_per_peer = max(node.most_per_peer, *Counter(request.node for request, _ in node.asked.values()).values())

    def _schedule(self, node: Node) -> None:
        due = node.wakeup
        if node.lie == "frozen":
            return
        for time in (node.plan.next_deadline(), node.supply.next_deadline(), node.turns.next_deadline()):
            if time is not None and time < due:
                due = max(time, self.now + 1e-6)
        if due < node.wakeup:
            node.wakeup = due
            self.later(due - self.now, lambda: self._wake(node, due))

    def _wake(self, node: Node, due: float) -> None:
        if node.wakeup != due or not node.alive or node.lie == "frozen":
            return
        node.wakeup = float("inf")
        self._say_all(node, node.supply.handle(supply.Due(), self.now))
        self._admit(node)
        self.tell(node, ev.Tick())

    # -- effects

    def _perform(self, node: Node, effect: ev.Effect) -> None:
        match effect:
            case ev.Say():
                self._say(node, effect)
            case ev.Open():
                target = effect.target
                self.later(0, lambda: self._open(node, target))
            case ev.GetManifest() | ev.GetExtent() | ev.GetBatch():
                self._ask(node, effect)
            case ev.Cancel():
                self._cancel(node, effect.number)
            case ev.Finish():
                self._finish(node, effect.target)
            case ev.Close():
                if effect.discard:
                    node.held.pop(effect.target, None)
            case ev.Blame():
                node.blamed[effect.node, effect.offence] += 1

    def _open(self, node: Node, target: ev.Target) -> None:
        if node.site:
            self.tell(node, ev.Crew(target, frozenset(other.id for other in self.nodes.values() if other.site == node.site and other.alive)))
        self.tell(node, ev.Opened(target, target in node.manifests, node.held.get(target, 0)))

    def _finish(self, node: Node, target: ev.Target) -> None:
        sound = self.wanted[target.content].manifest == target.manifest
        if sound:
            node.complete[target.content] = self.now
        else:
            node.held.pop(target, None)
        self.later(0, lambda: self.tell(node, ev.Finished(target, sound)))

    def _say_all(self, node: Node, says: Iterable[ev.Say]) -> None:
        for say in says:
            self._say(node, say)
        self._schedule(node)

    def _say(self, node: Node, say: ev.Say) -> None:
        self.messages += 1
        other = self.nodes[say.node]
        self.later(self.latency_s, lambda: self._hear(other, node, say.message))

    def _hear(self, node: Node, sender: Node, message: Interest | Have | HaveMore | Seek | Hold) -> None:
        if not node.alive or not sender.alive or "frozen" in {node.lie, sender.lie}:
            return
        says: list[ev.Say] = []
        match message:
            case Interest():
                target = ev.Target(message.content, message.manifest)
                if message.active:
                    servable = node.held.get(target, 0) or (sets.full(node.counts.get(target, 0)) if node.lie == "absent" else 0)
                    says = node.supply.handle(supply.Watch(sender.id, target, node.counts.get(target, 0), servable, near=sender.site == node.site), self.now)
                else:
                    says = node.supply.handle(supply.Unwatch(sender.id, target), self.now)
                self.tell(node, ev.Rival(sender.id, target, message.active))
            case Seek():
                held = tuple(small for small in message.contents if small in node.small)
                says = node.supply.handle(supply.Sought(sender.id, message.contents, held, message.active), self.now)
                self.tell(node, ev.Rival(sender.id, None, node.supply.seeks(sender.id)))
            case Have() | HaveMore():
                self.tell(node, ev.Told(sender.id, message))
                target = ev.Target(message.content, message.manifest)
                if (count := node.counts.get(target)) is not None:
                    says = node.supply.handle(supply.Has(sender.id, target, chunks_of(message, count), whole=isinstance(message, Have)), self.now)
            case Hold():
                self.tell(node, ev.Told(sender.id, message))
                if message.held:
                    says = node.supply.handle(supply.Sought(sender.id, message.contents, (), active=False), self.now)
                    self.tell(node, ev.Rival(sender.id, None, node.supply.seeks(sender.id)))
        self._say_all(node, says)

    # -- requests

    def _ask(self, node: Node, request: Request) -> None:
        self._sequence += 1
        number = self._sequence
        node.asked[request.number] = request, number
        source = self.nodes[request.node]
        self._serving[number] = source, node, request.number, request
        self.later(self.latency_s, lambda: self._serve(number))

    def _serve(self, number: int) -> None:
        if number not in self._serving:
            return
        source, sink, _, _ = self._serving[number]
        if not source.alive or "frozen" in {source.lie, sink.lie} or source.lie == "hang":
            return
        source.turns.peers = source.supply.watching
        turn = Turn.BUSY if source.lie == "busy" else source.turns.ask(number, sink.id, self.now)
        if turn is Turn.BUSY:
            self._answer(number, fault=ev.Fault.BUSY)
        elif turn is Turn.NOW:
            self._start(number)
        self._schedule(source)

    def _admit(self, source: Node) -> None:
        for number in source.turns.due(self.now):
            self._start(number)
        self._schedule(source)

    def _start(self, number: int) -> None:
        source, sink, _, request = self._serving[number]
        size = self._size(source, request)
        if size is None:
            self._answer(number, fault=ev.Fault.ABSENT)
            return
        if isinstance(request, ev.GetBatch):
            held = [small for small in map(ev.small_of, request.wanted) if small in source.small]
            spread = self._spread[number] = source.supply.spreads_small(sink.id, held, self.now, site=sink.site) if request.patient else frozenset()
            source.supply.handle(supply.AskedSmall(sink.id, tuple(small for small in held if small not in spread), sink.site), self.now)
            size -= sum(small.size for small in spread)
        if isinstance(request, ev.GetExtent):
            if source.supply.spreads(sink.id, request.target, request.extent, self.now):
                self._answer(number, fault=ev.Fault.BUSY)
                return
            self._say_all(source, source.supply.handle(supply.Asked(sink.id, request.target, request.extent), self.now))
        flow = self._flows[number] = Flow(source, sink, size * (0.5 if source.lie == "short" else 1) + 300, lambda: self._flowed(number), since=self.now)
        source.outs[flow] = sink.ins[flow] = None
        self._share(source, sink)

    def _size(self, source: Node, request: Request) -> int | None:
        match request:
            case ev.GetManifest():
                target = ev.Target(request.wanted.content, request.wanted.manifest)
                return 32 * source.counts[target] if target in source.manifests else None
            case ev.GetExtent():
                need = sets.run(request.extent.first, request.extent.count)
                if need & ~source.held.get(request.target, 0):
                    return None
                size = self.wanted[request.target.content].size
                start, stop = request.extent.byte_range(size, chunk_size_for(size))
                return stop - start
        return sum(one.size for one in request.wanted if Small(one.content, one.size) in source.small)

    def _flowed(self, number: int) -> None:
        source, sink, _, request = self._serving[number]
        if "resets" in {source.lie, sink.lie} or ("lossy" in {source.lie, sink.lie} and self.dice.random() < LOSSY_BREAKS):
            self._answer(number, fault=ev.Fault.BROKEN)
            return
        if source.lie == "short" or self.break_off():
            self._answer(number, fault=ev.Fault.CUT)
            return
        match request:
            case ev.GetManifest():
                if source.lie == "manifest":
                    self._answer(number, fault=ev.Fault.BAD_MANIFEST)
                    return
                target = ev.Target(request.wanted.content, request.wanted.manifest)
                self._answer(number)
                sink.manifests.add(target)
                sink.counts[target] = source.counts[target]
                self.later(self.latency_s, lambda: self.tell(sink, ev.Opened(target, manifest=True, verified=sink.held.get(target, 0))))
            case ev.GetExtent():
                places = tuple(range(request.extent.count))
                self._answer(number, good=() if source.lie == "flip" else places, bad=places if source.lie == "flip" else ())
            case ev.GetBatch():
                said = [(at, ev.small_of(one)) for at, one in enumerate(request.wanted)]
                spread = tuple(at for at, small in said if small in self._spread[number])
                present = tuple(at for at, small in said if small in source.small and small not in self._spread[number])
                absent = tuple(at for at, small in said if small not in source.small)
                lies = source.lie == "flip"
                self._answer(number, good=() if lies else present, bad=present if lies else (), absent=absent, spread=spread)

    def _answer(self, number: int, **outcome: Any) -> None:
        source, sink, request_number, request = self._serving[number]
        if isinstance(request, ev.GetBatch) and outcome.get("fault") in {ev.Fault.BROKEN, ev.Fault.CUT}:
            source.supply.handle(supply.UndeliveredSmall(sink.id, tuple(map(ev.small_of, request.wanted)), sink.site), self.now)
        self._finish_serving(number)
        self.later(self.latency_s, lambda: self._end(sink, ev.Ended(request_number, **outcome)))

    def _finish_serving(self, number: int) -> None:
        source, sink, _, _ = self._serving.pop(number)
        self._spread.pop(number, None)
        flow = self._flows.pop(number, None)
        if flow is not None:
            self._progress(flow)
            source.outs.pop(flow, None)
            sink.ins.pop(flow, None)
            flow.version += 1
            self._share(source, sink)
        source.turns.done(number)
        self._admit(source)

    def _end(self, sink: Node, event: ev.Ended) -> None:
        found = sink.asked.pop(event.number, None)
        if found is None or not sink.alive:
            return
        request = found[0]
        if isinstance(request, ev.GetExtent):
            self._gain(sink, request.target, sets.of(request.extent.first + at for at in event.good))
        elif isinstance(request, ev.GetBatch):
            self._gain_small(sink, {ev.small_of(request.wanted[at]) for at in event.good})
        self.tell(sink, event)

    def _cancel(self, node: Node, number: int) -> None:
        found = node.asked.pop(number, None)
        if found is not None and found[1] in self._serving:
            self._finish_serving(found[1])

    def _gain(self, node: Node, target: ev.Target, chunks: int) -> None:
        if chunks:
            node.held[target] = node.held.get(target, 0) | chunks
            self._say_all(node, node.supply.handle(supply.Servable(target, node.counts[target], node.held[target]), self.now))

    def _gain_small(self, node: Node, contents: set[Small]) -> None:
        node.small |= contents
        for small in contents:
            node.complete.setdefault(small.content, self.now)
        self._say_all(node, node.supply.handle(supply.SmallHeld(tuple(sorted(contents, key=lambda small: small.content))), self.now))

    # -- the fluid model

    def _progress(self, flow: Flow) -> None:
        moved = flow.rate * (self.now - flow.since)
        flow.remaining -= moved
        flow.source.sent_bytes += moved
        if flow.source.site != flow.sink.site:
            self.abroad[flow.sink.site] += moved
        flow.since = self.now

    def _share(self, source: Node, sink: Node) -> None:
        """Something began or ended between these two: the source divides its uplink anew among what its sinks could take; those that are offered something else, and this one, divide their downlinks anew."""
        changed = {sink.id: sink}
        offers = _divide(source.up, {flow: _room(flow) for flow in source.outs})
        for flow in source.outs:
            if flow.offer != offers[flow]:
                flow.offer = offers[flow]
                changed[flow.sink.id] = flow.sink
        for node in changed.values():
            for flow, rate in _divide(node.down, {flow: flow.offer for flow in node.ins}).items():
                self._set_rate(flow, rate)

    def _set_rate(self, flow: Flow, rate: float) -> None:
        if abs(rate - flow.rate) <= 1e-9 * rate:
            return
        self._progress(flow)
        flow.rate = rate
        flow.version += 1
        self.later(max(flow.remaining, 0) / rate, lambda version=flow.version: flow.done() if flow.version == version else None)


def _divide(capacity: float, bounds: dict[Flow, float]) -> dict[Flow, float]:
    """Fair shares of a capacity among flows that cannot use more than their bound."""
    shares: dict[Flow, float] = {}
    left, count = capacity, len(bounds)
    for flow, bound in sorted(bounds.items(), key=itemgetter(1)):
        even = left / count
        shares[flow] = share = min(even, bound)
        left -= share
        count -= 1
    return shares


def _room(flow: Flow) -> float:
    """What the flow's sink could take of it: the share of one without a bound among the others."""
    left, count = flow.sink.down, len(flow.sink.ins)
    for bound in sorted([other.offer for other in flow.sink.ins if other is not flow]):
        even = left / count
        left -= min(even, bound)
        count -= 1
    return left


def _member(node: Node) -> Member:
    return Member(node.id, "", Role.MIRROR, node.site, None, None, Stamp(0), node.id)


def extent(first: int, count: int) -> Extent:
    """Shorthand."""
    return Extent(first, count)
