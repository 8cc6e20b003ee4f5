"""Who takes what only one node has: of every small content one owner among the nodes that seek it, by rendezvous hashing, so that the source sends about one copy and the others swap (docs/protocol.md,
"Who has what").

All who seek the same compute the same owner without asking each other. An owner that got nothing of what it owns for ``patience_s`` is passed over until it does. Only that counts, not that it
speaks: whoever seeks without fetching, or says that it has what it has not, delays others by one patience.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from replicad.model.ids import NodeId
from replicad.protocol.fetch import sets
from replicad.protocol.fetch.config import LIKELY_S, OWNER_S, PACK_MAX
from replicad.protocol.wire import Small

SOUGHT_MAX = 2 * PACK_MAX
"""Contents of one peer that are remembered, as at the other side."""
_MASK = (1 << 64) - 1


class Claims:
    """For the places of one pack. ``own`` is this node."""

    def __init__(self, own: NodeId) -> None:
        self._factor = _factor(own)
        self._sought: dict[NodeId, dict[Small, None]] = {}
        self._ahead: dict[NodeId, int] = {}
        self._likely: dict[NodeId, int] = {}
        self._expected: dict[NodeId, float] = {}
        self._spoke: dict[NodeId, float] = {}
        self._heard: dict[NodeId, float] = {}
        self.patience_s = OWNER_S
        self.foreign = 0
        """The places that somebody else owns now."""

    def seek(self, node: NodeId, contents: Iterable[tuple[Small, int | None]], now: float) -> None:
        """A peer looks for these contents, which stand in these places here, or in none."""
        sought = self._sought.setdefault(node, {})
        self._spoke[node] = now
        factor = _factor(node)
        owned = []
        for small, place in contents:
            sought[small] = None
            if place is not None and self._yields(small, factor):
                owned.append(place)
        if owned:
            self._owns(node, sets.of(owned), now)
        for small in list(islice(sought, max(0, len(sought) - SOUGHT_MAX))):
            del sought[small]

    def found(self, node: NodeId, contents: Iterable[Small], units: int, now: float) -> None:
        """A peer has these, in these places, or does not look for them any more."""
        if node in self._sought:
            if self._ahead.get(node, 0) & units:
                self._heard[node] = now
                self._ahead[node] &= ~units
            self._likely[node] = self._likely.get(node, 0) & ~units
            for small in contents:
                self._sought[node].pop(small, None)

    def add(self, small: Small, place: int, now: float) -> None:
        """A content got a place. Whoever has just looked for others is likely to look for it, too: records do not reach all at the same time."""
        for node, sought in self._sought.items():
            is_sought = small in sought
            if not (is_sought or now - self._spoke[node] < OWNER_S) or not self._yields(small, _factor(node)):
                continue
            if is_sought:
                self._owns(node, 1 << place, now)
            else:
                self._likely[node] = self._likely.get(node, 0) | 1 << place
                self._expected[node] = now + LIKELY_S

    def _yields(self, small: Small, factor: int) -> bool:
        """Whether the node of that factor comes before this one for a content."""
        number = int.from_bytes(small.content[:8])
        return number * factor & _MASK < number * self._factor & _MASK

    def _owns(self, node: NodeId, units: int, now: float) -> None:
        if not self._ahead.get(node):
            self._heard[node] = now
        self._ahead[node] = self._ahead.get(node, 0) | units

    def drop(self, units: int) -> None:
        """These places are free."""
        for table in (self._ahead, self._likely):
            for node in table:
                table[node] &= ~units

    def forget(self, node: NodeId) -> None:
        """The peer is gone."""
        for table in (self._sought, self._ahead, self._likely, self._expected, self._spoke, self._heard):
            table.pop(node, None)

    def review(self, now: float) -> int:
        """Bring ``foreign`` up to date; returns the places that became free for everybody."""
        before, self.foreign = self.foreign, 0
        for node, ahead in self._ahead.items():
            if now - self._heard[node] < self.patience_s:
                self.foreign |= ahead
        for node, until in self._expected.items():
            if now < until:
                self.foreign |= self._likely[node]
            else:
                self._likely[node] = 0
        return before & ~self.foreign

    def next_deadline(self) -> float | None:
        """When patience with somebody ends."""
        times = [self._heard[node] + self.patience_s for node, ahead in self._ahead.items() if ahead & self.foreign]
        times += [self._expected[node] for node, likely in self._likely.items() if likely]
        return min(times, default=None)


def _factor(node: NodeId) -> int:
    return int.from_bytes(node[:8]) | 1
