"""What another was just given by its only holder, and will pass on: it is waited for once, then asked for firmly (docs/protocol.md, "Small contents")."""

from __future__ import annotations

from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import OVERDUE_FACTOR, OVERDUE_S_MIN


class Deferred:
    """For the places of one pack, as sets. ``now``: those that are waited for. ``in_vain``: those that were, and did not come in time."""

    def __init__(self) -> None:
        self.now = 0
        self.in_vain = 0
        self._patience_s = OVERDUE_S_MIN
        self._until: list[tuple[float, int]] = []

    def took(self, batch_s: float) -> None:
        """A batch took so long: what another is being sent is overdue when it would be here."""
        self._patience_s = max(OVERDUE_S_MIN, OVERDUE_FACTOR * batch_s)

    def defer(self, units: int, now: float) -> None:
        """Others were just given these: wait for them as long as if they were on the way to here."""
        if units:
            self.now |= units
            self._until.append((now + self._patience_s, units))

    def drop(self, units: int) -> None:
        """These places are free."""
        self.now &= ~units
        self.in_vain &= ~units
        self._until = [(until, left) for until, deferred in self._until if (left := deferred & ~units)]

    def review(self, now: float) -> int:
        """Returns the places for which the time is over."""
        ended = sets.union(units for until, units in self._until if until <= now)
        if ended:
            self._until = [(until, units) for until, units in self._until if until > now]
            self.now &= ~ended
            self.in_vain |= ended
        return ended

    @property
    def due(self) -> float | None:
        """When the next time is over."""
        return min((until for until, _ in self._until), default=None)
