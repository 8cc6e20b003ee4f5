"""The peers that may be asked now, and what every answer means for them.

A peer is in ``peers`` while there is a link to it and it is not banned. ``idle`` are those that may have something to do: only they are looked at when requests are handed out, so that an event
costs what it concerns and not the size of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.conduct import Conduct
from replicad.protocol.fetch.config import BAN_S, SLOW_FRACTION, STRIKES_WINDOW_S, FetchConfig
from replicad.protocol.fetch.events import Blame, Effect, Ended, Fault, Limited
from replicad.protocol.fetch.flights import Request
from replicad.protocol.fetch.peers import Peer

BLAMELESS = frozenset({Fault.BUSY, Fault.BROKEN, Fault.CUT, Fault.REFUSED, Fault.LOCAL})
"""No offence by themselves."""
UNTIMED = frozenset({None, Fault.BUSY, Fault.REFUSED, Fault.ABSENT})
"""If nothing came, the answer was to bring nothing: how long it took says nothing about the rate."""
REFUSED_PAUSE_S = 5.0
"""After "you may not": our rights, or the session, are not known there yet (a guess)."""


class Roster:
    """``emit`` takes effects; ``left(node)`` is called when a peer may not be asked any more, ``joined(node)`` when it may."""

    def __init__(
        self,
        config: FetchConfig,
        *,
        randrange: sets.RandRange,
        emit: Callable[[Effect], None],
        joined: Callable[[NodeId], None],
        left: Callable[[NodeId], None],
    ) -> None:
        self._config = config
        self._randrange = randrange
        self._emit = emit
        self._joined = joined
        self._left = left
        self._up: set[NodeId] = set()
        self._conduct = Conduct()
        self.peers: dict[NodeId, Peer] = {}
        self.idle: set[NodeId] = set()
        self._limited = Limited()
        self.offences = 0
        self.bans = 0

    def up(self, node: NodeId, now: float) -> None:
        """A link to it works."""
        self._up.add(node)
        self.advance(now)

    def down(self, node: NodeId) -> None:
        """It does not any more: the suspicion that it cut an answer short is explained."""
        self._up.discard(node)
        self._conduct.cleared(node)
        self._leave(node)

    def is_up(self, node: NodeId) -> bool:
        """Whether there is a link, banned or not."""
        return node in self._up

    def banned(self, node: NodeId, now: float) -> bool:
        """Whether nothing is asked of it now because of its offences."""
        return self._conduct.banned(node, now)

    def limit(self, limited: Limited) -> None:
        """Our own limits are these now."""
        self._limited = limited
        for peer in self.peers.values():
            peer.ceiling = limited.of(peer.node)
        self.wake()

    def wake(self) -> None:
        """Everybody may have something to do."""
        self.idle |= self.peers.keys()

    def advance(self, now: float) -> None:
        """Count suspicions that outlived their link's chance to go down; let in those whose ban is over."""
        for node, detail in self._conduct.convicted(now):
            self._strike(node, Fault.SHORT, detail, now)
        for node in sorted(self._up - self.peers.keys()):
            if not self._conduct.banned(node, now):
                self.peers[node] = Peer(node, self._config.requests_per_peer, ceiling=self._limited.of(node))
                self._joined(node)

    def rested(self, now: float) -> None:
        """After requests were handed out: only who waits for the end of a pause stays idle."""
        self.idle = {node for node in self.idle if node in self.peers and self.peers[node].paused_until > now}

    def answered(self, request: Request, event: Ended, *, received: int, now: float) -> None:
        """Draw the consequences of a request's end for its peer."""
        peer = self.peers[request.node]
        fault = event.fault or (Fault.BAD_CHUNK if event.bad else Fault.ABSENT if event.absent else None)
        peer.ended(request.number, request.bytes, received=received if received or fault not in UNTIMED else None, now=now)
        self.idle.add(peer.node)
        jitter = self._randrange(1000) / 1000
        delivered = received or (fault is None and not event.spread)  # to tell others to wait proves nothing
        if fault is Fault.BUSY:
            peer.busy(now, jitter)
        elif fault is Fault.REFUSED:
            peer.pause(now + REFUSED_PAUSE_S * (0.5 + jitter))
        elif fault is not None:
            peer.broke(now, jitter)
        elif delivered:
            peer.succeeded(self._config)
            self._compare_rates(now)
        if delivered:
            self._conduct.cleared(peer.node)
        elif fault is Fault.CUT:
            self._conduct.suspect(peer.node, f"the answer for {request.what} ended early", now)
        if fault is not None and fault not in BLAMELESS:
            self._strike(peer.node, fault, f"{len(event.bad) or len(event.absent) or 1} of {len(request.units) or 1} wrong in {request.what}", now)

    def cancelled(self, request: Request, now: float) -> None:
        """A request was given up; nobody is to blame."""
        if (peer := self.peers.get(request.node)) is not None:
            peer.ended(request.number, request.bytes, received=0, now=now)
            self.idle.add(peer.node)

    def gave_up(self, node: NodeId, now: float) -> None:
        """What it was asked for was overdue, and given up for others' sake: no offence, but it begins again with little."""
        self.peers[node].broke(now, self._randrange(1000) / 1000)

    def next_deadline(self, now: float) -> float | None:
        """When a pause or a ban ends, or a suspicion matures."""
        times = [peer.paused_until for node in self.idle if (peer := self.peers.get(node)) is not None and peer.paused_until > now]
        conduct = self._conduct.next_deadline(now)
        return min(times if conduct is None else [*times, conduct], default=None)

    def _compare_rates(self, now: float) -> None:
        rates = {peer.node: rate for peer in self.peers.values() if peer.requests and (rate := peer.rate.value()) is not None}
        if len(rates) >= 2:
            middle = median(rates.values())
            for node in rates:
                self.peers[node].judge(middle, SLOW_FRACTION, now)

    def _strike(self, node: NodeId, offence: Fault, detail: str, now: float) -> None:
        self.offences += 1
        self._emit(Blame(node, offence, detail))
        if self._conduct.strike(node, now):
            self.bans += 1
            self._emit(Blame(node, "banned", f"three offences in {STRIKES_WINDOW_S / 60:.0f} minutes: nothing is asked of it for {BAN_S / 60:.0f} minutes"))
            self._leave(node)

    def _leave(self, node: NodeId) -> None:
        if node in self.peers:
            self._left(node)
            del self.peers[node]
            self.wake()
