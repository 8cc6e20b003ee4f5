"""Heads: making this node's own, keeping and relaying everybody's newest.

Own heads go out on change, the first change at once and then at most one a second per share, and otherwise every interval. A change of a share is a change for all its members: where they are
many each waits a random while first, so that nobody hears of it from all at once, and what happens meanwhile is told by the same head. What a head says about contents is asked for by ``Describe`` after the
frontier was noted, so it may only claim too little. A head that would say the same as the last one waits for the interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from replicad.errors import PeerError, SignatureError
from replicad.model.ids import NETWORK_SHARE, NodeId, Stamp
from replicad.protocol.gossip import heads
from replicad.protocol.gossip.events import Describe, Described, Effect, News, Now, Tell
from replicad.protocol.gossip.heads import Head, HeadEnd
from replicad.protocol.gossip.standing import Kept, Standing
from replicad.protocol.wire import HEADS_PER_MESSAGE_MAX, Heads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicad.crypto.keys import SigningKey
    from replicad.model.records import Envelope
    from replicad.protocol.gossip.rights import Rights
    from replicad.protocol.gossip.routes import Routes
    from replicad.protocol.replica import Replica

CHANGE_MS_MIN = 1_000
PROGRESS_MS = 3_000
"""So often a head says how far contents have come that are still missing, if nothing else changes: what people watch. Every second it took a sixth of the event loop's time of 17 nodes that fetched (bench/swarm.py)."""
LOOK_MS_MIN = 200
"""Between two looks at what is held: so many heads a second would be made at most by a node that gets everything it wants again and again."""
CHANGES_PER_S = 50
"""Heads about changes that a node hears, all members together, roughly: up to so many members speak at once, of 1,000 each waits up to 19 s more (bench/simulation.py)."""
RELAY_MS = 200
"""Relayed heads are collected for this long: of several from one node only the newest is passed on."""
MESSAGE_BYTES = 512 * 1024
ENDS_RECENT_MS = 3_600_000
AGE_S_MAX = 1 << 32
_JITTER = 0.1


@dataclass
class _Own:
    """This node's head of one share. It is due at ``next_ms``, and at ``change_ms`` if something changed. ``begun`` is the head without contents while those are asked for."""

    said: Head | None = None
    said_ms: int = -CHANGE_MS_MIN
    looked_ms: int = -CHANGE_MS_MIN
    next_ms: int = 0
    change_ms: int | None = 0
    begun: Head | None = None


@dataclass
class _Outbox:
    """Heads waiting for one peer, newest per (node, share)."""

    kept: dict[tuple[NodeId, str], Kept] = field(default_factory=dict)
    sent_ms: int = -RELAY_MS


