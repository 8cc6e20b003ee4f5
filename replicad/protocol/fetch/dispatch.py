"""Who is asked for what: hands out requests to peers that can take one.

Jobs come by class, and within a class in order of age, but what clients wait for takes turns. Each takes what it can, but as long as there are several of its class, none takes a peer's last slot or the last quarter of the bytes: a big
old content never starves a small new one. Fast peers choose first. A slow one is passed over for what the others would have brought long before it (expected completion time). When nothing is left to ask for, single chunks that
come from a slow source are asked for once more elsewhere (endgame), and so are chunks whose request is overdue (hedge).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import groupby

from replicad.model.ids import Digest, NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.backlog import Backlog
from replicad.protocol.fetch.config import BATCH_BYTES, COPIES_MAX, OVERDUE_S_MIN, FetchConfig
from replicad.protocol.fetch.events import Effect, GetBatch, GetExtent, GetManifest
from replicad.protocol.fetch.flights import Flights
from replicad.protocol.fetch.jobs import ContentJob, State
from replicad.protocol.fetch.pack import Job, PackJob
from replicad.protocol.fetch.peers import Peer
from replicad.protocol.fetch.roster import Roster

ENDGAME_FACTOR = 2.0
"""Something is asked for twice only if the second source is expected to bring it in less than half of the time the first still needs (a guess; the simulator measures what it costs), and at
least a job's ``again_gain_s`` earlier."""
ENDGAME_LOOK_S = 0.5
"""When nothing happens, that is looked for so often at most: a loaded machine is silent for shorter times, too (a guess)."""


class _Outcome(Enum):
    STARTED = "started"
    NOTHING = "nothing"
    FULL = "full"


