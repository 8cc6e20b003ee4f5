"""The hybrid logical clock: time of day where clocks agree, a counter where they do not.

After Kulkarni et al., "Logical Physical Clocks" (2014): 48 bits of milliseconds, 16 bits of counter. A stamp made here is greater than every stamp made or accepted here before, so what a
record's author had seen is earlier than the record. It refuses to know where the time comes from: ``now_ms`` is an argument.
"""

from __future__ import annotations

from replicad.model.ids import Stamp

FUTURE_MAX_MS = 600_000
"""A record further ahead is not accepted, not relayed and moves no clock: ten minutes is what a machine without time synchronisation may be off by, and a wrong year must not spread."""


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
