"""The fetching side of the swarm: ``handle(event, now) -> effects``, ``next_deadline()``, ``statistics()``.

It decides what is asked of whom and when, what is asked of a second peer because the first is late, who is banned. It refuses to know bytes, hashes, files and sockets: the service that
performs the effects reports per chunk what was verified. Specification: docs/protocol.md, "Content". Its parts: ``backlog`` (what is wanted, what of it is open), ``jobs`` and ``pack`` (who
has which units), ``roster`` (who may be asked, how fast, how honest), ``flights`` (requests under way), ``dispatch`` (who is asked for what).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.backlog import Backlog
from replicad.protocol.fetch.config import GIVEN_S, LIMITED_S, MAKE_WAY_FACTOR, MAKE_WAY_S, OVERDUE_S_MIN, FetchConfig
from replicad.protocol.fetch.dispatch import Dispatch
from replicad.protocol.fetch.events import (
    Awaits,
    Cancel,
    Crew,
    Effect,
    Ended,
    Event,
    Fault,
    Finish,
    Finished,
    Halt,
    Here,
    Limited,
    Opened,
    PeerDown,
    PeerUp,
    Rival,
    Target,
    Tick,
    Told,
    Unopened,
    Wants,
    key_of,
)
from replicad.protocol.fetch.flights import Flights, Request
from replicad.protocol.fetch.jobs import ContentJob, State
from replicad.protocol.fetch.owners import Owners
from replicad.protocol.fetch.pack import Job, PackJob
from replicad.protocol.fetch.roster import Roster


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since the start: requests made, units and bytes verified, requests made a second time (hedge, endgame), offences and bans of peers. Now: requests under way and the bytes they ask for."""

    requests: int
    units: int
    bytes: int
    repeated: int
    offences: int
    bans: int
    in_flight: int
    in_flight_bytes: int


