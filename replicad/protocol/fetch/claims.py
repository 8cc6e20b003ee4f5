"""Who takes what only one node has: of every small content one owner among the nodes that seek it, by rendezvous hashing, so that the source sends about one copy and the others swap (docs/protocol.md,
"Who has what").

All who seek the same compute the same owner without asking each other. An owner that got nothing of what it owns for ``patience_s`` is passed over until it does. Only that counts, not that it
speaks: whoever seeks without fetching, or says that it has what it has not, delays others by one patience.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice

from replicad.model.ids import NodeId
from replicad.protocol.fetch.config import LIKELY_S, OWNER_S, PACK_MAX
from replicad.protocol.wire import Small

SOUGHT_MAX = 2 * PACK_MAX
"""Contents of one peer that are remembered, as at the other side."""


class Claims:
    """For the places of one pack. ``own`` is this node."""

    def __init__(self, own: NodeId) -> None:
        self._own = own
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
        for small, place in contents:
            sought[small] = None
            if place is not None and _weight(small, node) < _weight(small, self._own):
                self._owns(node, place, now)
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
        own = _weight(small, self._own)
        for node, sought in self._sought.items():
            if _weight(small, node) >= own:
                continue
            if small in sought:
                self._owns(node, place, now)
            elif now - self._spoke[node] < OWNER_S:
                self._likely[node] = self._likely.get(node, 0) | 1 << place
                self._expected[node] = now + LIKELY_S

    def _owns(self, node: NodeId, place: int, now: float) -> None:
        if not self._ahead.get(node):
            self._heard[node] = now
        self._ahead[node] = self._ahead.get(node, 0) | 1 << place

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


def _weight(small: Small, node: NodeId) -> bytes:
    return hashlib.sha256(small.content + node).digest()
