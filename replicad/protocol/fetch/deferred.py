"""What another was just given by its only holder, and will pass on: it is waited for once, then asked for firmly (docs/protocol.md, "Small contents")."""

from __future__ import annotations

from replicad.protocol.fetch import sets


class Deferred:
    """For the places of one pack, as sets: those that are ``waiting``, and those that waited ``in_vain``."""

    def __init__(self) -> None:
        self.waiting = 0
        self.in_vain = 0
        self._until: list[tuple[float, int]] = []

    def defer(self, units: int, until: float) -> None:
        """Wait for these until then."""
        if units:
            self.waiting |= units
            self._until.append((until, units))

    def drop(self, units: int) -> None:
        """These need not wait any more, nor did they."""
        self.waiting &= ~units
        self.in_vain &= ~units
        self._until = [(until, left) for until, deferred in self._until if (left := deferred & ~units)]

    def review(self, now: float) -> int:
        """Returns the places that waited long enough."""
        ended = sets.union(units for until, units in self._until if until <= now)
        if ended:
            self._until = [(until, units) for until, units in self._until if until > now]
            self.waiting &= ~ended
            self.in_vain |= ended
        return ended

    @property
    def due(self) -> float | None:
        """When the next of them waited long enough."""
        return min((until for until, _ in self._until), default=None)
