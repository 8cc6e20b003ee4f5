"""Whom the holder of small contents gave each first: others of the same site wait for that one (docs/protocol.md, "Small contents")."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import islice

from replicad.model.ids import NodeId
from replicad.protocol.fetch.config import GIVEN_S, PACK_MAX
from replicad.protocol.wire import Small

FIRST_MAX = 2 * PACK_MAX
"""Small contents, for each site, of which it is known who was given them first; beyond it the oldest are forgotten."""


class Firsts:
    """``seekers``: who is linked and looked for small contents here."""

    def __init__(self, seekers: Container[NodeId]) -> None:
        self._seekers = seekers
        self._first: dict[tuple[str, Small], tuple[NodeId, float]] = {}

    def spread(self, node: NodeId, contents: Iterable[Small], *, site: str, now: float) -> frozenset[Small]:
        """Those that another was given first, so short a time ago that this node will soon have them from there."""
        nobody = (node, now)
        firsts = [(small, *self._first.get((site, small), nobody)) for small in contents]
        return frozenset([small for small, first, since in firsts if first != node and self._is_fresh(first, since, now)])

    def gave(self, node: NodeId, contents: Iterable[Small], *, site: str, now: float) -> None:
        """The node is being sent these. Whoever is first stays it as long as others wait for that: nobody keeps anything from others by asking again and again."""
        for small in contents:
            known = self._first.get((site, small))
            if known is None or not self._is_fresh(*known, now):
                self._first.pop((site, small), None)
                self._first[site, small] = node, now
        for key in list(islice(self._first, max(0, len(self._first) - FIRST_MAX))):
            del self._first[key]

    def broke(self, node: NodeId, contents: Iterable[Small], *, site: str) -> None:
        """What the node was being sent did not arrive."""
        for small in contents:
            if self._first.get((site, small), (None,))[0] == node:
                del self._first[site, small]

    def _is_fresh(self, first: NodeId, since: float, now: float) -> bool:
        return now - since < GIVEN_S and first in self._seekers