class Dispatch:
    """Turns free slots into requests."""

    def __init__(
        self, config: FetchConfig, *, roster: Roster, backlog: Backlog, flights: Flights, randrange: sets.RandRange, emit: Callable[[Effect], None]
    ) -> None:
        self._config = config
        self._roster = roster
        self._backlog = backlog
        self._flights = flights
        self._randrange = randrange
        self._emit = emit
        self.urgent: frozenset[Digest] = frozenset()
        """Contents that our own limits do not concern."""
        self.due: float | None = None
        """When somebody may have to be asked for what another is slow with, if nothing happens before."""
        self.requests = 0
        self.repeated = 0

    def hand_out(self, ready: list[ContentJob], now: float) -> NodeId | None:
        """Ask idle peers for parts of these contents and of the pack until slots, bytes or work run out. Returns the peer that could be asked for more if the bytes ran out."""
        if self.due is not None and self.due <= now:
            self.due = None
            self._roster.wake()
        peers = sorted(
            (peer for node in self._roster.idle if (peer := self._roster.peers.get(node)) is not None and peer.may_start(now)),
            key=lambda peer: (-peer.speed, peer.node),
        )
        if peers:
            for _, alike in groupby(self._backlog.in_order(ready), key=lambda job: job.order[0]):
                jobs = list(alike)
                for shared in (True, False) if len(jobs) > 1 else (False,):
                    for job in jobs:
                        if (waiting := self._serve(job, peers, shared=shared, now=now)) is not None:
                            return waiting
        self._roster.rested(now)
        return None

    def _serve(self, job: Job, peers: list[Peer], *, shared: bool, now: float) -> NodeId | None:
        """One request per peer in turn, until nobody can take another; whose turn it was if the bytes ran out."""
        takers = list(peers)
        while takers:
            for peer in tuple(takers):
                outcome = self._ask(job, peer, shared=shared, now=now)
                if outcome is _Outcome.FULL:
                    return None if shared else peer.node
                if outcome is _Outcome.NOTHING:
                    takers.remove(peer)
        return None

    def _ask(self, job: Job, peer: Peer, *, shared: bool, now: float) -> _Outcome:
        if not peer.may_start(now):
            return _Outcome.NOTHING
        if isinstance(job, ContentJob) and job.state is State.NAMELESS:
            return self._ask_manifest(job, peer, now)
        if self._is_reserved(peer, job):
            return _Outcome.NOTHING
        outcome = self._ask_units(job, peer, shared=shared, now=now)
        return self._endgame(job, peer, now) if outcome is _Outcome.NOTHING and not shared else outcome

    def _is_reserved(self, peer: Peer, job: Job) -> bool:
        """It brings the one unit that a client needs now: whatever else it brought meanwhile would delay that, but for a manifest. What other clients need does not wait for it, so that nobody waits
        long and the line is not idle between them.
        """
        waits_too = bool(job.awaited_next)
        return any(
            len(request.units) == 1 and request.mask & request.job.awaited_next and (request.job is job or not waits_too)
            for request in self._flights.of_node(peer.node)
        )

    def _ask_units(self, job: Job, peer: Peer, *, shared: bool, now: float) -> _Outcome:
        free = self._open_to(job, peer, job.free(peer.node, busy=bool(peer.requests)))
        if free & job.late:  # which others may be asked for, not once more whoever is late
            free &= ~self._flights.asked(job, peer.node)
        grain = self._grain(job, peer) if free else 0
        if not free or (isinstance(job, PackJob) and peer.requests and not job.enough(free, grain)):
            return _Outcome.NOTHING
        under_way = self._flights.of_job(job)
        if shared and sum(request.node == peer.node for request in under_way) >= max(1, self._config.requests_per_peer - 1):
            return _Outcome.NOTHING
        hasty = self._flights.limit is not None and bool(self.urgent) and job.named(self.urgent, free) == free
        room = self._flights.room(urgent=hasty)
        if shared and under_way:
            room = min(room, self._config.bytes_in_flight_max * 3 // 4 - sum(request.bytes for request in under_way))
        if room < grain // 2:
            return _Outcome.FULL
        units = job.take(peer.node, free, size_bytes=min(grain, room), randrange=self._randrange)
        size_bytes = job.size_of(units)
        if size_bytes > room:
            return _Outcome.FULL
        if not self._worthwhile(job, peer, units, size_bytes=size_bytes):
            return _Outcome.NOTHING
        self._start(job, peer, units, size_bytes=size_bytes, now=now)
        return _Outcome.STARTED

    def _grain(self, job: Job, peer: Peer) -> int:
        grain = peer.grain(self._config)
        return min(max(grain, BATCH_BYTES), job.part_bytes, self._config.bytes_in_flight_max) if isinstance(job, PackJob) else grain

    def _open_to(self, job: Job, peer: Peer, units: int) -> int:
        """Those of them that may be asked of the peer: when our own limits let nothing through, what is urgent."""
        return job.named(self.urgent, units) if peer.ceiling == 0 else units

    def _ask_manifest(self, job: ContentJob, peer: Peer, now: float) -> _Outcome:
        asked = self._flights.of_job(job)
        if (
            not self._open_to(job, peer, job.missing)
            or not job.have.get(peer.node)
            or any(not request.overdue or request.node == peer.node for request in asked)
            or len(asked) >= COPIES_MAX
        ):
            return _Outcome.NOTHING
        request = self._flights.start(peer, job, (), size_bytes=0, now=now)
        self.requests += 1
        self._emit(GetManifest(request.number, peer.node, job.wanted))
        return _Outcome.STARTED

    def _start(self, job: Job, peer: Peer, units: int, *, size_bytes: int, now: float) -> None:
        self.repeated += bool(units & job.flying.counted)
        patient = isinstance(job, PackJob) and bool(job.rivals - {peer.node}) and job.patient(units)
        request = self._flights.start(peer, job, tuple(sets.members(units)), size_bytes=size_bytes, now=now)
        self.requests += 1
        if isinstance(job, PackJob):
            self._emit(GetBatch(request.number, peer.node, tuple(job.wanted_of(units)), patient))
        else:
            self._emit(GetExtent(request.number, peer.node, job.target, job.extent(units)))

    def _worthwhile(self, job: Job, peer: Peer, units: int, *, size_bytes: int) -> bool:
        """Not if the others would have everything long before this peer had brought its part; but what nobody else has is not theirs to bring, and while nobody brings anything, whoever can does: all of
        them may be slow.
        """
        expected_s = peer.expected_s(size_bytes)
        if peer.rate.value() is None or expected_s <= OVERDUE_S_MIN or units & ~job.rarity.several or not self._flights.of_job(job):
            return True
        others = sum(self._roster.peers[node].speed for node in job.sources if node != peer.node and node in self._roster.peers)
        return not others or expected_s <= OVERDUE_S_MIN + 2 * job.size_of(job.missing) / others

    def _endgame(self, job: Job, peer: Peer, now: float) -> _Outcome:
        """Everything missing is under way: ask for a little of the slowest request again if this peer would have it much sooner. Not across the WAN, where only what is overdue is worth a second copy."""
        if isinstance(job, ContentJob) and job.owners is not None and peer.node not in job.owners.near:
            return _Outcome.NOTHING
        there = self._open_to(job, peer, job.missing & job.have.get(peer.node, 0))
        if not there or job.unasked or job.free(peer.node) or self._flights.room() < job.again_bytes:
            return _Outcome.NOTHING
        soon_s = ENDGAME_FACTOR * peer.expected_s(job.again_bytes) + job.again_gain_s
        there &= ~self._flights.asked(job, peer.node)
        for request in sorted(self._flights.of_job(job), key=lambda request: -request.likely_end(now)):
            if request.likely_end(now) <= now + soon_s:
                self._look_again(request.started + soon_s, now)
                break
            if again := sets.of(unit for unit in sets.members(request.mask & there) if job.flying.of(unit) < COPIES_MAX):
                units = job.take(peer.node, again, size_bytes=job.again_bytes, randrange=self._randrange)
                self._start(job, peer, units, size_bytes=job.size_of(units), now=now)
                return _Outcome.STARTED
        return _Outcome.NOTHING

    def _look_again(self, at: float, now: float) -> None:
        """An answer that does not come makes no event: look at it then."""
        at = max(at, now + ENDGAME_LOOK_S)
        self.due = at if self.due is None else min(self.due, at)
