"""What is known of a peer as a source: how fast it is, how much it may be asked at once, when to leave it alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from replicad.model.ids import NodeId
from replicad.protocol.fetch.config import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    BUSY_S,
    EXTENT_S,
    FIRST_REQUEST_BYTES,
    FIRST_REQUESTS,
    LIMITED_S,
    OVERDUE_FACTOR,
    OVERDUE_S_MIN,
    RATE_GUESS,
    SLOW_S,
    FetchConfig,
)

RATE_MEMORY_S = 4.0
"""Half of what a rate knows is forgotten after so many busy seconds: long enough for some requests of EXTENT_S, short enough to follow a change (a guess)."""


class Rate:
    """Bytes per second while something comes, the recent past weighing most."""

    __slots__ = ("_busy_s", "_bytes", "_mark")

    def __init__(self) -> None:
        self._bytes = 0.0
        self._busy_s = 0.0
        self._mark = 0.0

    def skip(self, until: float) -> None:
        """Until then nothing was to come: that time does not count."""
        self._mark = max(self._mark, until)

    def count(self, size_bytes: int, now: float) -> None:
        """These bytes arrived in the time that was not counted yet."""
        passed, self._mark = now - self._mark, now
        if passed > 0:
            keep = 0.5 ** (passed / RATE_MEMORY_S)
            self._bytes *= keep
            self._busy_s = self._busy_s * keep + passed
        self._bytes += size_bytes

    def value(self) -> float | None:
        """Bytes per second; None before anything arrived."""
        return self._bytes / max(self._busy_s, 1e-6) if self._bytes else None

    @property
    def is_settled(self) -> bool:
        """Whether it says more than how fast a first answer came through empty queues."""
        return self._busy_s >= EXTENT_S


@dataclass(slots=True)
class Peer:
    """One linked peer. ``requests`` are those under way, by number, and when each began; ``bytes`` is what they ask for. ``ceiling``: the bytes per second that our own limits let come from it (None: no limit)."""

    node: NodeId
    slots: int
    requests: dict[int, float] = field(default_factory=dict)
    bytes: int = 0
    paused_until: float = 0.0
    demoted: bool = False
    ceiling: int | None = None
    rate: Rate = field(default_factory=Rate)
    _successes: int = 0
    _failures: int = 0
    _slow_since: float | None = None

    @property
    def speed(self) -> float:
        """Bytes per second, measured or assumed, and no more than our own limits allow."""
        return self._under_ceiling(self.rate.value() or RATE_GUESS)

    def _under_ceiling(self, rate: float) -> float:
        return min(rate, self.ceiling) if self.ceiling else rate

    def may_start(self, now: float) -> bool:
        """Whether one more request may be made now."""
        bound = 1 if self.demoted or self._failures else self.slots if self.rate.value() is not None else min(self.slots, FIRST_REQUESTS)
        return now >= self.paused_until and len(self.requests) < bound and not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether as much is asked of it already as our own limit lets through soon."""
        return bool(self.ceiling and self.requests) and self.bytes >= (self.ceiling or 0) * LIMITED_S

    def grain(self, config: FetchConfig) -> int:
        """How many bytes the next request should ask for."""
        rate = self.rate.value()
        size_bytes = FIRST_REQUEST_BYTES if rate is None or not self.rate.is_settled or self._failures else int(self._under_ceiling(rate) * EXTENT_S)
        return max(1, min(size_bytes, config.extent_bytes_max, config.bytes_in_flight_max))

    def expected_s(self, size_bytes: int) -> float:
        """Seconds until a request of that size, made now, should have been answered."""
        return (self.bytes + size_bytes) / self.speed

    def overdue_s(self, size_bytes: int) -> float:
        """Seconds after which it is overdue."""
        return max(OVERDUE_S_MIN, OVERDUE_FACTOR * self.expected_s(size_bytes))

    def started(self, number: int, size_bytes: int, now: float) -> None:
        """A request was made."""
        if not self.requests:
            self.rate.skip(now)
        self.requests[number] = now
        self.bytes += size_bytes

    def ended(self, number: int, size_bytes: int, *, received: int | None, now: float) -> None:
        """A request of ``size_bytes`` ended, ``received`` of them arrived: if any, it works. None: it was an answer that says why nothing comes, and nothing about the rate."""
        if received:
            self._failures = 0
        del self.requests[number]
        self.bytes -= size_bytes
        if received is None:
            self.rate.skip(min(self.requests.values(), default=now))
        else:
            self.rate.count(received, now)

    def succeeded(self, config: FetchConfig) -> None:
        """It answered: trust it with more at once again, one more after as many answers as it may have at once."""
        self._failures = 0
        self._successes += 1
        if self._successes >= self.slots:
            self._successes = 0
            self.slots = min(self.slots + 1, config.requests_per_peer)

    def busy(self, now: float, jitter: float) -> None:
        """It said that it is busy: ask for less at once, and not right now. ``jitter`` is 0 to 1."""
        self.slots = max(1, min(self.slots - 1, len(self.requests)))
        self.pause(now + BUSY_S * (0.5 + jitter))

    def broke(self, now: float, jitter: float) -> None:
        """It could not be reached or the connection broke: wait, twice as long each time (what breaks together is one time), then try with one small request."""
        self._failures += now >= self.paused_until
        self.pause(now + min(BACKOFF_S_MAX, BACKOFF_S * 2.0 ** min(self._failures - 1, 10)) * (0.5 + jitter))

    def pause(self, until: float) -> None:
        """Do not ask before then."""
        self.paused_until = max(self.paused_until, until)

    def judge(self, median: float, fraction: float, now: float) -> None:
        """Demote it after ``SLOW_S`` below that fraction of the median rate; forgive it at once when it is faster. What we limit ourselves is not its fault."""
        rate = self.rate.value()
        if rate is None or rate >= self._under_ceiling(median) * fraction:
            self._slow_since, self.demoted = None, False
        elif self._slow_since is None:
            self._slow_since = now
        elif now - self._slow_since >= SLOW_S:
            self.demoted = True
