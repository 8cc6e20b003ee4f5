"""What must hold, looked at while it happens. Each violation names its invariant (protocol.md section 9), the node, and what it saw.

The judge knows more than the nodes: who really signed what, which records were forged or made without a right, who was never granted a share. What counts and who wins it works out by ``reference``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from replicad.crypto import envelope as envelopes
from replicad.errors import DistrustError, PeerError
from replicad.model.ids import NETWORK_SHARE, Stamp
from replicad.model.records import BODIES, Cut, Entry, Envelope, Grant, Record, Tombstone, Unknown
from replicad.protocol import wire
from replicad.protocol.clock import FUTURE_MAX_MS
from replicad.protocol.gossip import heads
from simulation import reference
from simulation.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId, RecordId
    from replicad.model.records import Body, Header
    from replicad.protocol.gossip.events import Accuse
    from simulation.catalog import Name
    from simulation.node import Node
    from simulation.wire import Wires


class Violation(AssertionError):  # noqa: N818 - the word for it
    """An invariant does not hold."""

    def __init__(self, invariant: str, node: Node | None, what: str) -> None:
        super().__init__(f"{invariant} at {node.name if node else 'the network'}: {what}")
        self.invariant = invariant


class Watch:
    """``forbidden``: ids of records made without a right. ``never``: by share, who must never hear of it. ``lost``: own records that a restored disk forgot before anybody else had them."""

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.signed: set[Envelope] = set()
        self.forbidden: set[RecordId] = set()
        self.never: dict[str, set[NodeId]] = {}
        self.lost: set[RecordId] = set()
        self.founder: NodeId | None = None
        self.accusations: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self._cut_at: dict[str, dict[NodeId, Stamp]] = defaultdict(dict)
        self._granted_at: dict[str, dict[NodeId, Stamp]] = defaultdict(dict)
        wires.overheard = self.overheard

    def sign(self, key: SigningKey, header: Header, type_: str, payload: bytes, body: Body) -> Record:
        """The only hand that signs: what it did not sign is forged."""
        envelope = envelopes.seal(key, self.wires.network, type_, payload)
        self.signed.add(envelope)
        return Record(envelope, envelopes.record_id(self.wires.network, type_, payload), header, body)

    # -- as it happens ------------------------------------------------------------------------------------------------------------------------------

    def stored(self, node: Node, record: Record) -> None:
        """I1, I8: signed by who is named, one after the other, and not from the future."""
        if not node.honest:
            return
        self.checks["stored"] += 1
        header = record.header
        if record.envelope not in self.signed or header.origin != record.envelope.key or (record.envelope.type in BODIES) == isinstance(record.body, Unknown):
            raise Violation("I1", node, f"stored a forged {record.envelope.type} of {header.origin.short}")
        before = node.stored.get(header.prev) if header.prev else None
        if (before is None) != (header.seq == 1):
            raise Violation("I8", node, f"a gap before seq {header.seq} of {header.origin.short} in {header.share!r}")
        if before is not None:
            ours, theirs = header, before.header
            same = (ours.origin, ours.share) == (theirs.origin, theirs.share)
            if not same or ours.seq != theirs.seq + 1 or ours.hlc <= theirs.hlc or ours.incarnation < theirs.incarnation:
                raise Violation("I8", node, f"seq {ours.seq} of {ours.origin.short} in {ours.share!r} contradicts its predecessor")
        if header.origin != node.id and header.hlc.ms > node.now.wall_ms + FUTURE_MAX_MS:
            raise Violation("I8", node, f"a record {header.hlc.ms - node.now.wall_ms} ms in the future")
        self._note_rights(node, record)

    def _note_rights(self, node: Node, record: Record) -> None:
        if isinstance(record.body, Cut) and record.header.origin in {self.founder, self.wires.network}:
            cut_at = self._cut_at[node.name]
            cut_at[record.body.subject] = max(cut_at.get(record.body.subject, Stamp(0)), record.header.hlc)
        elif isinstance(record.body, Grant):
            granted = self._granted_at[node.name]
            granted[record.body.subject] = max(granted.get(record.body.subject, Stamp(0)), record.header.hlc)

    def committed(self, node: Node, new: Sequence[Record], source: NodeId | None) -> None:
        """For who counts how far things went."""

    def forget(self, node: Node) -> None:
        """Its disk does not have all of it any more."""
        self._cut_at.pop(node.name, None)
        self._granted_at.pop(node.name, None)
        for record in node.disk.records():
            self._note_rights(node, record)

    def settled(self, node: Node, name: Name) -> None:
        """I4, I5, I6, I14: of what this node has and takes to count, the right one wins and is shown; nothing forbidden, nothing deleted, nothing older than what it replaced."""
        if not node.honest:
            return
        self.checks["settled"] += 1
        catalog = node.catalog
        stages = _counting(node, name)
        policy = node.replica.trust.shares().get(name[0])
        immutable = policy is not None and policy.immutable
        for stage in catalog.names[name]:
            found = catalog.resolutions[*name, stage]
            expected = [record.id for record in reference.live(stages, stage, immutable=immutable)] if stage in stages else []
            files = [id_ for id_ in expected if isinstance(node.stored[id_].body, Entry)]
            if (found.winner, *found.siblings) != tuple(files or [None]) or list(found.live) != expected:
                deleted = found.winner is not None and found.winner not in expected
                raise Violation("I4" if deleted else "I5", node, f"{name} at {stage}: {len(expected)} live, another winner than by the rules")
            if found.winner in self.forbidden:
                raise Violation("I6", node, f"{name} at {stage}: shows what its author had no right to say")
        best = reference.shown(stages, catalog.carried.get(name[0], ()), immutable=immutable)
        if catalog.visible(name) != (best.id if best else None):
            raise Violation("I14", node, f"{name}: shows another stage than the lowest it carries")

    def news(self, node: Node, about: NodeId) -> None:
        """I8: heads only get newer, and are signed by whom they speak of."""
        if not node.honest:
            return
        for share in ("", *node.replica.trust.shares()):
            kept = node.standing.find(about, share)
            if kept is None or node.heads_seen.get((about, share)) == kept.head.order:
                continue
            if kept.head.order < node.heads_seen.get((about, share), (0, 0)):
                raise Violation("I8", node, f"the head of {about.short} for {share!r} went back")
            node.heads_seen[about, share] = kept.head.order
            try:
                heads.verify(kept.envelope, self.wires.network)
            except DistrustError:
                raise Violation("I1", node, f"keeps a forged head of {about.short}") from None

    def accused(self, node: Node, effect: Accuse) -> None:
        if node.honest:
            self.accusations[effect.offence] += 1

    def overheard(self, sender: Node, receiver: Node, message: wire.Message) -> None:
        """I17: nothing of a share goes to who was never granted it, nothing at all to who is known to be expelled."""
        if not sender.honest:
            return
        self.checks["overheard"] += 1
        cut_at = self._cut_at[sender.name].get(receiver.id)
        if cut_at is not None and cut_at > self._granted_at[sender.name].get(receiver.id, 0) and says_something(message):
            raise Violation("I17", sender, f"{type(message).__name__} to {receiver.name}, whom it knows to be expelled")
        for share, strangers in self.never.items():
            if receiver.id in strangers and share in self._shares(message):
                raise Violation("I17", sender, f"{type(message).__name__} about {share!r} to {receiver.name}, who was never granted it")

    def _shares(self, message: wire.Message) -> Iterator[str]:
        match message:
            case wire.Records():
                for envelope in message.envelopes:
                    yield self.wires.parse(envelope).header.share
            case wire.Heads():
                for envelope in message.envelopes:
                    yield heads.order(envelope)[0]
            case wire.Compare():
                yield from message.frontiers
            case wire.Compared():
                yield from (*message.same, *message.differ)
            case wire.Frontier() | wire.Pull():
                yield message.share

    # -- now and then -------------------------------------------------------------------------------------------------------------------------------

    def check(self, node: Node) -> Reference:
        """I6, I7: the node believes exactly what follows from the records it has. I8, I11: its frontier says what it has; its tables are bounded."""
        self.checks["check"] += 1
        opinion = Reference(self.wires.network, node.stored.values())
        now = Stamp.of(node.now.wall_ms)
        for record in node.stored.values():
            if isinstance(record.body, Entry | Tombstone) and node.catalog.counts[record.id] != opinion.counts(record):
                reason = node.replica.trust.why_not(record, node.places[record.id]) or "nothing"
                invariant = "I7" if any(cut.body.subject == record.header.origin for cut in opinion._of(Cut)) else "I6"
                raise Violation(
                    invariant,
                    node,
                    f"{record.envelope.type} {record.header.seq} of {record.header.origin.short} should{' not' * (reason == 'nothing')} count: {reason} forbids it",
                )
        members = node.replica.trust.members(node.now.wall_ms)
        if set(members) != opinion.members(now.ms):
            raise Violation("I7", node, "other members than by the rules")
        policies = {name: (share.immutable, share.stages) for name, share in node.replica.trust.shares().items()}
        if policies != opinion.policies():
            raise Violation("I6", node, "other shares than by the rules")
        if set(node.replica.trust.taken_down()) != opinion.taken_down():
            raise Violation("I6", node, "other contents taken down than by the rules")
        strangers = opinion.strangers()
        if strangers:
            raise Violation("I6", node, f"stored what {next(iter(strangers)).header.origin.short} said, to whom no grant gives the role for it")
        self._check_frontier(node)
        self._check_bounds(node)
        return opinion

    @staticmethod
    def _check_frontier(node: Node) -> None:
        ends: dict[tuple[str, NodeId], dict[RecordId, Record]] = defaultdict(dict)
        followed = {record.header.prev for record in node.stored.values()}
        for record in node.stored.values():
            if record.id not in followed:
                ends[record.header.share, record.header.origin][record.id] = record
        for (share, origin), last in ends.items():
            expected = sorted((one.header.incarnation, one.header.seq, bytes(one.id)) for one in last.values())
            if [(end.incarnation, end.seq, bytes(end.id)) for end in node.replica.chains.ends(origin, share)] != expected[-wire.ENDS_PER_LINE_MAX :]:
                raise Violation("I8", node, f"its frontier does not say what it has of {origin.short} in {share!r}")

    def _check_bounds(self, node: Node) -> None:
        """Whatever was sent to it: what the core keeps is a matter of members, shares, links and chains."""
        chains = sum(len(node.replica.chains.frontier(share)) for share in ("", *node.replica.trust.shares()))
        members = len(self._granted_at[node.name]) + 2
        bound = 500 + 4 * chains + 20 * members + (len(node.peers) + 2) * (2 * chains + 300)
        found = entries(node.core, skip=(node.replica, node.replica.chains, node.replica.trust, node.key))
        if found > bound:
            raise Violation("I11", node, f"{found} entries in the core's tables, at most {bound} expected")

    # -- at the end ---------------------------------------------------------------------------------------------------------------------------------

    def agree(self, nodes: Iterable[Node]) -> bool:
        """Every honest member has the same records of every share that it has."""
        return not self.differing(nodes)

    def differing(self, nodes: Iterable[Node]) -> list[str]:
        seen: dict[str, set[bytes]] = defaultdict(set)
        for node in nodes:
            for share in node.shares():
                seen[share].add(node.replica.chains.frontier_hash(share))
        return [share for share, hashes in seen.items() if len(hashes) > 1]

    def final(self, nodes: list[Node], authors: Iterable[Node]) -> None:
        """I2, I3, I5, I7: after everything, all have the same, nothing acknowledged is missing, and the founder's view is right."""
        differing = self.differing(nodes)
        if differing:
            raise Violation("I2", None, f"no agreement about {differing}")
        founder = next(node for node in nodes if node.id == self.founder)
        opinion = self.check(founder)
        now = Stamp.of(founder.now.wall_ms)
        for node in nodes:
            for share in node.shares():
                self._compare(founder, node, share)
            for name in node.catalog.names:
                self.settled(node, name)
        for author in authors:
            for record in author.acknowledged:
                share = record.header.share
                entitled = author.id in opinion.members(now.ms) and (
                    share == NETWORK_SHARE or (share in opinion.policies() and opinion.has_share(author.id, share, now))
                )
                if entitled and record.id not in self.lost and record.id not in founder.stored:
                    raise Violation("I3", author, f"its {record.envelope.type} {record.header.seq} in {share!r} is lost")

    @staticmethod
    def _compare(founder: Node, node: Node, share: str) -> None:
        mine = {id_: node.catalog.counts[id_] for id_, record in node.stored.items() if record.header.share == share}
        theirs = {id_: founder.catalog.counts[id_] for id_, record in founder.stored.items() if record.header.share == share}
        if mine != theirs:
            raise Violation("I2" if mine.keys() != theirs.keys() else "I7", node, f"other records of {share!r} than the founder, or others count")
        ours = {name: found for name, found in node.catalog.resolutions.items() if name[0] == share}
        if ours != {name: found for name, found in founder.catalog.resolutions.items() if name[0] == share}:
            raise Violation("I5", node, f"other winners in {share!r} than the founder")


def _counting(node: Node, name: Name) -> dict[str, list[Record]]:
    counts = node.catalog.counts
    found = {stage: [record for record in records.values() if counts[record.id]] for stage, records in node.catalog.names[name].items()}
    return {stage: records for stage, records in found.items() if records}


def says_something(message: wire.Message) -> bool:
    """Whether there is anything in it that an expelled node should not get."""
    match message:
        case wire.Records():
            return bool(message.envelopes)
        case wire.Heads():
            return True
        case wire.Compared():
            return bool(message.same or message.differ)
        case wire.Compare() | wire.Frontier() | wire.Pull():
            return True
    return False


def entries(thing: object, *, skip: Iterable[object] = ()) -> int:
    """How many entries the containers have that hang on an object of the core."""
    seen = {id(one) for one in skip}
    total, waiting = 0, [thing]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float | Record | Envelope | msgspec.Struct | type) or callable(one):
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            total += len(one)
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            total += len(one)
            waiting += islice(one, 100_000)
        else:
            waiting += [getattr(one, name) for name in (*getattr(one, "__dict__", ()), *getattr(type(one), "__slots__", ())) if hasattr(one, name)]
    return total


__all__ = ["PeerError", "Violation", "Watch", "entries"]
