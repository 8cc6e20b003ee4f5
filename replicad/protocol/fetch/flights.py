"""Requests under way: one source each, bounded in bytes, overdue at a known time."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicad.model.ids import NodeId
from replicad.model.words import plural
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import LIMITED_S, FetchConfig
from replicad.protocol.fetch.pack import Job, PackJob
from replicad.protocol.fetch.peers import Peer


@dataclass(slots=True, eq=False)
class Request:
    """``units`` in the order in which they were asked for, and as a set (``mask``); none: it asks for the manifest."""

    number: int
    node: NodeId
    job: Job
    units: tuple[int, ...]
    bytes: int
    started: float
    expected_at: float
    overdue_at: float
    overdue: bool = False
    mask: int = field(init=False)

    def __post_init__(self) -> None:
        self.mask = sets.of(self.units)

    def likely_end(self, now: float) -> float:
        """When it will be answered: as expected, or, once that is past, after as long again as it has taken so far."""
        return max(self.expected_at, 2 * now - self.started)

    @property
    def what(self) -> str:
        """For people."""
        if isinstance(self.job, PackJob):
            return f"a batch of {plural(len(self.units), 'small content')}"
        return f"{plural(len(self.units), 'chunk')} of {self.job.target.content}" if self.units else f"the manifest of {self.job.target.content}"


class Flights:
    """The table of requests under way."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._requests: dict[int, Request] = {}
        self._last = 0
        self._deadline: float | None = None
        self.bytes = 0
        self.limit: int | None = None
        """Our own limit on all of them together, bytes per second."""

    def __len__(self) -> int:
        return len(self._requests)

    def room(self, *, urgent: bool = False) -> int:
        """Bytes that may still be asked for; what does not fit may go alone. ``urgent``: without regard to our own limits."""
        most = self._config.bytes_in_flight_max
        if self.limit is not None and not urgent:
            most = min(most, int(self.limit * LIMITED_S))
        return most - self.bytes if self._requests else 1 << 62

    def all(self) -> list[Request]:
        """Whatever is under way."""
        return list(self._requests.values())

    def start(self, peer: Peer, job: Job, units: tuple[int, ...], *, size_bytes: int, now: float) -> Request:
        """Enter one request into all books."""
        self._last += 1
        request = Request(self._last, peer.node, job, units, size_bytes, now, now + peer.expected_s(size_bytes), now + peer.overdue_s(size_bytes))
        self._requests[request.number] = request
        self._deadline = request.overdue_at if self._deadline is None else min(self._deadline, request.overdue_at)
        self.bytes += size_bytes
        peer.started(request.number, size_bytes, now)
        job.start(request.mask)
        if units:
            job.turn = request.number
        return request

    def end(self, number: int) -> Request | None:
        """Strike it from the table; None if it was not there any more."""
        request = self._requests.pop(number, None)
        if request is not None:
            self.bytes -= request.bytes
            request.job.end(request.mask)
        return request

    def of_job(self, job: Job) -> list[Request]:
        """What is under way for a job."""
        return [request for request in self._requests.values() if request.job is job]

    def asked(self, job: Job, node: NodeId) -> int:
        """The units of a job that this peer is asked for."""
        return sets.union(request.mask for request in self._requests.values() if request.job is job and request.node == node)

    def of_node(self, node: NodeId) -> list[Request]:
        """What is under way with a peer."""
        return [request for request in self._requests.values() if request.node == node]

    def newly_overdue(self, now: float) -> list[Request]:
        """Requests that became overdue; each is returned again after as long as it was given at first."""
        if self._deadline is None or now < self._deadline:
            return []
        found = [request for request in self._requests.values() if request.overdue_at <= now]
        for request in found:
            request.overdue = True
            request.overdue_at = now + (request.overdue_at - request.started)
        self._deadline = min((request.overdue_at for request in self._requests.values()), default=None)
        return found

    def next_deadline(self) -> float | None:
        """When the next one becomes overdue, or became so had it not ended."""
        return self._deadline