class Plan:
    """The fetching of the node ``own``. ``randrange(n)`` is the dice: 0 to n - 1."""

    def __init__(self, own: NodeId, config: FetchConfig, randrange: sets.RandRange) -> None:
        self._own = own
        self._effects: list[Effect] = []
        emit = self._effects.append
        self._flights = Flights(config)
        self._backlog = Backlog(config, PackJob(), emit=emit, peers=lambda: tuple(self._roster.peers), drop_requests=self._cancel_all)
        self._roster = Roster(config, randrange=randrange, emit=emit, joined=self._backlog.greet, left=self._lost)
        self._dispatch = Dispatch(config, roster=self._roster, backlog=self._backlog, flights=self._flights, randrange=randrange, emit=emit)
        self._now = 0.0
        self._halted_until = 0.0
        self._way_again = 0.0
        self._units = 0
        self._bytes = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            Wants: self._on_wants,
            Awaits: self._on_awaits,
            PeerUp: self._on_up,
            PeerDown: self._on_down,
            Told: lambda _event: self._make_way(self._backlog.pack),
            Rival: lambda _event: None,
            Crew: self._on_crew,
            Opened: self._on_opened,
            Unopened: self._on_unopened,
            Ended: self._on_ended,
            Finished: self._on_finished,
            Here: self._on_here,
            Halt: self._on_halt,
            Limited: self._on_limited,
            Tick: lambda _event: None,
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event in; returns what to do, in order. ``now`` never goes back. What a peer tells is most often no news, and then nothing is looked at."""
        if (isinstance(event, Told) and not self._on_told(event)) or (isinstance(event, Rival) and not self._on_rival(event)):
            return []  # nothing was looked at, so what is due is still due
        self._now = now
        self._handlers[type(event)](event)
        self._roster.advance(now)
        for request in self._flights.newly_overdue(now):
            self._overdue(request)
        ready = self._backlog.advance(now)
        pack = self._backlog.pack
        if freed := pack.deferred.review(now):
            self._roster.idle |= {node for node, have in pack.have.items() if have & freed}
        for job in ready:
            if job.owners is not None and job.owners.due <= now:
                self._look_for_misses(job, job.owners)
        if now >= self._halted_until:
            while (waiting := self._dispatch.hand_out(ready, now)) is not None and self._give_up_overdue(waiting):
                pass
        effects = list(self._effects)
        self._effects.clear()
        return effects

    def next_deadline(self) -> float | None:
        """When ``handle(Tick())`` must be called if nothing happens before; None: never."""
        backlog = self._backlog
        times = (
            self._flights.next_deadline(),
            self._roster.next_deadline(self._now),
            backlog.next_deadline(),
            backlog.pack.deferred.due,
            self._dispatch.due,
            self._halted_until,
        )
        return min((time for time in times if time is not None and time > self._now), default=None)

    def statistics(self) -> Statistics:
        """What happened so far."""
        return Statistics(
            requests=self._dispatch.requests,
            units=self._units,
            bytes=self._bytes,
            repeated=self._dispatch.repeated,
            offences=self._roster.offences,
            bans=self._roster.bans,
            in_flight=len(self._flights),
            in_flight_bytes=self._flights.bytes,
        )

    def jobs(self) -> list[Job]:
        """What is being fetched, oldest first: large contents and, if anything of it is under way, the pack of small ones."""
        large = [job for job in self._backlog.jobs.values() if job.state is not State.SEEKING]
        pack = [self._backlog.pack] if self._flights.of_job(self._backlog.pack) else []
        return sorted((*large, *pack), key=lambda job: job.order[2:])

    def job(self, content: bytes) -> ContentJob | None:
        """The large content of that digest, if it is looked for."""
        return next((job for job in self._backlog.jobs.values() if job.target.content == content), None)

    def sources(self, job: Job) -> dict[NodeId, float]:
        """Who is asked for units of this job now, and the rate of each in bytes per second."""
        nodes = {request.node for request in self._flights.of_job(job)}
        return {node: self._roster.peers[node].rate.value() or 0.0 for node in nodes}

    # -- peers

    def _on_up(self, event: PeerUp) -> None:
        if self._roster.is_up(event.node):
            self._roster.down(event.node)
        self._roster.up(event.node, self._now)

    def _on_down(self, event: PeerDown) -> None:
        self._backlog.no_rival(event.node)
        self._roster.down(event.node)

    def _lost(self, node: NodeId) -> None:
        for request in self._flights.of_node(node):
            self._cancel(request)
        self._backlog.forget(node)

    def _on_told(self, event: Told) -> bool:
        """Whether there is something to ask of that peer now that was not before."""
        if event.node not in self._roster.peers or not self._backlog.told(event.node, event.message):
            return False
        self._roster.idle.add(event.node)
        return True

    def _on_rival(self, event: Rival) -> bool:
        """The same; of small contents only how patiently is asked for what will be asked for."""
        self._backlog.rival(event.node, event.target, active=event.active)
        return event.target is not None

    # -- contents

    def _on_wants(self, event: Wants) -> None:
        self._dispatch.urgent = event.urgent
        self._backlog.want(event, self._now)

    def _on_awaits(self, event: Awaits) -> None:
        self._backlog.await_(event)
        key = key_of(event.wanted)
        job = self._backlog.jobs.get(key) if isinstance(key, Target) else self._backlog.pack
        if isinstance(job, PackJob) or (job is not None and job.state is State.ACTIVE):
            self._make_way(job)
        self._roster.wake()

    def _make_way(self, job: Job) -> None:
        """What clients need now and nobody was asked for goes before what the fastest peer that has it is asked for already: that is given up, and asked for again. Not again before what is asked for then
        could come several times.
        """
        needed = job.awaited_next & job.reachable & ~job.flying.counted
        if not needed or self._now < self._way_again:
            return
        fastest = max((peer for node, peer in self._roster.peers.items() if job.have.get(node, 0) & needed), key=lambda peer: (peer.speed, peer.node))
        for request in self._flights.of_node(fastest.node):
            if not request.mask & request.job.awaited_next:
                self._way_again = max(self._way_again, self._now + max(MAKE_WAY_S, MAKE_WAY_FACTOR * (self._now - request.started)))
                self._cancel(request)

    def _on_here(self, event: Here) -> None:
        self._backlog.here(event.content)

    def _on_crew(self, event: Crew) -> None:
        job = self._backlog.jobs.get(event.target)
        if job is not None and event.nodes - {self._own}:
            job.owners = Owners(self._own, event.nodes, content=job.target.content, count=job.count, now=self._now)

    def _on_opened(self, event: Opened) -> None:
        if (job := self._backlog.opened(event.target)) is not None:
            job.state = State.ACTIVE if event.manifest else State.NAMELESS
            job.since = self._now
            job.missing = sets.full(job.count) & ~event.verified
            if event.manifest:
                self._make_way(job)
            self._roster.wake()
            self._finish_if_complete(job)

    def _look_for_misses(self, job: ContentJob, owners: Owners) -> None:
        for node in owners.giving:
            if (peer := self._roster.peers.get(node)) is not None and peer.ceiling == 0:
                owners.asked(node, self._now, self._now, brought=False)
        abroad = [self._now - request.started for request in self._flights.of_job(job) if request.node not in owners.near]
        waited_for = job.reachable & ~job.near & ~owners.mine & ~job.flying.counted
        if owners.look(waited_for, self._now, running_s=max(abroad, default=0.0)):
            self._roster.wake()

    def _on_unopened(self, event: Unopened) -> None:
        if (job := self._backlog.jobs.get(event.target)) is not None:
            self._backlog.bench(job, self._now + event.pause_s)

    def _on_finished(self, event: Finished) -> None:
        if (job := self._backlog.jobs.get(event.target)) is not None:
            self._backlog.done(job, self._now, sound=event.sound)
            self._roster.wake()

    def _finish_if_complete(self, job: ContentJob) -> None:
        if job.state is State.ACTIVE and not job.missing:
            self._cancel_all(job)
            job.state = State.FINISHING
            self._effects.append(Finish(job.target))

    def _on_halt(self, event: Halt) -> None:
        self._halted_until = max(self._halted_until, self._now + event.seconds)
        self._roster.wake()

    def _on_limited(self, event: Limited) -> None:
        """Of what was asked for without the limit, what it does not let through soon is given up, the newest first, and asked for again in smaller parts: else it would come all the same, into the
        buffers of the system.
        """
        self._roster.limit(event)
        self._flights.limit = event.total
        for request in reversed(self._flights.all()):
            rate, peer = event.of(request.node), self._roster.peers[request.node]
            if rate is None or request.job.named(self._dispatch.urgent, request.mask) == request.mask:
                continue
            many = (self._flights.room() < 0 and len(self._flights) > 1) or (peer.is_full and len(peer.requests) > 1)
            if rate == 0 or many or (len(request.units) > 1 and request.bytes > rate * LIMITED_S / 2):
                self._cancel(request)

    # -- requests

    def _on_ended(self, event: Ended) -> None:
        request = self._flights.end(event.number)
        if request is None:
            return
        job = request.job
        good, absent = (sets.of(request.units[at] for at in places) for places in (event.good, event.absent))
        self._tell_owners(request, brought=bool(good))
        received = job.size_of(good)
        self._bytes += received
        self._units += (good & job.missing).bit_count()
        job.got(good)
        if absent or event.fault is Fault.ABSENT:
            job.unlearn(request.node, absent or request.mask or job.have.get(request.node, 0))
        if isinstance(job, PackJob) and event.spread:
            spread = sets.of(request.units[at] for at in event.spread) & job.missing & ~job.rarity.several
            job.deferred.defer(spread, self._now + min(GIVEN_S, request.overdue_at - request.started))
        if request.mask & job.missing or not request.units:
            self._roster.wake()
        if event.fault is Fault.LOCAL:
            self._halted_until = max(self._halted_until, self._now + OVERDUE_S_MIN)
        self._roster.answered(request, event, received=received, now=self._now)
        if not (request.units or event.fault or event.bad):
            self._named(job)
        self._clear_up(job, request)

    def _named(self, job: Job) -> None:
        """The manifest is here; ``Opened`` follows. It is asked for no more."""
        if isinstance(job, ContentJob) and job.state is State.NAMELESS:
            self._cancel_all(job)
            job.state = State.OPENING

    def _clear_up(self, job: Job, request: Request) -> None:
        """What this request brought need not be brought by others. If nothing of the job is under way any more, whoever was passed over as slow may be asked for what is left."""
        under_way = self._flights.of_job(job)
        needless = [other for other in under_way if other.units and not other.mask & job.missing]
        for other in needless:
            self._cancel(other)
        if job.reachable and len(needless) == len(under_way):
            self._roster.wake()
        if isinstance(job, PackJob):
            self._backlog.small_here(request.mask & ~job.missing)
        else:
            self._finish_if_complete(job)

    def _overdue(self, request: Request) -> None:
        request.job.overdue(request.mask)
        self._tell_owners(request, brought=False)
        self._roster.wake()

    def _tell_owners(self, request: Request, *, brought: bool) -> None:
        if isinstance(request.job, ContentJob) and request.job.owners is not None:
            request.job.owners.asked(request.node, request.started, self._now, brought=brought)

    def _give_up_overdue(self, waiting: NodeId) -> bool:
        """This peer could be asked for something, but all that may be under way is: what is overdue from another makes room, the longest under way first. False: nothing is."""
        late = [request for request in self._flights.all() if request.overdue and request.node != waiting]
        if not late:
            return False
        self._cancel(request := min(late, key=lambda request: request.started))
        self._roster.gave_up(request.node, self._now)
        return True

    def _cancel_all(self, job: Job) -> None:
        for request in self._flights.of_job(job):
            self._cancel(request)

    def _cancel(self, request: Request) -> None:
        if self._flights.end(request.number) is not None:
            self._effects.append(Cancel(request.number))
            self._roster.cancelled(request, self._now)
            if isinstance(request.job, PackJob):
                self._backlog.small_here(request.mask & ~request.job.missing)
