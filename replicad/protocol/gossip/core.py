"""The gossip core: one object that hears what happened and answers what is to be done. No clock, no dice, no wires.

    effects = core.handle(event, now)        core.deadline_ms()        core.in_sync(node)

It ties the parts together: ``push`` (new records at once), ``announce`` (heads), ``exchange`` and ``pulls`` (anti-entropy), ``routes`` (who relays what to whom), ``rights`` (who may hear
what). The service in ``replicad.services.gossip`` and the simulator drive the same object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicad.errors import PeerError
from replicad.protocol.gossip.announce import Announce
from replicad.protocol.gossip.events import (
    Accuse,
    Agreed,
    Chain,
    Committed,
    Described,
    Effect,
    Event,
    Heard,
    HoldingsChanged,
    LinkClosed,
    LinkOpened,
    Now,
    Read,
    RightsChanged,
    Store,
    Stored,
    Tell,
)
from replicad.protocol.gossip.exchange import Exchange
from replicad.protocol.gossip.follow import Follow
from replicad.protocol.gossip.pulls import Pulls
from replicad.protocol.gossip.push import Push
from replicad.protocol.gossip.rights import Rights
from replicad.protocol.gossip.routes import Routes
from replicad.protocol.wire import Compare, Compared, Eager, Frontier, Heads, Message, Pull, Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicad.crypto.keys import SigningKey
    from replicad.model.ids import NodeId, Stamp
    from replicad.protocol.gossip.standing import Standing
    from replicad.protocol.replica import Replica

ROUND_MS = 30_000
SAME_SITE_SHARE = 0.7
"""Protocol.md section 6: an exchange every 30 s with one random linked peer, 70 % of them at the same site."""
SERVED_PULLS_MAX = 16
"""Pulls of one peer that may wait for their answer; beyond it they are answered by nothing."""
_ROUND_JITTER = 0.2

GOSSIP_MESSAGES = (Records, Heads, Eager, Compare, Compared, Frontier, Pull)
"""What the service routes here."""


class Gossip:
    """See the module. ``dice`` gives 0.0 to 1.0; ``incarnation`` is for own heads."""

    def __init__(self, *, key: SigningKey, replica: Replica, standing: Standing, incarnation: Stamp, dice: Callable[[], float], now: Now) -> None:
        self._replica = replica
        self._dice = dice
        self._rights = Rights(replica)
        self._rights.at(now.wall_ms)
        self._routes = Routes()
        self._push = Push(self._rights, self._routes)
        self._pulls = Pulls(self._rights, replica)
        self._exchange = Exchange(self._rights, replica.chains, self._pulls)
        self._announce = Announce(key=key, replica=replica, rights=self._rights, routes=self._routes, standing=standing, incarnation=incarnation, dice=dice)
        self._announce.rights_changed()
        self._follow = Follow(replica.chains)
        self._common: dict[NodeId, frozenset[str]] = {}
        self._serving: dict[NodeId, int] = {}
        self._agreed: set[NodeId] = set()
        self._round_ms = now.monotonic_ms + self._interval_ms()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        """What is to be done now, in this order. A peer's offence becomes an ``Accuse``; nothing it does raises."""
        self._rights.at(now.wall_ms)
        out: list[Effect] = []
        if not isinstance(event, Heard):
            self._handle(event, now, out)
        elif event.node in self._common:
            try:
                self._heard(event.node, event.message, now, out)
            except PeerError as error:
                out.append(Accuse(event.node, error.error_code, error.message))
        self._exchange.settle(now.monotonic_ms, out)
        self._due(now, out)
        self._agreed.update(effect.node for effect in out if isinstance(effect, Agreed))
        return out

    def deadline_ms(self) -> int:
        """The monotonic time at which ``handle(Tick(), now)`` has something to do."""
        times = [self._round_ms, self._push.deadline_ms(), self._announce.deadline_ms(), self._pulls.deadline_ms(), self._follow.deadline_ms()]
        return min(time for time in times if time is not None)

    def in_sync(self, node: NodeId) -> bool:
        """Whether this node and the linked member once had the same records of every common share since their link began."""
        return node in self._agreed

    def _handle(self, event: Event, now: Now, out: list[Effect]) -> None:
        match event:
            case LinkOpened(node):
                self._open(node, now, out)
            case LinkClosed(node):
                self._close(node, now, out)
            case Committed(records, source):
                self._exchange.committed(records)
                self._push.committed(records, source, now.monotonic_ms, out)
                self._announce.changed(now, {record.header.share for record in records})
            case Stored():
                self._stored(event, now, out)
            case Chain():
                self._answer(event, out)
            case RightsChanged():
                self._rights_changed(now, out)
            case HoldingsChanged():
                self._announce.holdings_changed(now)
            case Described():
                self._announce.described(event, now, out)

    def _due(self, now: Now, out: list[Effect]) -> None:
        self._push.due(now.monotonic_ms, out)
        self._pulls.due(now.monotonic_ms, out)
        self._announce.due(now, out)
        for node, share in self._follow.due(now.monotonic_ms):
            if self._rights.may_share(node, share):
                self._exchange.look(node, share, now.monotonic_ms, out)
        if now.monotonic_ms >= self._round_ms:
            self._round_ms = now.monotonic_ms + self._interval_ms()
            if self._common:
                self._exchange.round(self._choose(), now.monotonic_ms, out)

    def _open(self, node: NodeId, now: Now, out: list[Effect]) -> None:
        if node in self._common:
            self._close(node, now, out)
        self._routes.open(node)
        self._push.open(node)
        self._pulls.open(node)
        self._exchange.open(node)
        self._common[node] = frozenset(self._rights.shares_with(node))
        self._serving[node] = 0
        self._announce.open(node, now, out)
        if self._rights.own < node:
            self._exchange.compare(node, self._rights.shares_with(node), now.monotonic_ms, out)

    def _close(self, node: NodeId, now: Now, out: list[Effect]) -> None:
        if self._common.pop(node, None) is None:
            return
        del self._serving[node]
        self._agreed.discard(node)
        self._push.close(node)
        self._exchange.close(node)
        self._announce.close(node, now)
        self._follow.forget(node)
        self._routes.close(node, out)
        self._pulls.close(node, now.monotonic_ms, out)

    def _heard(self, node: NodeId, message: Message, now: Now, out: list[Effect]) -> None:
        match message:
            case Records():
                pull = message.pull if self._pulls.awaits(node, message.pull) else 0
                out.append(Store(node, self._rights.receivable(node, message.envelopes), pull, message.more))
            case Heads():
                for head in self._announce.heard(node, message, now, out):
                    if head.node == node:
                        self._follow.note(head, now.monotonic_ms)
            case Eager():
                self._routes.hear(node, message)
            case Compare():
                self._exchange.heard_compare(node, message, now.monotonic_ms, out)
            case Compared():
                self._exchange.heard_compared(node, message, out)
            case Frontier():
                self._exchange.heard_frontier(node, message, now.monotonic_ms, out)
            case Pull():
                self._serve(node, message, out)

    def _serve(self, node: NodeId, pull: Pull, out: list[Effect]) -> None:
        if self._serving[node] < SERVED_PULLS_MAX and self._rights.may_share(node, pull.share):
            self._serving[node] += 1
            out.append(Read(node, pull))
        else:
            out.append(Tell(node, Records((), pull.number)))

    def _answer(self, event: Chain, out: list[Effect]) -> None:
        """Rights may have changed while the chain was read."""
        if event.node not in self._common:
            return
        self._serving[event.node] = max(0, self._serving[event.node] - 1)
        if self._rights.may_share(event.node, event.pull.share):
            out.append(Tell(event.node, Records(event.envelopes, event.pull.number, event.more)))
        else:
            out.append(Tell(event.node, Records((), event.pull.number)))

    def _stored(self, event: Stored, now: Now, out: list[Effect]) -> None:
        store = event.store
        if store.node not in self._common:
            return
        if store.pull:
            self._pulls.answered(store.node, store.pull, more=store.more, fresh=len(event.fresh), gaps=event.gaps, now_ms=now.monotonic_ms, out=out)
        elif event.gaps:
            self._exchange.compare(store.node, self._rights.shares_with(store.node), now.monotonic_ms, out)
        else:
            members = self._rights.members
            repeated = {envelope.key for envelope in store.envelopes if envelope.key in members} - event.fresh
            self._routes.arrived(store.node, fresh=event.fresh, repeated=repeated, out=out)

    def _rights_changed(self, now: Now, out: list[Effect]) -> None:
        self._announce.rights_changed()
        for node in list(self._common):
            shares = self._rights.shares_with(node)
            grown = [share for share in shares if share not in self._common[node]]
            self._common[node] = frozenset(shares)
            if grown:
                self._agreed.discard(node)
                self._announce.tell_all(node, now, out)
                self._exchange.compare(node, grown, now.monotonic_ms, out)

    def _choose(self) -> NodeId:
        """One linked peer at random, of this site more often."""
        near = sorted(node for node in self._common if self._rights.same_site(node))
        pool = near if near and self._dice() < SAME_SITE_SHARE else sorted(self._common)
        return pool[min(int(self._dice() * len(pool)), len(pool) - 1)]

    def _interval_ms(self) -> int:
        return int(ROUND_MS * (1 - _ROUND_JITTER / 2 + _ROUND_JITTER * self._dice()))