class Announce:
    """Own and others' heads. ``dice`` gives 0.0 to 1.0. ``incarnation`` must be above that of every earlier own head."""

    def __init__(
        self, *, key: SigningKey, replica: Replica, rights: Rights, routes: Routes, standing: Standing, incarnation: Stamp, dice: Callable[[], float]
    ) -> None:
        self._key = key
        self._replica = replica
        self._rights = rights
        self._routes = routes
        self._standing = standing
        self._incarnation = incarnation
        self._dice = dice
        self._counter = 0
        self._own: dict[str, _Own] = {}
        self._outboxes: dict[NodeId, _Outbox] = {}

    def open(self, node: NodeId, now: Now, out: list[Effect]) -> None:
        """A link begins: tell the peer every head that it may know, and everybody that there is a new link."""
        self._outboxes[node] = _Outbox()
        self.tell_all(node, now, out)
        self.changed(now, [NETWORK_SHARE])

    def close(self, node: NodeId, now: Now) -> None:
        """A link ended."""
        self._outboxes.pop(node, None)
        self.changed(now, [NETWORK_SHARE])

    def changed(self, now: Now, shares: Iterable[str] | None = None) -> None:
        """Something that heads of these shares (None: of all) say is different now."""
        spread_ms = self._spread_ms()
        for share, own in self._own.items():
            if own.change_ms is None and (shares is None or share in shares):
                own.change_ms = max(own.said_ms + CHANGE_MS_MIN, now.monotonic_ms + int(spread_ms * self._dice()))

    def holdings_changed(self, now: Now) -> None:
        """Look soon at what is held: that nothing is missing any more is what people wait for, and does not wait for the second."""
        self.changed(now)
        if self._spread_ms() == 0:
            for own in self._own.values():
                own.change_ms = min(own.change_ms or 0, max(own.looked_ms + LOOK_MS_MIN, now.monotonic_ms))

    def _spread_ms(self) -> int:
        return max(0, len(self._rights.members) * 1000 // CHANGES_PER_S - CHANGE_MS_MIN)

    def rights_changed(self) -> None:
        """Follow the members and the shares of this node."""
        shares = self._rights.own_shares()
        for gone in self._own.keys() - set(shares):
            del self._own[gone]
        for share in shares:
            self._own.setdefault(share, _Own())
        for head in [kept.head for kept in self._standing.kept() if not self._rights.may_share(kept.head.node, kept.head.share)]:
            self._standing.forget(head.node, head.share)

    def due(self, now: Now, out: list[Effect]) -> None:
        """Begin own heads whose time has come, and pass on what was collected."""
        for share, own in self._own.items():
            if own.begun is None and self._at_ms(own) <= now.monotonic_ms:
                own.begun = self._begin(share, now)
                own.change_ms = None
                out.append(Describe(share))
        for node, outbox in self._outboxes.items():
            if outbox.kept and now.monotonic_ms - outbox.sent_ms >= RELAY_MS:
                self._flush(node, outbox, now, out)

    def deadline_ms(self) -> int | None:
        """When ``due`` has something to do."""
        own = [self._at_ms(own) for own in self._own.values() if own.begun is None]
        boxes = [outbox.sent_ms + RELAY_MS for outbox in self._outboxes.values() if outbox.kept]
        return min(own + boxes, default=None)

    def described(self, event: Described, now: Now, out: list[Effect]) -> None:
        """Finish and send an own head, unless it would say what the last one did."""
        own = self._own.get(event.share)
        if own is None or own.begun is None:
            return
        begun, own.begun = own.begun, None
        holdings = event.holdings
        own.looked_ms = now.monotonic_ms
        if holdings.count:
            own.change_ms = now.monotonic_ms + max(PROGRESS_MS, int(self._spread_ms() * self._dice()))
        head = msgspec.structs.replace(
            begun,
            missing=holdings.newest,
            missing_count=holdings.count,
            missing_bytes=holdings.size_bytes,
            missing_since=holdings.oldest,
            presence=event.presence,
        )
        if now.monotonic_ms < own.next_ms and own.said is not None:
            if _says(head) == _says(own.said):
                return
            may_ms = own.said_ms + CHANGE_MS_MIN
            if now.monotonic_ms < may_ms and (holdings.count or not own.said.missing_count):
                own.change_ms = may_ms
                return
        own.said_ms = now.monotonic_ms
        self._counter += 1
        head = msgspec.structs.replace(head, incarnation=self._incarnation, counter=self._counter)
        own.said = head
        own.next_ms = now.monotonic_ms + int(head.interval_ms * (1 - _JITTER * self._dice()))
        kept = Kept(head, heads.sign(self._key, self._replica.network, head), now.monotonic_ms)
        self._standing.add(kept)
        self._pass_on(kept, None, now, out)

    def heard(self, node: NodeId, message: Heads, now: Now, out: list[Effect]) -> list[Head]:
        """Take heads from a peer; returns those that were news. Raises PeerError for what is not a head or not signed."""
        if len(message.ages_s) != len(message.envelopes):
            raise PeerError("heads and their ages differ in number", code="bad-head")
        fresh: list[Head] = []
        repeated: list[NodeId] = []
        for envelope, age_s in zip(message.envelopes, message.ages_s, strict=True):
            share, order = heads.order(envelope)
            if envelope.key == self._rights.own:
                self._reborn(envelope, order)
            elif self._rights.may_share(envelope.key, share):
                known = self._standing.find(envelope.key, share)
                if known is not None and known.head.order >= order:
                    repeated.append(envelope.key)
                else:
                    fresh.append(self._take(node, envelope, now.monotonic_ms - 1000 * min(age_s, AGE_S_MAX), now, out))
        authors = {head.node for head in fresh}
        self._routes.arrived(node, fresh=authors, repeated=set(repeated) - authors, out=out)
        return fresh

    def tell_all(self, node: NodeId, now: Now, out: list[Effect]) -> None:
        """Every head that the peer may know, in bounded messages; also its own, should it have forgotten how far it was."""
        outbox = self._outboxes[node]
        outbox.kept = {(kept.head.node, kept.head.share): kept for kept in self._standing.kept()}
        self._flush(node, outbox, now, out)

    # -- own heads ----------------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _at_ms(own: _Own) -> int:
        return own.next_ms if own.change_ms is None else min(own.next_ms, own.change_ms)

    def _begin(self, share: str, now: Now) -> Head:
        """The head with everything but contents; incarnation and counter follow when it is said."""
        chains = self._replica.chains
        ends = [HeadEnd(run.origin, run.incarnation, run.last_seq, run.last_hlc) for origin in chains.frontier(share) for run in chains.leaves(origin, share)]
        whole = len(ends) <= heads.ENDS_MAX
        if not whole:
            recent = Stamp.of(max(0, now.wall_ms - ENDS_RECENT_MS))
            ends = sorted((end for end in ends if end.hlc >= recent), key=lambda end: end.hlc, reverse=True)[: heads.ENDS_MAX]
        interval_ms = heads.interval_ms(len(self._rights.members) * len(self._own))
        return Head(self._rights.own, share, Stamp(0), 0, now.wall_ms, interval_ms, chains.frontier_hash(share), tuple(ends), whole)

    def _reborn(self, envelope: Envelope, order: tuple[int, int]) -> None:
        """A head of this node that is newer than any it made: its clock went back, or its key was cloned. Speak above it."""
        if order[0] > self._incarnation:
            self._verify(envelope)
            self._incarnation = Stamp(order[0] + 1)
            self._counter = 0
            for own in self._own.values():
                own.next_ms = 0

    # -- everybody's ----------------------------------------------------------------------------------------------------------------------------------

    def _may_tell(self, node: NodeId, head: Head) -> bool:
        return self._rights.may_share(node, head.share) and (head.node == self._rights.own or self._rights.may_share(head.node, head.share))

    def _take(self, node: NodeId, envelope: Envelope, made_at_ms: int, now: Now, out: list[Effect]) -> Head:
        head = heads.peek(envelope)
        self._verify(envelope)
        kept = Kept(head, envelope, made_at_ms)
        if self._standing.add(kept):
            out.append(News(head.node))
            self._pass_on(kept, node, now, out)
        return head

    def _verify(self, envelope: Envelope) -> None:
        try:
            heads.verify(envelope, self._replica.network)
        except SignatureError as error:
            raise PeerError(f"head without a valid signature: {error.message}", code="bad-head") from None

    def _pass_on(self, kept: Kept, source: NodeId | None, now: Now, out: list[Effect]) -> None:
        for node, outbox in self._outboxes.items():
            if node != source and self._routes.wants(node, kept.head.node):
                outbox.kept[kept.head.node, kept.head.share] = kept
                if source is None or now.monotonic_ms - outbox.sent_ms >= RELAY_MS:
                    self._flush(node, outbox, now, out)

    def _flush(self, node: NodeId, outbox: _Outbox, now: Now, out: list[Effect]) -> None:
        """Send what the peer may know: rights may have changed while it waited."""
        envelopes: list[Envelope] = []
        ages_s: list[int] = []
        size = 0
        for kept in outbox.kept.values():
            if not self._may_tell(node, kept.head):
                continue
            if envelopes and (len(envelopes) >= HEADS_PER_MESSAGE_MAX or size + len(kept.envelope.payload) > MESSAGE_BYTES):
                out.append(Tell(node, Heads(tuple(envelopes), tuple(ages_s))))
                envelopes, ages_s, size = [], [], 0
            envelopes.append(kept.envelope)
            ages_s.append(max(0, now.monotonic_ms - kept.made_at_ms) // 1000)
            size += len(kept.envelope.payload) + 160
        if envelopes:
            out.append(Tell(node, Heads(tuple(envelopes), tuple(ages_s))))
        outbox.kept.clear()
        outbox.sent_ms = now.monotonic_ms


def _says(head: Head) -> Head:
    """The head without what differs every time."""
    return msgspec.structs.replace(head, incarnation=Stamp(0), counter=0, made_ms=0, presence=_steady(head))


def _steady(head: Head) -> heads.Presence | None:
    """Presence without disk and load, which change all the time and can wait for the interval."""
    return msgspec.structs.replace(head.presence, disk_used=0, disk_free=0, load_percent=0) if head.presence else None
