"""The hybrid logical clock: time of day where clocks agree, a counter where they do not.

After Kulkarni et al., "Logical Physical Clocks" (2014): 48 bits of milliseconds, 16 bits of counter. A stamp made here is greater than every stamp made or accepted here before, so what a
record's author had seen is earlier than the record. It refuses to know where the time comes from: ``now_ms`` is an argument.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from replicad.errors import ConflictError
from replicad.model.ids import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterable

FUTURE_MAX_MS = 600_000
"""A record further ahead is not accepted, not relayed and moves no clock: ten minutes is what a machine without time synchronisation may be off by, and a wrong year must not spread."""


AUTHOR_SKEW_MAX_MS = 300_000
"""A node whose clock contradicts most of its peers' by five minutes signs nothing: half of what would be refused as future, and far more than any clock that is kept differs."""


def contradiction_ms(skews_ms: Iterable[int]) -> int:
    """By how much most peers' clocks differ from ours: more than half of them by at least that. 0 without peers. One liar among several changes nothing."""
    return statistics.median_low([*map(abs, skews_ms)] or [0])


def check_may_author(skews_ms: Iterable[int]) -> None:
    """Raise ConflictError("clock-skew") unless a node whose peers' clocks differ by so much may sign records."""
    apart_ms = contradiction_ms(skews_ms)
    if apart_ms >= AUTHOR_SKEW_MAX_MS:
        raise ConflictError(
            f"this node's clock and those of most linked members are {apart_ms // 1000} s apart: it signs nothing from {AUTHOR_SKEW_MAX_MS // 1000} s on",
            hint="set the clock (timedatectl), then replicad doctor",
            code="clock-skew",
        )


def is_future(stamp: Stamp, now_ms: int) -> bool:
    """Whether a stamp is too far ahead of this node's time to be accepted."""
    return stamp.ms > now_ms + FUTURE_MAX_MS


class HybridClock:
    """Hands out strictly growing stamps. ``last`` is the greatest stamp made or observed so far."""

    def __init__(self, last: Stamp = Stamp(0)) -> None:  # noqa: B008 - immutable
        self.last = last

    def tick(self, now_ms: int) -> Stamp:
        """A new stamp, greater than every earlier one even when the time of day went backwards."""
        self.last = Stamp(max(self.last + 1, Stamp.of(now_ms)))
        return self.last

    def observe(self, stamp: Stamp) -> None:
        """Take the stamp of an accepted record into account. Ask ``is_future`` before accepting one."""
        self.last = max(self.last, stamp)
