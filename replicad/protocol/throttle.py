"""How fast bytes may flow: token buckets, several at once, in the order in which it was asked. Sans-IO: time is an argument.

A stream asks for leave to move some bytes and gets it when every bucket it is subject to has them; then they are gone from all of these. So in any interval of t seconds leave is given
for at most ``rate * t`` bytes and one bucket. What waits is served first come, first served, but who waits for a bucket of its own holds up nobody else. Nothing is lost to
waiting: as long as somebody could use what a bucket holds, it is given away.

A stream gets a part of a bucket at a time, so that all flow evenly and what was allowed but has not flowed yet is little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

BUCKET_S = 0.25
"""A bucket holds a quarter of a second of its rate: a loop that is late by less loses nothing, and over ten seconds it is 2.5 % (a guess; ``bench limits`` measures it)."""
BUCKET_BYTES_MIN = 16 << 10
SHARERS_MIN = 4
"""A single stream gets a quarter of the bucket at a time."""
GRANT_BYTES_MAX = 256 << 10
ROUNDING_S = 1e-6
"""Added to deadlines, so that what is due then is there in spite of floating point."""


@dataclass(slots=True)
class _Bucket:
    rate: int
    since: float
    tokens: float = 0.0
    streams: int = 0

    @property
    def capacity(self) -> float:
        return max(self.rate * BUCKET_S, BUCKET_BYTES_MIN) if self.rate else 0.0

    @property
    def share(self) -> int:
        return max(1, min(GRANT_BYTES_MAX, int(self.capacity) // max(SHARERS_MIN, self.streams)))

    def fill(self, now: float) -> None:
        self.tokens = min(self.capacity, self.tokens + self.rate * max(0.0, now - self.since))
        self.since = now

    def ready_at(self, size_bytes: int) -> float:
        """When it will hold so many; ``fill`` it first."""
        if self.tokens >= size_bytes:
            return self.since
        return self.since + (size_bytes - self.tokens) / self.rate if self.rate else float("inf")


@dataclass(slots=True, eq=False)
class Stream:
    """Something that moves bytes, subject to the buckets of these keys (those that exist). ``asked``: bytes it waits to move."""

    keys: tuple[str, ...]
    asked: int = 0


@dataclass(slots=True)
class Throttle:
    """The buckets of one direction. A key without a bucket has no limit. Buckets begin empty."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)
    _streams: dict[Stream, None] = field(default_factory=dict)
    _waiting: dict[Stream, None] = field(default_factory=dict)
    _deadline: float | None = None

    def set(self, rates: Mapping[str, int], now: float) -> None:
        """These are the limits from now on, in bytes per second. Call ``due`` afterwards: some may not have to wait any more."""
        kept = {key: bucket for key, bucket in self._buckets.items() if key in rates}
        for bucket in kept.values():
            bucket.fill(now)
        self._buckets = {key: kept.get(key) or _Bucket(rate, now) for key, rate in rates.items()}
        for key, bucket in self._buckets.items():
            bucket.rate = rates[key]
            bucket.fill(now)
            bucket.streams = sum(key in stream.keys for stream in self._streams)

    def rate(self, keys: Iterable[str]) -> int | None:
        """The lowest limit of these keys; None if there is none."""
        return min((self._buckets[key].rate for key in keys if key in self._buckets), default=None)

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return bool(self._buckets)

    def enter(self, keys: tuple[str, ...]) -> Stream:
        """A new stream."""
        stream = Stream(keys)
        self._streams[stream] = None
        for bucket in self._of(stream):
            bucket.streams += 1
        return stream

    def leave(self, stream: Stream) -> None:
        """It has ended, and is subject to nothing any more."""
        del self._streams[stream]
        self._waiting.pop(stream, None)
        for bucket in self._of(stream):
            bucket.streams -= 1
        stream.keys = ()

    def limits(self, stream: Stream) -> bool:
        """Whether it is subject to any limit now."""
        return any(key in self._buckets for key in stream.keys)

    def ask(self, stream: Stream, most: int) -> None:
        """It waits to move up to ``most`` bytes (1 or more). Call ``due`` afterwards."""
        stream.asked = most
        self._waiting[stream] = None

    def due(self, now: float) -> list[tuple[Stream, int]]:
        """Who waited and may move how many bytes now."""
        for bucket in self._buckets.values():
            bucket.fill(now)
        found: list[tuple[Stream, int]] = []
        awaited: set[int] = set()
        """Buckets kept for who came earlier and waits for nothing else."""
        self._deadline = None
        for stream in tuple(self._waiting):
            buckets = self._of(stream)
            granted = min([stream.asked, *(bucket.share for bucket in buckets)])
            if any(id(bucket) in awaited for bucket in buckets):
                continue
            lacking = [bucket for bucket in buckets if bucket.tokens < granted]
            if not lacking:
                for bucket in buckets:
                    bucket.tokens -= granted
                del self._waiting[stream]
                found.append((stream, granted))
                continue
            ready, last = max((bucket.ready_at(granted) + ROUNDING_S, id(bucket)) for bucket in lacking)
            awaited.add(last)
            if ready < float("inf"):
                self._deadline = ready if self._deadline is None else min(self._deadline, ready)
        return found

    def next_deadline(self) -> float | None:
        """When ``due`` must be called if nothing happens before, as the last ``due`` saw it; None: never."""
        return self._deadline

    def _of(self, stream: Stream) -> list[_Bucket]:
        return [bucket for key in stream.keys if (bucket := self._buckets.get(key)) is not None]
